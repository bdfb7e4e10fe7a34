"""Leaks: candidates that repeat a target or a protected row, as they are told and acted on.

    exact     the prompt is the same but for case, space and punctuation
    13-gram   13 words that follow each other are the same, and are no template (`protected`)
    near      the prompts' pairs of words have a Jaccard similarity of at least `on_leak.near`

A row is told once for each set of protected rows, by the first of these kinds that it is, beside
the protected row that it has most in common with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import load_file

from engine import storage
from engine.artifacts.files import atomic_path, read_table
from engine.corpus.protected import Matches, ProtectedIndex, common_limit
from engine.corpus.word_hashes import COLUMNS, prompts
from engine.example import ANSWER_MARK

__all__ = ["KINDS", "LEAKS", "Leaks", "ProtectedSet", "load_arrays", "write_leaks"]

KINDS = ("exact", "13-gram", "near")
LEAKS = pa.schema(
    [
        ("id", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("set", pa.string()),
        ("protected_id", pa.string()),
        ("protected_file", pa.string()),
        ("protected_line", pa.int64()),
        ("kind", pa.string()),
        ("score", pa.float64()),
        ("num_protected", pa.int64()),
        ("dropped", pa.bool_()),
        ("text", pa.large_string()),
        ("protected_text", pa.large_string()),
    ]
)


@dataclass(frozen=True)
class ProtectedSet:
    """Rows that candidates are compared with.

    Attributes:
        name: "targets", "evaluation.test" or "protect".
        files, offsets: parsed tables, and what to add to the line numbers of each.
        index: file of their ProtectedIndex.
        drops: kinds of leaks that leave the candidate out.
    """

    name: str
    files: Sequence[Path]
    offsets: Sequence[int]
    index: Path
    drops: tuple[str, ...]


@dataclass
class Leaks:
    """What was found.

    Attributes:
        counts: candidates by set and kind.
        dropped: positions of candidates that are left out, by number of the parsed file.
        first: per set and kind the first, in words.
    """

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    dropped: dict[int, list[int]] = field(default_factory=dict)
    first: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Found:
    """The leaks of one part of the candidates into one set, (n,), ascending by row."""

    rows: NDArray[np.int64]
    protected: NDArray[np.int64]
    kinds: NDArray[np.int64]
    scores: NDArray[np.float64]
    num_protected: NDArray[np.int64]


def write_leaks(
    files: Sequence[Path],
    offsets: Sequence[int],
    matched: Sequence[Path],
    left_out: Mapping[int, Sequence[int]],
    sets: Sequence[ProtectedSet],
    path: Path,
) -> Leaks:
    """Judge what the candidates have in common with protected rows; writes a line for each leak.

    Args:
        files, offsets: parsed candidates.
        matched: per file what `screening` found, under the names of the sets.
        left_out: positions of rows that are no candidates, by number of the file.

    Memory: the indexes, the texts of the protected rows, and one part of the candidates.
    """
    leaks = Leaks()
    num_rows = sum(pq.read_metadata(storage.fetch(file)).num_rows for file in files)
    judges = [_Judge(one, matched, num_rows) for one in sets]
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, LEAKS) as writer:
        for number, file in enumerate(files):
            gone = np.array(left_out.get(number, []), dtype=np.int64)
            arrays = load_arrays(matched[number])
            for judge in judges:
                found = judge.found(Matches.of(arrays, judge.set.name), gone)
                if not len(found.rows):
                    continue
                table = judge.table(found, file, offsets[number])
                writer.write_table(table)
                _count(leaks, judge.set, table)
                dropped = found.rows[table["dropped"].to_numpy()].tolist()
                if dropped:
                    before = leaks.dropped.get(number, [])
                    leaks.dropped[number] = sorted({*before, *dropped})
    return leaks


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file of the run."""
    arrays: dict[str, NDArray[Any]] = load_file(storage.fetch(path))
    return arrays


def _count(leaks: Leaks, of: ProtectedSet, table: pa.Table) -> None:
    counts = leaks.counts.setdefault(of.name, dict.fromkeys(KINDS, 0))
    for kind, number in Counter(table["kind"].to_pylist()).items():
        counts[kind] += number
        if kind not in (first := leaks.first.setdefault(of.name, {})):
            row = table.slice(table["kind"].index(kind).as_py(), 1).to_pylist()[0]
            first[kind] = (
                f"{row['file']}, line {row['line']} (id {row['id']!r}) and "
                f"{row['protected_file']}, line {row['protected_line']}"
            )


