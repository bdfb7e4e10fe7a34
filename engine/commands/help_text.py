"""The text of `--help`, the same structure for every job: what, examples, flags, settings, exits.

A job's docstring has the words: a sentence, a paragraph of commands, and whatever else there is to
say. Commands are shown so that they can be copied; the rest is filled to the width.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["WIDTH", "Help", "help_of"]

WIDTH = 79
_EXITS = """\
exit codes:
  0 done    1 internal error    2 bad input or settings    130 interrupted

The last line on stdout is one JSON object; all else goes to stderr. A job that
was stopped goes on where it was with the same command."""


@dataclass(frozen=True)
class Help:
    """What stands above and below the flags."""

    description: str
    epilog: str

    def usage(self, prog: str, source: str, needed: Sequence[str]) -> str:
        """The line that names what a job cannot do without; two if it is long."""
        ends = " [--section.key VALUE ...]" if "settings:" in self.epilog else ""
        words = [word for word in (prog, source, *needed, f"[flags]{ends}") if word]
        filled = textwrap.fill(
            " ".join(word.replace(" ", "\0") for word in words),
            WIDTH - len("usage: "),
            subsequent_indent=" " * 7,
            break_long_words=False,
            break_on_hyphens=False,
        )
        return filled.replace("\0", " ")


def help_of(docstring: str, settings: str) -> Help:
    """The help of a job with this docstring; `settings` says how they are given, if they are."""
    paragraphs = docstring.strip().split("\n\n")
    commands = [p for p in paragraphs if p.startswith(("nn-cift ", "python ", "ray "))]
    words = [textwrap.fill(p, WIDTH) for p in paragraphs if p not in commands]
    examples = "\n".join(_copyable(command) for p in commands for command in _joined(p))
    parts = [*words, *(["examples:\n" + examples] if examples else [])]
    about = f"settings:\n{textwrap.indent(settings, '  ')}\n\n" if settings else ""
    return Help("\n\n".join(parts).replace("%", "%%"), about + _EXITS)


def _joined(paragraph: str) -> list[str]:
    """Commands of a paragraph; an indented line goes on with the one before."""
    commands: list[str] = []
    for line in paragraph.splitlines():
        if line.startswith(" ") and commands:
            commands[-1] += " " + line.strip()
        else:
            commands.append(line)
    return commands


def _copyable(command: str) -> str:
    """A command as a shell takes it, broken before flags where it is too long."""
    lines, line = [], "  "
    for word in _with_values(command.split(" ")):
        if len(line) + len(word) + 1 > WIDTH - 2 and line.strip():
            lines.append(line + "\\")
            line = "      "
        line += word + " "
    return "\n".join([*lines, line.rstrip()])


def _with_values(words: Sequence[str]) -> list[str]:
    """Words of a command, each flag together with what follows it."""
    pieces: list[str] = []
    for word in words:
        if word.startswith("-") or not pieces or not pieces[-1].startswith("--"):
            pieces.append(word)
        else:
            pieces[-1] += " " + word
    return pieces
