"""The two doors to every command: `nn-cift NAME` of an installed package, and jobs/NAME.py.

Nothing else is imported before it is known which command it is: the overview is there at once.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

from engine.errors import SettingsError
from engine.spelling import meant
from engine.terminal.called import PROGRAM, calling

__all__ = ["COMMANDS", "main", "start"]

# In the order in which somebody meets them; each is a module of this package.
COMMANDS = {
    "doctor": "what would a run find on this machine, and what is missing?",
    "plan": "what would a run take, before anything is spent?",
    "check": "does a corpus repeat what may not be trained on, or itself?",
    "select": "choose the rows of a corpus that are worth training on",
    "explain": "why was a row kept or dropped?",
    "export": "write the subset as a file that a trainer reads",
    "score-new": "what do new rows add to a finished run?",
    "evaluate": "does a model do better with the subset, and with whose?",
    "tune": "which student, and which settings, learn a teacher best?",
}
_FLAGS = ("--help", "--version")
_OVERVIEW = """\
usage: {program} COMMAND [flags]

Choose what to train a language model on.

commands:
{commands}

{program} COMMAND --help says what it takes, {program} --version which this is.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """`nn-cift`, for the shell: the command that the first word names; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        listed = "\n".join(f"  {name:<11}{line}" for name, line in COMMANDS.items())
        sys.stdout.write(_OVERVIEW.format(program=PROGRAM, commands=listed))
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"{PROGRAM} {version('nn-cift-engine')}\n")
        return 0
    if words[0] not in COMMANDS:
        return _refuse(words)
    return start(words[0], words[1:])


def start(name: str, words: Sequence[str] | None = None, *, by_script: bool = False) -> int:
    """Run one command, for both doors; words default to those of the process.

    `by_script`: the user typed `python jobs/NAME.py`, so messages name commands like that.
    """
    module = importlib.import_module(f"engine.commands.{name.replace('-', '_')}")
    with calling(name, by_script=by_script):
        code: int = module.main(sys.argv[1:] if words is None else words)
    return code


def _refuse(words: Sequence[str]) -> int:
    """Say what was meant by a first word that is no command, as commands say their errors."""
    from engine.commands.command_line import run_job

    def fail() -> dict[str, Any]:
        word, listed = words[0], ", ".join(COMMANDS)
        if word.startswith("-"):
            close = meant(word, _FLAGS)
            raise SettingsError(f"a command must come first, got {word}: one of {listed}{close}")
        close = meant(word, COMMANDS)
        raise SettingsError(f"unknown command {word!r}: expected one of {listed}{close}")

    return run_job(fail, words)
