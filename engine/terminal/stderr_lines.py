"""What others write to stderr, line by line: for jobs whose stderr is for programs, or for errors.

Libraries write to `sys.stderr`, and those in C++, such as Ray's, straight to descriptor 2.
`WrittenLines` stands in for the one, `descriptor_lines` for the other.
"""

from __future__ import annotations

import io
import os
import re
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

__all__ = ["WrittenLines", "descriptor_lines", "is_chatter"]

_STDERR = 2
# of Ray's core: [2026-11-26 07:43:28,309 I 25126 25126] logging.cc:303: ..., W a warning
_CHATTER = re.compile(r"\[\d{4}-\d\d-\d\d [\d:,.]+ [DIW] ")


def is_chatter(line: str) -> bool:
    """Whether a line is no more than Ray's core about what it does."""
    return _CHATTER.match(line) is not None


class WrittenLines(io.TextIOBase):
    """A stderr that hands on each line that is written to it."""

    def __init__(self, stream: TextIO, hand_on: Callable[[str], None]) -> None:
        self._stream, self._hand_on, self._rest = stream, hand_on, ""
        self._lock = threading.Lock()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str) -> int:
        with self._lock:
            *whole, self._rest = (self._rest + text).split("\n")
        for line in whole:
            self._hand_on(line)
        return len(text)

    def finish(self) -> None:
        """Hand on what was written without an end of line."""
        if self._rest:
            self.write("\n")


@contextmanager
def descriptor_lines(stream: TextIO, hand_on: Callable[[str], None]) -> Iterator[TextIO]:
    """Hand on what is written to descriptor 2; yields a stream to the true one.

    Does nothing where stderr is not descriptor 2, as under a test. What a process that is dying
    writes there in its last moment may be lost.
    """
    if not _is_descriptor(stream):
        yield stream
        return
    stream.flush()
    true, (end, start) = os.dup(_STDERR), os.pipe()
    os.dup2(start, _STDERR)
    os.close(start)
    ended = threading.Event()
    thread = threading.Thread(target=_read, args=(end, ended, hand_on), daemon=True)
    thread.start()
    with open(true, "w", encoding="utf-8", errors="backslashreplace", closefd=False) as told:
        try:
            yield told
        finally:
            stream.flush()
            os.dup2(true, _STDERR)
            ended.set()
            thread.join()
            told.flush()
    os.close(true)
    os.close(end)


def _is_descriptor(stream: TextIO) -> bool:
    try:
        return stream.fileno() == _STDERR
    except (OSError, ValueError, AttributeError):  # a stream in memory has none
        return False


def _read(end: int, ended: threading.Event, hand_on: Callable[[str], None]) -> None:
    """Read until it has ended and nothing is left: children may hold the other end open."""
    rest = b""
    while True:
        is_last = ended.is_set()
        ready, _, _ = select.select([end], [], [], 0 if is_last else 0.1)
        block = os.read(end, 2**16) if ready else b""
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            hand_on(line.decode("utf-8", "replace"))
        if not block and (is_last or ready):
            break
    if rest:
        hand_on(rest.decode("utf-8", "replace"))
