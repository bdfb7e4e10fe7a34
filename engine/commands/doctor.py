"""What would a run find on this machine, and what is missing?

nn-cift doctor
nn-cift doctor --quiet > here.json

Versions, processors, memory, models that come as packages, disk and Ray. Starts nothing. Put what
it prints into an issue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.commands import command_line


def doctor() -> dict[str, Any]:
    """Say it on stderr; returns it."""
    from engine.planning.doctor import doctor

    return doctor()


def main(words: Sequence[str]) -> int:
    """The command with such words; returns its exit code."""
    return command_line.main_alone(__doc__, doctor, words)
