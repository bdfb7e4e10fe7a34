"""Select the subset of an instruction corpus that is worth training on.

nn-cift select --config jobs/configs/demo.yaml
nn-cift select --config jobs/configs/my_corpus.yaml --corpus.path rows.jsonl --run-dir runs/a
ray job submit --working-dir . -- nn-cift select --config jobs/configs/demo.yaml

What is finished in the run directory is not done again; what was made with other settings is
redone with --overwrite only. Teacher answers are never paid for twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.commands import command_line
from engine.commands.command_line import Arguments

STAGES = "ingest, embed, sample, score, fit, predict, select, report"
FLAGS = {"until STAGE": f"stop after this stage: {STAGES}"}


def select(arguments: Arguments) -> dict[str, Any]:
    """Run the pipeline; returns the headline of its report."""
    from engine.artifacts.files import shown
    from engine.stages.pipeline import run
    from engine.terminal.progress import say

    directory = run(
        arguments.config,
        run_dir=arguments.run_dir,
        until=arguments.until,
        overwrite=arguments.overwrite,
    )
    report = directory.artifact("8-report")
    if report is None or arguments.until is not None:
        return {"run_dir": str(directory)}
    # by where they lie now: a finished run may have been moved
    selected = directory.artifact("7-selection")
    assert selected is not None, "a report is made of a selection"
    files = {"subset": selected.path("subset"), "report": report.path("report")}
    headline = {**report.counts, **{name: shown(path) for name, path in files.items()}}
    say(f"\n{headline['verdict']}\nsubset: {headline['subset']}\nreport: {headline['report']}")
    return {"run_dir": str(directory), **headline}


def main(words: Sequence[str]) -> int:
    """The command with such words; returns its exit code."""
    return command_line.main(__doc__, select, words, FLAGS)
