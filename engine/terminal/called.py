"""How the user calls commands, for all that names one: `nn-cift NAME`, or `python jobs/NAME.py`.

Both do the same; where a sentence or an example names a command, it names what can be typed there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["PROGRAM", "as_called", "called", "calling", "typed"]

PROGRAM = "nn-cift"


class _Call:
    """The command that this process was started for: one for all modules, as sys.argv is."""

    command: str | None = None
    by_script = False


@contextmanager
def calling(command: str, *, by_script: bool) -> Iterator[None]:
    """For the time that a command runs: its name, and whether it is a script that was called."""
    before = _Call.command, _Call.by_script
    _Call.command, _Call.by_script = command, by_script
    try:
        yield
    finally:
        _Call.command, _Call.by_script = before


def called() -> str:
    """The running command, for its usage; where none is running, the program."""
    return PROGRAM if _Call.command is None else typed(_Call.command)


def typed(command: str) -> str:
    """A command as a sentence names it to this user: `nn-cift score-new`, or jobs/score_new.py."""
    if _Call.by_script:
        return f"jobs/{command.replace('-', '_')}.py"
    return f"{PROGRAM} {command}"


def as_called(text: str) -> str:
    """A text whose commands are those of nn-cift, with commands to type as the user does."""
    if not _Call.by_script:
        return text
    return re.sub(rf"\b{PROGRAM} ([a-z][a-z-]*)", lambda found: f"python {typed(found[1])}", text)
