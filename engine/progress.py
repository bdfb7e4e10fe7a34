"""Progress on stderr that a person likes to watch: stage, rows, rate, time left.

On a terminal a bar that redraws itself; elsewhere (a job's log) one line every few seconds. What is
said may quote a corpus, a path or a model of strangers, so a terminal is sent no character that
moves its cursor, changes its colours or title, or turns text round.
"""

from __future__ import annotations

import sys
import time
import unicodedata
from types import TracebackType
from typing import Any

from tqdm import tqdm

__all__ = ["Progress", "printable", "say"]

_SECONDS_BETWEEN_LINES = 10.0


def say(message: str) -> None:
    """One message on stderr; it may have several lines."""
    tqdm.write(printable(message), file=sys.stderr)


def printable(text: str) -> str:
    """A text as a terminal may have it: all else but newlines, tabs and spaces as an escape."""
    return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    if unicodedata.category(character) == "Zs":  # such as a no-break space
        return character
    return character.encode("unicode_escape").decode("ascii")


class Progress:
    """Counts units of work towards a total; use as a context manager.

    Args:
        label: what is being done, e.g. "embed candidates".
        total: units in all.
        unit: plural noun, e.g. "rows" or "pairs".
        done: units that an earlier run had finished; the rate leaves them out.
    """

    def __init__(self, label: str, total: int, unit: str, done: int = 0) -> None:
        self.label, self.total, self.unit = printable(label), total, unit
        self.initial = self.done = done
        self._started = self._last_line = time.monotonic()
        self._bar: tqdm[Any] | None = None
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=total, initial=done, desc=f"  {label}", unit=f" {unit}", file=sys.stderr
            )

    def __enter__(self) -> Progress:
        return self

    def advance(self, units: int) -> None:
        self.done += units
        if self._bar is not None:
            self._bar.update(units)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            say(self._line())

    def _line(self) -> str:
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate = (self.done - self.initial) / elapsed
        share = 100 * self.done / self.total if self.total else 100
        line = f"  {self.label}: {self.done:,} of {self.total:,} {self.unit} ({share:.0f} %)"
        if rate > 0:
            left = (self.total - self.done) / rate
            line += f", {rate:,.1f} {self.unit}/s, {_duration(left)} left"
        return line

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
