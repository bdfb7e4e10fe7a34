"""Does a corpus repeat what may not be trained on, or itself?

nn-cift check --config jobs/configs/my_corpus.yaml --protect '[tests/gsm8k.parquet]'
nn-cift check rows.jsonl --against tests/gsm8k.parquet tests/mmlu.jsonl --out leaks.parquet

Compares every candidate with the targets, with evaluation.test and with the files of the setting
protect, or those behind --against, and with all other candidates. Needs no model and leaves nothing
in the run directory. Exit code 2 if a row leaks in a way that on_leak does not pass.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.commands import command_line
from engine.commands.command_line import Arguments

FLAGS = {"out FILE": "parquet file for all that was found, with both texts"}


def check(arguments: Arguments) -> dict[str, Any]:
    """Say what was found on stderr; returns it as numbers."""
    from engine.planning.check import check

    out = arguments.values["out"]
    return check(arguments.config, arguments.run_dir, None if out is None else Path(out))


def main(words: Sequence[str]) -> int:
    """The command with such words; returns its exit code."""
    return command_line.main(__doc__, check, _as_settings(words), FLAGS, needs_config=False)


def _as_settings(words: Sequence[str]) -> list[str]:
    """`CORPUS --against FILE...` as the settings that it stands for, one process among them."""
    told = list(words)
    if not told or told[0].startswith("-"):
        return told
    corpus, *rest = told
    settings = ["--corpus.path", json.dumps(corpus)]
    if "--execution" not in rest:
        settings += ["--execution", "local"]
    if "--against" in rest:
        first = rest.index("--against") + 1
        last = first
        while last < len(rest) and not rest[last].startswith("-"):
            last += 1
        settings += ["--protect", json.dumps(rest[first:last])]
        rest = rest[: first - 1] + rest[last:]
    return settings + rest
