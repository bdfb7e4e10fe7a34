"""Duplicates by content: candidates that say the same under different ids, of which one stays.

Rows are taken in an order of preference (`duplicates.stays`). A row whose prompt and answer have
the words of an earlier one is its exact duplicate. A row whose pairs of words have a Jaccard
similarity of at least `duplicates.near` with those of an earlier row that stays is a near one: it
joins the earliest such row. So every row that is left out has one that stays and is as similar to
it as asked for; connected components, the other custom, would chain rows that have nothing in
common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.artifacts.files import atomic_path, read_table
from engine.config import DuplicatesConfig
from engine.kernels.set_join import count_members, join_leaders
from engine.kernels.words import Hashes

__all__ = ["DUPLICATES", "Group", "group_rows", "write_duplicates"]

_COUNT_BITS = 27  # 128 MiB of counts: of a million rows most that are counted once occur once

DUPLICATES = pa.schema(
    [
        ("id", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("kind", pa.string()),
        ("similarity", pa.float64()),
        ("kept_id", pa.string()),
        ("kept_file", pa.string()),
        ("kept_line", pa.int64()),
    ]
)
_PLACE = ("id", "file", "line")


@dataclass(frozen=True)
class Group:
    """Rows that are left out (n,), as numbers through all files, ascending.

    Attributes:
        rows: which.
        kept: (n,) the row that stays in the place of each.
        exact: (n,) whether the two have the same words.
        similarity: (n,) Jaccard similarity of their pairs of words; 1 for exact ones.
    """

    rows: NDArray[np.int64]
    kept: NDArray[np.int64]
    exact: NDArray[np.bool_]
    similarity: NDArray[np.float64]


def group_rows(
    keys: Hashes,
    preference: NDArray[np.float64],
    sets: Sequence[tuple[Hashes, NDArray[np.int64]]] | None,
    left_out: NDArray[np.bool_],
    settings: DuplicatesConfig,
) -> Group:
    """Which of M rows are duplicates, and of what.

    Args:
        keys: (M,) equal for rows with the same words, 0 for a row without any.
        preference: (M,) what stays of a group: the highest, of equals the first row; NaN is lowest.
        sets: per file the sets of pairs of words and their starts; None: exact duplicates only.
        left_out: (M,) rows that are left out already.

    Memory: the sets, about 8 bytes a word.
    """
    value = np.where(np.isnan(preference), -np.inf, preference)
    order = np.argsort(-value, kind="stable")
    order = order[~left_out[order] & (keys[order] != 0)]
    _, first, inverse = np.unique(keys[order], return_index=True, return_inverse=True)
    kept, similarity = np.arange(len(keys)), np.ones(len(keys))
    kept[order] = order[first[inverse]]
    exact = kept != np.arange(len(keys))
    if sets is not None:
        members, starts = _joined(sets)
        counts = np.zeros(1 << _COUNT_BITS, np.uint8)
        count_members(members, counts)
        leader, alike = join_leaders(members, starts, order[~exact[order]], counts, settings.near)
        # what is said twice joins what the row that stood for it joined
        exact, similarity, kept = exact & (leader[kept] == kept), alike[kept], leader[kept]
    rows = np.flatnonzero(kept != np.arange(len(keys)))
    return Group(rows, kept[rows], exact[rows], similarity[rows])


def _joined(sets: Sequence[tuple[Hashes, NDArray[np.int64]]]) -> tuple[Hashes, NDArray[np.int64]]:
    """All files' sets as those of one."""
    sizes = np.concatenate([np.diff(starts) for _, starts in sets])
    members = np.concatenate([members for members, _ in sets])
    return members, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def write_duplicates(
    group: Group,
    files: Sequence[Path],
    offsets: Sequence[int],
    starts: NDArray[np.int64],
    path: Path,
) -> int:
    """A line for every row that is left out; returns how many. Memory: those lines."""
    needed = np.unique(np.concatenate([group.rows, group.kept]))
    places = _places(files, offsets, starts, needed)
    own = places.take(np.searchsorted(needed, group.rows))
    kept = places.take(np.searchsorted(needed, group.kept))
    columns: Mapping[str, Any] = {
        **{name: own[name] for name in _PLACE},
        "kind": pa.array(np.where(group.exact, "exact", "near")),
        "similarity": group.similarity,
        **{f"kept_{name}": kept[name] for name in _PLACE},
    }
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns).cast(DUPLICATES), temporary)
    return len(own)


def _places(
    files: Sequence[Path],
    offsets: Sequence[int],
    starts: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> pa.Table:
    """Id, file and line of some rows, ascending."""
    pieces = []
    for number, file in enumerate(files):
        first, last = np.searchsorted(rows, [starts[number], starts[number + 1]])
        if first == last:
            continue
        table = read_table(file, columns=list(_PLACE)).take(rows[first:last] - starts[number])
        lines = pa.array(table["line"].to_numpy() + offsets[number])
        pieces.append(table.set_column(2, "line", lines))
    empty = pa.table({name: pa.array([], DUPLICATES.field(name).type) for name in _PLACE})
    return pa.concat_tables(pieces) if pieces else empty
