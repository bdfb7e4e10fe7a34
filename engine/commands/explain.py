"""Why was a row kept or dropped?

nn-cift explain --run-dir runs/mine --id ROW

Says why, its rank or what it would have added, and which selected row is nearest to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.commands import command_line
from engine.commands.command_line import RunArguments

FLAGS = {"id ROW": "of the row, as in the corpus or, where it has none, the ranking"}


def explain(arguments: RunArguments) -> dict[str, Any]:
    """Say it in words on stderr; returns all that is known of the row."""
    from engine.artifacts.run_directory import RunDirectory
    from engine.errors import RunDirectoryError
    from engine.selection.explain import explain
    from engine.terminal.called import typed
    from engine.terminal.progress import say

    run = RunDirectory.at(arguments.run_dir)
    corpus, selection = run.artifact("1-corpus"), run.artifact("7-selection")
    if corpus is None or selection is None:
        raise RunDirectoryError(f"{run} has no finished selection: run {typed('select')} first")
    told = explain(corpus, selection, arguments.values["id"])
    say("\n  ".join(told["why"]))
    return told


def main(words: Sequence[str]) -> int:
    """The command with such words; returns its exit code."""
    return command_line.main_of_run(__doc__, FLAGS, explain, words)