class _Judge:
    """Tells leaks into one set from what rows have in common by accident."""

    def __init__(self, one: ProtectedSet, matched: Sequence[Path], num_rows: int) -> None:
        self.set, self._index = one, ProtectedIndex.load(one.index)
        counts = np.zeros(len(self._index.phrases), np.int32)
        for path in matched:
            found = Matches.of(load_arrays(path), one.name)
            counts[found.phrase_numbers] += found.phrase_counts
        limit = common_limit(num_rows + self._index.num_rows)
        self._own = self._index.own_grams(counts, limit)
        own_rows = _expanded(self._index, np.flatnonzero(self._own))[1]
        self._num_grams = np.bincount(own_rows, minlength=self._index.num_rows)
        self._rows = pa.concat_tables(
            [_with_lines(f, o) for f, o in zip(one.files, one.offsets, strict=True)]
        )

    def found(self, matches: Matches, gone: NDArray[np.int64]) -> _Found:
        """The leaks among the rows of a part, but for those that are no candidates."""
        pieces = [self._exact(matches), self._grams(matches), self._near(matches)]
        kinds = np.repeat(np.arange(len(pieces)), [len(piece[0]) for piece in pieces])
        rows, protected, scores, num_protected = (
            np.concatenate(column) for column in zip(*pieces, strict=True)
        )
        order = np.lexsort((kinds, rows))  # the strongest kind of each row first
        _, first = np.unique(rows[order], return_index=True)
        chosen = order[first]
        chosen = chosen[~np.isin(rows[chosen], gone)]
        return _Found(
            rows[chosen], protected[chosen], kinds[chosen], scores[chosen], num_protected[chosen]
        )

    def _exact(self, matches: Matches) -> tuple[NDArray[Any], ...]:
        ones = np.ones(len(matches.exact_rows))
        return matches.exact_rows.astype(np.int64), matches.exact_protected, ones, ones

    def _grams(self, matches: Matches) -> tuple[NDArray[Any], ...]:
        """Of each row the protected row of whose grams it has the largest share."""
        own = np.flatnonzero(self._own[matches.gram_numbers])
        places, protected = _expanded(self._index, matches.gram_numbers[own])
        pairs = matches.gram_rows[own][places].astype(np.int64) << 32 | protected
        pairs, shared = np.unique(pairs, return_counts=True)
        rows, protected = pairs >> 32, pairs & 0xFFFFFFFF
        scores = shared / self._num_grams[protected]
        order = np.lexsort((protected, -scores, rows))
        rows, first, count = np.unique(rows[order], return_index=True, return_counts=True)
        best = order[first]
        return rows, protected[best], scores[best], count

    def _near(self, matches: Matches) -> tuple[NDArray[Any], ...]:
        ones = np.ones(len(matches.near_rows))
        rows = matches.near_rows.astype(np.int64)
        return rows, matches.near_protected, matches.near_similarity, ones

    def table(self, found: _Found, file: Path, offset: int) -> pa.Table:
        """Leaks as they are written, with both texts."""
        own = _with_lines(file, offset).take(found.rows)
        other = self._rows.take(found.protected.astype(np.int64))
        kinds = np.array(KINDS)[found.kinds]
        columns = {
            **{name: own[name] for name in ("id", "file", "line")},
            "set": pa.array([self.set.name] * len(own)),
            **{f"protected_{name}": other[name] for name in ("id", "file", "line")},
            "kind": pa.array(kinds),
            "score": found.scores,
            "num_protected": found.num_protected.astype(np.int64),
            "dropped": np.isin(kinds, self.set.drops),
            "text": own["text"],
            "protected_text": other["text"],
        }
        return pa.table(columns).select(LEAKS.names).cast(LEAKS)


def _with_lines(file: Path, offset: int) -> pa.Table:
    """Id, file, line and text of the rows of a parsed file."""
    table = read_table(file, columns=["id", "file", "line", *COLUMNS])
    pairs = zip(prompts(table).to_pylist(), table["output"].to_pylist(), strict=True)
    texts = [f"{prompt}\n{ANSWER_MARK}{output}" for prompt, output in pairs]
    return pa.table(
        {
            "id": table["id"],
            "file": table["file"],
            "line": pa.array(table["line"].to_numpy() + offset),
            "text": pa.array(texts, pa.large_string()),
        }
    )


def _expanded(
    index: ProtectedIndex, grams: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows that have some grams: which of `grams`, and the row, gram by gram."""
    begin, count = index.gram_starts[grams], np.diff(index.gram_starts)[grams]
    places = np.repeat(np.arange(len(grams)), count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return places, index.gram_rows[np.repeat(begin, count) + within].astype(np.int64)
