"""A JSON array too long to hold: its elements one after another, from chunks of text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

__all__ = ["iterate_array"]

_BLANKS = re.compile(r"[ \t\r\n]*")
_CHUNK_CHARS = 2**20


def iterate_array(file: TextIO, chunk_chars: int = _CHUNK_CHARS) -> Iterator[tuple[Any, str]]:
    """(value, its source text) of every element of an array, for the JSON reader.

    Holds a chunk or an element, whichever is longer. Raises ValueError at the first character that
    is not JSON: what follows cannot be told apart any more.
    """
    window = _Window(file, chunk_chars)
    num_elements = 0
    if window.peek() != "[":
        raise ValueError("expected [ at the start")
    window.skip()
    while window.peek() != "]" or num_elements:
        try:
            yield window.element()
        except (ValueError, RecursionError) as error:
            problem = getattr(error, "msg", str(error))
            raise ValueError(f"element {num_elements + 1}: {problem}") from None
        num_elements += 1
        mark = window.peek()
        window.skip()
        if mark == "]":
            break
        if mark != ",":
            got = mark or "the end"
            raise ValueError(f"expected , or ] after element {num_elements}, got {got}")
    else:
        window.skip()
    if window.peek():
        raise ValueError(f"expected the end after the array, got {window.peek()}")


class _Window:
    """The part of a text that is being looked at."""

    def __init__(self, file: TextIO, chunk_chars: int) -> None:
        self._file = file
        self._chunk_chars = chunk_chars
        self._decode = json.JSONDecoder().raw_decode
        self._text = ""
        self._position = 0

    def peek(self) -> str:
        """The next character that is not blank; "" at the end of the file."""
        while True:
            blanks = _BLANKS.match(self._text, self._position)
            assert blanks is not None, "a pattern that may be empty always matches"
            self._position = blanks.end()
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._read_on():
                return ""

    def skip(self) -> None:
        """Step over the character that was peeked at."""
        self._position += 1

    def element(self) -> tuple[Any, str]:
        """The value that starts here; reads on until it is whole."""
        self.peek()
        while True:
            try:
                value, end = self._decode(self._text, self._position)
            except ValueError:
                if self._read_on():
                    continue
                raise
            # A number at the end of the window may go on behind it.
            if end == len(self._text) and self._read_on():
                continue
            source = self._text[self._position : end]
            self._position = end
            return value, source

    def _read_on(self) -> bool:
        # As much again as is held, so that a long element is not decoded once per chunk.
        held = self._text[self._position :]
        more = self._file.read(max(self._chunk_chars, len(held)))
        self._text, self._position = held + more, 0
        return bool(more)
