"""What may not be trained on, as an index: rows whose words candidates are compared with.

A row is protected by three things: its prompt as a whole, every 13 words of it that follow each
other (Brown et al., "Language Models are Few-Shot Learners", 2020, C), and the set of its prompt's
pairs of words.

The 13 words may be a prompt template, which many rows share and which gives nothing away: "Pick the
best answer from the following options". So a run of 13 words counts only if at least OWN_WORDS of
them lie outside of common phrases: 5 words that occur in more than `common_limit` rows, those of
the pool and the protected ones together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from engine import storage
from engine.artifacts.files import atomic_path, read_table
from engine.corpus.word_hashes import COLUMNS, Words, prompts, texts
from engine.kernels.set_join import best_match, build_table, find_members
from engine.kernels.words import Hashes, Starts, hash_grams, hash_shingles

__all__ = ["GRAM", "SHINGLE", "Matches", "ProtectedIndex", "build_index", "common_limit"]

GRAM, PHRASE, OWN_WORDS = 13, 5, 7  # words
SHINGLE = 2  # words of a shingle: rows whose clauses changed places share most of them
_PHRASES = GRAM - PHRASE + 1  # in a gram
LEAST_COMMON, COMMON_SHARE = 20, 0.001

Numbers = NDArray[np.int32]


def common_limit(num_rows: int) -> int:
    """In how many of so many rows a phrase may occur before it is a template: 20, or 0.1 %."""
    return max(LEAST_COMMON, int(COMMON_SHARE * num_rows))


@dataclass(frozen=True)
class Matches:
    """What the rows of a part have in common with P protected rows.

    Attributes:
        exact_rows, exact_protected: rows whose prompt is that of a protected row, and which;
            of several protected rows with one prompt the first stands for all.
        near_rows, near_protected, near_similarity: rows near to a protected one, and the nearest.
        gram_rows, gram_numbers: which row has which of the index's grams, once each.
        phrase_numbers, phrase_counts: in how many rows the index's phrases occur.
    """

    exact_rows: Numbers
    exact_protected: Numbers
    near_rows: Numbers
    near_protected: Numbers
    near_similarity: NDArray[np.float64]
    gram_rows: Numbers
    gram_numbers: Numbers
    phrase_numbers: Numbers
    phrase_counts: Numbers

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """As they are saved, each name with a prefix."""
        return {f"{prefix}/{field.name}": getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, arrays: dict[str, NDArray[Any]], prefix: str) -> Matches:
        return cls(**{field.name: arrays[f"{prefix}/{field.name}"] for field in fields(cls)})


@dataclass(frozen=True)
class ProtectedIndex:
    """P protected rows, by what a candidate may share with them.

    Attributes:
        keys, key_rows: distinct prompts, and the first row of each.
        grams, gram_starts, gram_rows: distinct grams, and the rows that have each.
        gram_phrases: (G, 9) the phrases in each gram, by number.
        phrases, phrase_counts: distinct phrases, and in how many protected rows each occurs.
        shingles, shingle_starts, shingle_rows: distinct shingles of prompts, and their rows.
        sets, set_starts: the shingles of each prompt.
    """

    keys: Hashes
    key_rows: Numbers
    grams: Hashes
    gram_starts: Starts
    gram_rows: Numbers
    gram_phrases: Numbers
    phrases: Hashes
    phrase_counts: Numbers
    shingles: Hashes
    shingle_starts: Starts
    shingle_rows: Numbers
    sets: Hashes
    set_starts: Starts

    @property
    def num_rows(self) -> int:
        return len(self.set_starts) - 1

    def save(self, path: Path) -> None:
        """Write it as safetensors, atomically."""
        with atomic_path(path) as temporary:
            save_file({field.name: getattr(self, field.name) for field in fields(self)}, temporary)

    @classmethod
    def load(cls, path: Path) -> ProtectedIndex:
        return cls(**load_file(storage.fetch(path)))

    def own_grams(self, phrase_counts: Numbers, limit: int) -> NDArray[np.bool_]:
        """(G,) which grams are no template, `phrase_counts` being those of the pool."""
        common = (phrase_counts + self.phrase_counts > limit)[self.gram_phrases]
        covered = np.zeros((len(self.grams), GRAM), dtype=bool)
        for place in range(_PHRASES):
            covered[:, place : place + PHRASE] |= common[:, place, None]
        own: NDArray[np.bool_] = GRAM - covered.sum(axis=1) >= OWN_WORDS
        return own


class Matcher:
    """Compares rows with an index; holds the index's hash tables."""

    def __init__(self, index: ProtectedIndex, near: float | None) -> None:
        self._index, self._near = index, near
        self._keys, self._grams = build_table(index.keys), build_table(index.grams)
        self._phrases, self._shingles = build_table(index.phrases), build_table(index.shingles)

    def match(self, prompt: Words, text: Words) -> Matches:
        """What rows have in common with the index. Time: one look-up a word, three times."""
        keys = find_members(prompt.keys, *self._keys)
        exact = np.flatnonzero(keys >= 0).astype(np.int32)
        gram_rows, gram_numbers = _found(text, GRAM, self._grams)
        _, phrases = _found(text, PHRASE, self._phrases)
        phrase_numbers, phrase_counts = np.unique(phrases, return_counts=True)
        nearest, similarity = self._nearest(prompt)
        near = np.flatnonzero(nearest >= 0)
        return Matches(
            exact_rows=exact,
            exact_protected=self._index.key_rows[keys[exact]],
            near_rows=near.astype(np.int32),
            near_protected=nearest[near],
            near_similarity=similarity[near],
            gram_rows=gram_rows,
            gram_numbers=gram_numbers,
            phrase_numbers=phrase_numbers.astype(np.int32),
            phrase_counts=phrase_counts.astype(np.int32),
        )

    def _nearest(self, prompt: Words) -> tuple[Numbers, NDArray[np.float64]]:
        if self._near is None:
            return np.full(len(prompt.starts) - 1, -1, np.int32), np.zeros(len(prompt.starts) - 1)
        index = self._index
        nearest, similarity = best_match(
            *hash_shingles(prompt.hashes, prompt.starts, SHINGLE),
            *self._shingles,
            index.shingle_rows,
            index.shingle_starts,
            index.sets,
            index.set_starts,
            self._near,
        )
        return nearest, similarity


