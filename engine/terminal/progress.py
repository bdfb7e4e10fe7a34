"""What a job says on stderr while it works, for a person, for nobody, or for a program.

For a person: on a terminal a bar that redraws itself; elsewhere (a job's log) a line every ten
seconds, and the longer a stage takes the rarer, up to one in five minutes. What is said may quote a
corpus, a path or a model of strangers, so a terminal is sent no character that moves its cursor,
changes its colours or title, or turns text round.

`--quiet` leaves errors only. `--json-logs` makes every line one JSON object with the keys

    time      ISO 8601, UTC
    level     info, warning, error
    event     message, stage_started, stage_finished, stage_skipped, progress, log, stderr (what
              libraries write there), error, internal_error, interrupted, terminated
    stage     null outside of one
    message   the same in words

and with `progress` also label, unit, done, total, rate (units/s) and eta_s, these two null while
they are not known; with `stage_finished` seconds; with `log` logger; with the errors exit_code and
kind, and traceback for a bug of ours. Keys are never renamed; new ones may come.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime, timezone
from types import TracebackType
from typing import Any, TextIO

from tqdm import tqdm

from engine.terminal.rates import Rate
from engine.terminal.stderr_lines import WrittenLines, descriptor_lines, is_chatter

__all__ = ["Progress", "in_stage", "printable", "say", "say_error", "speak"]

_TICK_S = 1.0  # a bar is redrawn at least this often
_REDRAW_S = 0.1  # and at most this often
_LEAST_S, _MOST_S = 10.0, 300.0  # between lines of a log
_LINES_PER_ELAPSED = 60  # in between: a line for each sixtieth of the time that it has taken so far


class _Voice:
    """How this process speaks: one for all modules, as stderr is."""

    quiet = False
    json_logs = False
    stage: str | None = None
    stream: TextIO | None = None  # the true stderr, while sys.stderr is one that listens
    lock = threading.Lock()


@contextmanager
def speak(*, quiet: bool = False, json_logs: bool = False) -> Iterator[None]:
    """Have all that this process says be errors only, or JSON, what libraries say included."""
    logs = _Handler(logging.ERROR if quiet else logging.WARNING)
    if not logging.root.handlers:  # else somebody has said already where logs go
        logging.root.addHandler(logs)
    with _own_stderr(quiet, json_logs) if quiet or json_logs else nullcontext():
        try:
            yield
        finally:
            logging.root.removeHandler(logs)


@contextmanager
def _own_stderr(quiet: bool, json_logs: bool) -> Iterator[None]:
    """Let nothing on stderr but what is said here, and in plain text what is no mere chatter."""
    before = _Voice.quiet, _Voice.json_logs, _Voice.stream, sys.stderr
    with descriptor_lines(sys.stderr, _overheard) as stream:
        _Voice.quiet, _Voice.json_logs, _Voice.stream = quiet, json_logs, stream
        lines = WrittenLines(stream, _overheard)
        sys.stderr = lines
        logging.captureWarnings(True)
        try:
            yield
        finally:
            logging.captureWarnings(False)
            lines.finish()
            sys.stderr = before[-1]
    _Voice.quiet, _Voice.json_logs, _Voice.stream, _ = before


def _overheard(line: str) -> None:
    """A line that somebody else wrote to stderr."""
    if not line.strip() or (_Voice.quiet and is_chatter(line)):
        return
    if _Voice.json_logs:
        _emit("info" if is_chatter(line) else "warning", "stderr", message=line)
    else:
        _write(printable(line))


def _write(line: str) -> None:
    with _Voice.lock:
        stream = _Voice.stream or sys.stderr
        stream.write(line + "\n")
        stream.flush()


@contextmanager
def in_stage(name: str) -> Iterator[None]:
    """Name the stage that is at work, for programs that read the log."""
    before, _Voice.stage = _Voice.stage, name
    try:
        yield
    finally:
        _Voice.stage = before


def say(message: str, event: str = "message", **fields: Any) -> None:
    """One message on stderr; it may have several lines. `fields` are for programs."""
    if _Voice.quiet:
        return
    if _Voice.json_logs:
        _emit("info", event, message=message.strip(), **fields)
    else:
        tqdm.write(printable(message), file=sys.stderr)


def say_error(message: str, event: str, text: str | None = None, **fields: Any) -> None:
    """What ends a job, said to all; `text` is what a person reads in the place of the message."""
    if _Voice.json_logs:
        _emit("error", event, message=message, **fields)
    else:
        _write(printable(text or message))


def printable(text: str) -> str:
    """A text as a terminal may have it: all else but newlines, tabs and spaces as an escape."""
    return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    if unicodedata.category(character) == "Zs":  # such as a no-break space
        return character
    return character.encode("unicode_escape").decode("ascii")


def _emit(level: str, event: str, **fields: Any) -> None:
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    line = {"time": now, "level": level, "event": event, "stage": _Voice.stage, **fields}
    # JSON spells out all that acts on a terminal but DEL
    text = json.dumps(line, allow_nan=False, default=str).replace("\x7f", "\\u007f")
    _write(text)


class _Handler(logging.Handler):
    """Logs of libraries, as the rest is said."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = self.format(record)
            if _Voice.json_logs:
                _emit(record.levelname.lower(), "log", logger=record.name, message=message)
            else:
                _write(printable(message))
        except Exception:
            self.handleError(record)


