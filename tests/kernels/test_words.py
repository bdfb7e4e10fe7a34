"""Words, grams and shingles as hashes, against the same in plain Python."""

import random
import re
import unicodedata
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from engine.corpus.word_hashes import Words
from engine.kernels.words import hash_grams, hash_shingles

ALPHABET = "abAB 12 .,-+/%\n\té 日=<“”"


def plain_words(text):
    """What `Words` sees, for the characters of ALPHABET."""
    text = unicodedata.normalize("NFKC", text).lower()
    found = []
    for match in re.finditer(r"[a-z0-9é]+|([+=<])\1*|日+|[-/%](?=\s*[0-9])", text):
        word = match[0]
        if word[0] in "-/%" and found and found[-1][0] == word and found[-1][1] == match.start():
            continue
        found.append((word[0] if word[0] in "+=<日" else word, match.end()))
    return [word for word, _ in found]


def words_of(texts):
    return Words.of(pa.chunked_array([pa.array(texts, pa.string())]))


def rows_of(values, starts):
    return [values[a:b].tolist() for a, b in pairwise(starts)]


@pytest.fixture(scope="module")
def texts():
    draw = random.Random(0)
    return ["".join(draw.choices(ALPHABET, k=draw.randrange(40))) for _ in range(500)]


def test_words_are_those_of_the_slow_version(texts):
    words = words_of(texts)
    names = {}
    for text, row in zip(texts, rows_of(words.hashes, words.starts), strict=True):
        expected = plain_words(text)
        assert len(row) == len(expected), (text, expected)
        for name, value in zip(expected, row, strict=True):
            assert names.setdefault(name, value) == value, (text, name)
    assert len(set(names.values())) == len(names)


def test_grams_and_shingles_are_those_of_the_slow_version(texts):
    words = words_of(texts)
    rows = rows_of(words.hashes, words.starts)
    for size in (1, 2, 5):
        grams = rows_of(*hash_grams(words.hashes, words.starts, size))
        shingles = rows_of(*hash_shingles(words.hashes, words.starts, size))
        names = {}
        for row, hashed, found in zip(rows, grams, shingles, strict=True):
            expected = [tuple(row[i : i + size]) for i in range(len(row) - size + 1)]
            for name, value in zip(expected, hashed, strict=True):
                assert names.setdefault(name, value) == value
            if len(row) >= size:
                assert found == sorted(set(hashed))
            else:
                assert len(found) == min(len(row), 1)
        assert len(set(names.values())) == len(names)


def test_hashes_are_the_same_on_every_machine():
    words = words_of(["The same, everywhere: 3 + 4."])
    assert words.keys.tolist() == [KEY]


KEY = 7224545470414167201


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is Rome?", "what  is\nROME"),
        ("ﬁne １２", "Fine, 12!"),
        ("- a list", "a list"),
        ("3 - 4", "3 -\n  4"),
        ("日本語です", "日本語 です"),
        ("“It’s”", '"It\'s"'),
    ],
)
def test_folding_takes_away_case_space_and_punctuation(one, other):
    first, second = words_of([one, other]).keys
    assert first == second != 0


@pytest.mark.parametrize(
    ("one", "other"),
    [("3 + 4", "3 - 4"), ("3 * 4", "3 / 4"), ("a b", "ab"), ("a < b", "a > b"), ("-3", "3")],
)
def test_folding_leaves_what_means_something(one, other):
    assert len(set(words_of([one, other]).keys.tolist())) == 2


def test_a_row_without_words_has_no_key():
    words = words_of(["...", "", "\n"])
    assert words.keys.tolist() == [0, 0, 0] and words.starts.tolist() == [0, 0, 0, 0]


def test_a_slice_of_a_table_is_hashed_as_its_rows(texts):
    whole, part = words_of(texts), Words.of(pa.chunked_array([pa.array(texts)]).slice(100, 50))
    assert np.array_equal(part.keys, whole.keys[100:150])
