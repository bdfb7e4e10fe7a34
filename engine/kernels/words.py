"""Words of texts as numbers: what is compared where texts are compared word by word.

    hash_words     UTF-8 texts -> a 64-bit hash of each word
    hash_grams     words -> a hash of every n words that follow each other
    hash_shingles  words -> those hashes as a set of each row, ascending
    hash_rows      words -> a hash of each whole row

Rows lie one after the other, `starts` (rows + 1,) telling where. Two different words, grams or rows
have the same hash by accident with a probability of 2^-64 a pair: less than 1e-4 among all pairs of
a corpus of a million rows. Hashes are the same on every machine. Integers only.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.kernels.compiled import compiled

__all__ = [
    "LETTER",
    "OPERATOR",
    "SEPARATOR",
    "SYMBOL",
    "Hashes",
    "Starts",
    "hash_grams",
    "hash_rows",
    "hash_shingles",
    "hash_words",
]

Hashes: TypeAlias = NDArray[np.uint64]
Starts: TypeAlias = NDArray[np.int64]

# What a character is. Letters that follow each other are a word; a symbol is a word of its own,
# however often it is repeated; an operator is a symbol before a digit, else a separator.
SEPARATOR, LETTER, SYMBOL, OPERATOR = 0, 1, 2, 3

_OFFSET, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # FNV-1a, 64 bits
_STEP = np.uint64(0x9E3779B97F4A7C15)
_SPACE, _TAB, _RETURN, _ZERO, _NINE = 0x20, 0x09, 0x0D, 0x30, 0x39


@compiled()
def _mixed(value: np.uint64) -> np.uint64:
    """The last step of splitmix64: every bit depends on every bit."""
    value ^= value >> np.uint64(30)
    value *= np.uint64(0xBF58476D1CE4E5B9)
    value ^= value >> np.uint64(27)
    value *= np.uint64(0x94D049BB133111EB)
    mixed: np.uint64 = value ^ (value >> np.uint64(31))
    return mixed


@compiled()
def _decoded(data: NDArray[np.uint8], at: int) -> tuple[int, int]:
    """The code point at a byte, and the byte after it."""
    first = np.int64(data[at])
    if first < 0x80:
        return first, at + 1
    if first < 0xE0:
        return ((first & 0x1F) << 6) | (np.int64(data[at + 1]) & 0x3F), at + 2
    if first < 0xF0:
        high = ((first & 0x0F) << 12) | ((np.int64(data[at + 1]) & 0x3F) << 6)
        return high | (np.int64(data[at + 2]) & 0x3F), at + 3
    high = ((first & 0x07) << 18) | ((np.int64(data[at + 1]) & 0x3F) << 12)
    low = ((np.int64(data[at + 2]) & 0x3F) << 6) | (np.int64(data[at + 3]) & 0x3F)
    return high | low, at + 4


@compiled()
def _before_digit(data: NDArray[np.uint8], at: int, stop: int) -> bool:
    while at < stop and (data[at] == _SPACE or _TAB <= data[at] <= _RETURN):
        at += 1
    return at < stop and _ZERO <= data[at] <= _NINE


@compiled()
def hash_words(
    data: NDArray[np.uint8], starts: Starts, classes: NDArray[np.uint8]
) -> tuple[Hashes, Starts]:
    """The words of texts, in order.

    Args:
        data, starts: valid UTF-8, row r at data[starts[r] : starts[r + 1]].
        classes: (0x110000,), what each code point is.

    Returns hashes (W,) and where each row's words start. One pass over the bytes.
    """
    out = np.empty(
        len(data), np.uint64
    )  # a word has a byte at least; pages that stay empty are free
    first = np.zeros(len(starts), np.int64)
    count = 0
    for row in range(len(starts) - 1):
        at, stop = starts[row], starts[row + 1]
        value, inside, last = _OFFSET, False, np.int64(-1)
        while at < stop:
            code, after = _decoded(data, at)
            kind = classes[code]
            if kind == LETTER:
                for byte in range(at, after):
                    value = (value ^ np.uint64(data[byte])) * _PRIME
                inside, last = True, np.int64(-1)
            else:
                if inside:
                    out[count] = _mixed(value)
                    count += 1
                    value, inside = _OFFSET, False
                if kind == OPERATOR and not _before_digit(data, after, stop):
                    kind = SEPARATOR
                if kind == SEPARATOR:
                    last = np.int64(-1)
                elif code != last:
                    out[count] = _mixed((_OFFSET ^ np.uint64(code)) * _PRIME + np.uint64(1))
                    count += 1
                    last = code
            at = after
        if inside:
            out[count] = _mixed(value)
            count += 1
        first[row + 1] = count
    return out[:count].copy(), first


@compiled()
def _gram(words: Hashes, at: int, size: int) -> np.uint64:
    value = np.uint64(size)
    for word in range(at, at + size):
        value = value * _STEP + words[word]
    mixed: np.uint64 = _mixed(value)
    return mixed


@compiled()
def hash_grams(words: Hashes, starts: Starts, size: int) -> tuple[Hashes, Starts]:
    """Every `size` words that follow each other in a row, in order; a shorter row has none."""
    first = np.zeros(len(starts), np.int64)
    for row in range(len(starts) - 1):
        first[row + 1] = first[row] + max(starts[row + 1] - starts[row] - size + 1, 0)
    out = np.empty(first[-1], np.uint64)
    for row in range(len(starts) - 1):
        for place in range(first[row + 1] - first[row]):
            out[first[row] + place] = _gram(words, starts[row] + place, size)
    return out, first


@compiled()
def hash_shingles(words: Hashes, starts: Starts, size: int) -> tuple[Hashes, Starts]:
    """The set of grams of each row, ascending; a row of fewer words has one gram of all of them."""
    out = np.empty(len(words), np.uint64)
    first = np.zeros(len(starts), np.int64)
    count = 0
    for row in range(len(starts) - 1):
        num_words = starts[row + 1] - starts[row]
        length = min(num_words, size)
        begin = count
        if num_words:
            for place in range(num_words - length + 1):
                out[count] = _gram(words, starts[row] + place, length)
                count += 1
            out[begin:count].sort()
            kept = begin
            for place in range(begin, count):
                if place == begin or out[place] != out[kept - 1]:
                    out[kept] = out[place]
                    kept += 1
            count = kept
        first[row + 1] = count
    return out[:count].copy(), first


@compiled()
def hash_rows(words: Hashes, starts: Starts) -> Hashes:
    """(rows,) a hash of all words of each row; 0 for a row without words, which equals no other."""
    out = np.zeros(len(starts) - 1, np.uint64)
    for row in range(len(out)):
        num_words = starts[row + 1] - starts[row]
        if num_words:
            value = np.uint64(num_words)
            for word in range(starts[row], starts[row + 1]):
                value = _mixed(value * _STEP + words[word])
            out[row] = max(value, np.uint64(1))
    return out
