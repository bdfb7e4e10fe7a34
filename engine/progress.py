"""Progress on stderr that a person likes to watch: stage, rows, rate, time left.

On a terminal a bar that redraws itself; elsewhere (a job's log) one line every few seconds.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from tqdm import tqdm

__all__ = ["Progress", "say"]

_SECONDS_BETWEEN_LINES = 10.0


def say(message: str) -> None:
    """One line on stderr."""
    tqdm.write(message, file=sys.stderr)


class Progress:
    """Counts units of work towards a total; use as a context manager.

    Args:
        label: what is being done, e.g. "embed candidates".
        total: units in all.
        unit: plural noun, e.g. "rows" or "pairs".
        done: units that an earlier run had finished; the rate leaves them out.
    """

    def __init__(self, label: str, total: int, unit: str, done: int = 0) -> None:
        self.label, self.total, self.unit = label, total, unit
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