def build_index(files: Sequence[Path], path: Path) -> int:
    """Index the rows of parsed files, one after the other; returns P. Memory: their words."""
    table = pa.concat_tables([read_table(file, columns=list(COLUMNS)) for file in files])
    prompt, text = Words.of(prompts(table)), Words.of(texts(table))
    keys, key_rows = np.unique(prompt.keys, return_index=True)
    some = keys != 0
    all_grams, starts = hash_grams(text.hashes, text.starts, GRAM)
    grams, first, numbers = np.unique(all_grams, return_index=True, return_inverse=True)
    gram_starts, gram_rows = _postings(numbers, _row_of(starts), len(grams))
    all_phrases, phrase_starts = hash_grams(text.hashes, text.starts, PHRASE)
    phrases, phrase_numbers = np.unique(all_phrases, return_inverse=True)
    counted = np.unique(phrase_numbers * np.int64(len(table)) + _row_of(phrase_starts))
    # a gram begins at the same word as the first of its phrases
    row = _row_of(starts)[first]
    begin = phrase_starts[row] + (first - starts[row])
    within = begin[:, None] + np.arange(_PHRASES)
    sets, set_starts = hash_shingles(prompt.hashes, prompt.starts, SHINGLE)
    shingles, shingle_numbers = np.unique(sets, return_inverse=True)
    shingle_starts, shingle_rows = _postings(shingle_numbers, _row_of(set_starts), len(shingles))
    ProtectedIndex(
        keys=keys[some],
        key_rows=key_rows[some].astype(np.int32),
        grams=grams,
        gram_starts=gram_starts,
        gram_rows=gram_rows,
        gram_phrases=phrase_numbers[within].astype(np.int32).reshape(-1, _PHRASES),
        phrases=phrases,
        phrase_counts=np.bincount(counted // max(len(table), 1), minlength=len(phrases)).astype(
            np.int32
        ),
        shingles=shingles,
        shingle_starts=shingle_starts,
        shingle_rows=shingle_rows,
        sets=sets,
        set_starts=set_starts,
    ).save(path)
    return len(table)


def _found(text: Words, size: int, table: tuple[Hashes, Numbers]) -> tuple[Numbers, Numbers]:
    """Which row has which gram of a table, once each."""
    grams, starts = hash_grams(text.hashes, text.starts, size)
    numbers = find_members(grams, *table)
    there = np.flatnonzero(numbers >= 0)
    rows = np.searchsorted(starts, there, side="right") - 1
    pairs = np.unique(rows << 32 | numbers[there])
    return (pairs >> 32).astype(np.int32), (pairs & 0xFFFFFFFF).astype(np.int32)


def _row_of(starts: Starts) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts))


def _postings(
    numbers: NDArray[np.int64], rows: NDArray[np.int64], count: int
) -> tuple[Starts, Numbers]:
    """The rows of each number, ascending and once each."""
    pairs = np.unique(numbers.astype(np.int64) << 32 | rows)
    starts = np.searchsorted(pairs >> 32, np.arange(count + 1)).astype(np.int64)
    return starts, (pairs & 0xFFFFFFFF).astype(np.int32)
