"""Write the subset of a finished run as a file that a trainer reads.

nn-cift export --run-dir runs/mine --format messages --out sft/messages/train.jsonl
nn-cift export --run-dir runs/mine --format alpaca --out llama_factory/subset.json
nn-cift export --run-dir runs/mine/additions/NAME --format datasets --out sft/merged

Chat rows come back as the conversations that they were. With the folder of an addition as the run,
the list is the subset with its additions. How to train on each format: docs/export.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.commands import command_line
from engine.commands.command_line import RunArguments

FLAGS = {
    "format FORMAT": "messages, alpaca, sharegpt, datasets, parquet or jsonl",
    "out PATH": "the file, or for datasets the folder; also s3://...",
}


def export(arguments: RunArguments) -> dict[str, Any]:
    """Write the file, say how to train on it; returns what was counted."""
    from engine.exports.export import export

    return export(
        arguments.run_dir,
        arguments.values["format"],
        arguments.values["out"],
        overwrite=arguments.overwrite,
    )


def main(words: Sequence[str]) -> int:
    """The command with such words; returns its exit code."""
    return command_line.main_of_run(__doc__, FLAGS, export, words)