class Progress:
    """Counts units of work towards a total; use as a context manager.

    Args:
        label: what is being done, e.g. "embed candidates".
        total: units in all.
        unit: plural noun, e.g. "rows" or "pairs".
        done: units that an earlier run had finished; the rate leaves them out.
        clock: seconds, of a test.
    """

    def __init__(
        self,
        label: str,
        total: int,
        unit: str,
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.label, self.total, self.unit = printable(label), total, unit
        self.initial = self.done = done
        self._clock = clock
        self._started = self._last_line = clock()
        self._num_lines = 0
        self._rate = Rate(self._started)
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._bar: tqdm[Any] | None = None
        if not (_Voice.quiet or _Voice.json_logs) and sys.stderr.isatty():
            self._bar = tqdm(
                total=total,
                initial=done,
                desc=f"  {self.label}",
                file=sys.stderr,
                bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:,} of {total:,}{postfix}",
            )

    def __enter__(self) -> Progress:
        if not _Voice.quiet:
            threading.Thread(target=self._tick_until_the_end, daemon=True).start()
        return self

    def advance(self, units: int) -> None:
        """Count units that are finished now."""
        with self._lock:
            self.done += units
            self._rate.count(units, self._clock())
        self.tick()

    def tick(self) -> None:
        """Show how far it is, if it is time to; called every second, whether something is done."""
        with self._lock:
            now = self._clock()
            if self._bar is not None:
                if now - self._last_line >= _REDRAW_S:
                    self._redraw(now)
            elif now - self._last_line >= _pause(now - self._started):
                self._show(now)

    def _redraw(self, now: float) -> None:
        assert self._bar is not None
        self._last_line = now
        self._bar.n = self.done
        self._bar.set_postfix_str(self._pace(now))  # draws

    def _show(self, now: float) -> None:
        self._last_line = now
        self._num_lines += 1
        rate, eta = self._rate.at(now), self._rate.eta(self.total - self.done, now)
        say(
            self._line(),
            "progress",
            label=self.label,
            unit=self.unit,
            done=self.done,
            total=self.total,
            rate=None if rate is None else round(rate, 4),
            eta_s=None if eta is None else round(eta),
        )

    def _line(self) -> str:
        share = 100 * self.done / self.total if self.total else 100
        line = f"  {self.label}: {self.done:,} of {self.total:,} {self.unit} ({share:.0f} %)"
        now = self._clock()
        pace = self._pace(now) or f"since {now - self._started:,.0f} s"
        return f"{line}, {pace}"

    def _pace(self, now: float) -> str:
        rate, eta = self._rate.at(now), self._rate.eta(self.total - self.done, now)
        if rate is None or eta is None:
            return ""
        each = f"{rate:,.1f} {self.unit}/s" if rate >= 0.1 else f"{60 * rate:,.2g} {self.unit}/min"
        return f"{each}, {hours(eta)} h left" if self.done < self.total else each

    def _tick_until_the_end(self) -> None:
        while not self._ended.wait(_TICK_S):
            self.tick()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        with self._lock:
            if self._bar is not None:
                self._redraw(self._clock())
                self._bar.close()
            elif error is None and (self._num_lines or _Voice.json_logs):
                self._show(self._clock())


def _pause(elapsed: float) -> float:
    """Seconds between two lines of a log: ten at first, five minutes in stages that take days."""
    return min(max(elapsed / _LINES_PER_ELAPSED, _LEAST_S), _MOST_S)


def hours(seconds: float) -> str:
    """A time to wait as h:mm, rounded up, since 0:00 would be over."""
    minutes = int(-(-seconds // 60))
    return f"{minutes // 60}:{minutes % 60:02d}"
