"""Score new rows with the frozen student of a finished run and add what they bring.

nn-cift score-new --run-dir runs/mine --corpus new_rows.jsonl
nn-cift score-new --run-dir runs/mine --corpus new_rows.jsonl --selection.budget 0.1
    --drift.audit_candidates 0 --corpus.where '{split: train}'

Only the new rows are embedded and predicted. Writes the list of additions, the subset with them,
and whether the student may still be trusted on rows like these: RUN/additions/NAME/.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.commands import command_line
from engine.commands.command_line import RunArguments

FLAGS = {"corpus PATH": "the new rows: file, directory or glob, in the format of the run's corpus"}
SETTINGS = """\
Those of the sections corpus, selection, drift and ray can be given as
--section.key VALUE, with VALUE read as YAML. All others are the run's.
docs/settings.md has all of them with their meaning."""


def score_new(arguments: RunArguments) -> dict[str, Any]:
    """Do what is missing of the addition; returns its headline."""
    from engine.stages.additions import headline, score_new
    from engine.terminal.progress import say

    directory = score_new(
        arguments.run_dir,
        arguments.values["corpus"],
        overrides=arguments.overrides,
        overwrite=arguments.overwrite,
    )
    told = headline(directory)
    say(
        f"\n{told['added']:,} of {told['new_rows']:,} new rows add something; "
        f"{told['merged']:,} rows with the subset before: {told['subset']}"
    )
    if told["refit"]:
        say(f"the student should be fitted again: {'; '.join(told['reasons'])}")
    return {"run_dir": str(directory), **told}


def main(words: Sequence[str]) -> int:
    """The command with such words; returns its exit code."""
    return command_line.main_of_run(__doc__, FLAGS, score_new, words, SETTINGS)
