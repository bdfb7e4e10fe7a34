"""Rows of a parsed file as words: what folding takes away, and what it leaves.

Two texts that differ in case, space, punctuation or the compatibility forms of Unicode (NFKC) have
the same words. Digits, letters and the symbols of mathematics and code stay: `3 + 4` is not
`3 - 4`. Scripts that are written without spaces have a word for each character.
"""

from __future__ import annotations

import sys
import unicodedata
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.kernels.words import (
    LETTER,
    OPERATOR,
    SEPARATOR,
    SYMBOL,
    Hashes,
    Starts,
    hash_rows,
    hash_words,
)

__all__ = ["COLUMNS", "Words", "prompts", "texts"]

COLUMNS = ("instruction", "input", "output")
_OPERATORS = "-*/%"  # punctuation to Unicode, and bullets and rules to most texts
_BREAK = pa.scalar("\n", pa.large_string())
_QUOTES = "`^"  # symbols to Unicode
_WITHOUT_SPACES = (  # first and last code point: Japanese, Chinese, Thai, Lao, Burmese, Khmer
    (0x3040, 0x30FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
)


@dataclass(frozen=True)
class Words:
    """The words of some texts.

    Attributes:
        hashes: (W,) of all words, row after row.
        starts: (rows + 1,).
    """

    hashes: Hashes
    starts: Starts

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> Words:
        """The words of a column of texts. Memory: 8 bytes a byte of text, mostly untouched."""
        if not len(column):  # as of a file with bad rows alone: maybe not even a chunk
            return cls(np.empty(0, np.uint64), np.zeros(1, np.int64))
        folded = pc.utf8_lower(pc.utf8_normalize(column.cast(pa.large_string()), "NFKC"))
        array = pa.concat_arrays(folded.chunks) if folded.num_chunks != 1 else folded.chunk(0)
        _, offsets, data = array.buffers()
        starts = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
        text = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
        return cls(*hash_words(text, starts, _classes()))

    @property
    def keys(self) -> Hashes:
        """(rows,) equal for rows with the same words; 0 for a row without any."""
        keys: Hashes = hash_rows(self.hashes, self.starts)
        return keys


def prompts(table: pa.Table) -> pa.ChunkedArray:
    """What is asked in each row: instruction and input."""
    return _joined(table["instruction"], table["input"])


def texts(table: pa.Table) -> pa.ChunkedArray:
    """The whole of each row: instruction, input and output."""
    return _joined(prompts(table), table["output"])


def _joined(first: pa.ChunkedArray, second: pa.ChunkedArray) -> pa.ChunkedArray:
    large = (column.cast(pa.large_string()) for column in (first, second))
    return pc.binary_join_element_wise(*large, _BREAK)


@cache
def _classes() -> NDArray[np.uint8]:
    """(0x110000,) what each character is; half a second, once a process."""
    classes = np.full(sys.maxunicode + 1, SEPARATOR, np.uint8)
    for code in range(sys.maxunicode + 1):
        category = unicodedata.category(chr(code))
        if category[0] in "LMN":
            classes[code] = LETTER
        elif category[0] == "S":
            classes[code] = SYMBOL
    for first, last in _WITHOUT_SPACES:
        part = classes[first : last + 1]
        part[part == LETTER] = SYMBOL
    for character in _OPERATORS:
        classes[ord(character)] = OPERATOR
    for character in _QUOTES:
        classes[ord(character)] = SEPARATOR
    return classes
