"""Does a model do better with the subset, and with whose? Against random rows, and all of them.

nn-cift evaluate --config jobs/configs/evaluate.yaml

A model answers test rows with the rows of every arm, shown in its prompt and by QLoRA. The table
of what it made of them is printed and lies in RUN/evaluation/5-results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.commands import command_line
from engine.commands.command_line import Arguments


def evaluate(arguments: Arguments) -> dict[str, Any]:
    """Evaluate all arms; prints the table and returns where it lies."""
    from engine.artifacts.files import shown
    from engine.errors import SettingsError
    from engine.stages.arms import evaluate
    from engine.storage import fetch
    from engine.terminal.called import typed
    from engine.terminal.progress import say

    if arguments.until is not None:
        raise SettingsError(f"--until is a flag of {typed('select')}: evaluate does all its stages")
    directory = evaluate(arguments.config, run_dir=arguments.run_dir, overwrite=arguments.overwrite)
    artifact = directory.artifact("5-results")
    assert artifact is not None
    say("\n" + fetch(artifact.path("markdown")).read_text(encoding="utf-8"))
    return {
        "evaluation": str(directory),
        "results": shown(artifact.path("results")),
        "table": shown(artifact.path("markdown")),
        **artifact.counts,
    }


def main(words: Sequence[str]) -> int:
    """The command with such words; returns its exit code."""
    return command_line.main(__doc__, evaluate, words)
