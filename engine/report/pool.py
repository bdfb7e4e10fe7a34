"""Every candidate's fate as arrays, and which candidates the page shows one by one.

A page of any run shows some thousands of rows. They are drawn by a hash of their ids, so the same
corpus in other files shows the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.artifacts.files import load_array, read_table
from engine.artifacts.rows import TableParts, id_hashes
from engine.artifacts.run_directory import Artifact

__all__ = ["Pool", "listed_rows", "mapped_rows", "read_pool"]

MAPPED = 3000
FIRST_PICKS, TAIL_PICKS, OTHER_PICKS, NEAR_MISSES, OTHER_DROPPED = 400, 250, 250, 300, 300
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """What the selection did with each candidate, arrays of (M,).

    Attributes:
        picks: rows of the picks, best first, (B,).
        tail_from: picks before those that added nothing.
        rank: from 1; 0 for dropped rows.
        gain: of a pick, else what the row would still add; NaN where nobody knows.
        nearest: row of the nearest pick, itself excepted; -1 where there is none.
        num_nearest: of a pick, the dropped rows that it is the nearest of.
        embedded: whether the encoder survived the row.
        hashes: what rows are drawn by.
    """

    picks: Rows
    tail_from: int
    means: NDArray[np.floating[Any]]
    rank: Rows
    gain: NDArray[np.float64]
    nearest: Rows
    similarity: NDArray[np.float32]
    num_nearest: Rows
    embedded: NDArray[np.bool_]
    hashes: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.rank)

    @property
    def dropped(self) -> Rows:
        return np.flatnonzero((self.rank == 0) & self.embedded)

    def drawn(self, rows: Rows, number: int) -> Rows:
        """So many of the rows, those of the lowest hashes."""
        return rows[np.argsort(self.hashes[rows], kind="stable")[:number]]


def read_pool(corpus: Artifact, predict: Artifact, select: Artifact) -> Pool:
    """From the explanations. Memory: some 70 bytes for each candidate."""
    columns = ["rank", "gain", "gain_left", "nearest", "similarity", "num_nearest"]
    table = read_table(select.path("explanations"), columns=columns)
    rank = _filled(table["rank"], 0)
    gain = np.where(rank > 0, _filled(table["gain"], np.nan), _filled(table["gain_left"], np.nan))
    embedded = np.ones(len(table), dtype=bool)
    embedded[list(select.counts.get("crashing_rows", ()))] = False
    picks = np.argsort(rank, kind="stable")[np.count_nonzero(rank == 0) :]
    return Pool(
        picks=picks,
        tail_from=len(picks) - int(select.counts["zero_gain_picks"]),
        means=load_array(predict.path("means")),
        rank=rank,
        gain=gain,
        nearest=_filled(table["nearest"], -1),
        similarity=_filled(table["similarity"], 0),
        num_nearest=_filled(table["num_nearest"], 0),
        embedded=embedded,
        hashes=id_hashes(TableParts(corpus, "candidates"), 0, "report"),
    )


def _filled(column: pa.ChunkedArray, value: float) -> NDArray[Any]:
    found: NDArray[Any] = pc.fill_null(column, value).to_numpy()
    return found


def mapped_rows(pool: Pool) -> Rows:
    """Rows of the map, dropped ones first: half of them picks, more where the others are few."""
    dropped = pool.dropped
    picks = pool.drawn(pool.picks, max(MAPPED // 2, MAPPED - len(dropped)))
    return np.concatenate([pool.drawn(dropped, MAPPED - len(picks)), picks])


def listed_rows(pool: Pool) -> list[tuple[int, str]]:
    """Rows of the table, each with what it is an example of: picks by rank, then the others.

    Near misses are the tenth of the dropped rows that would add most, by mean influence where that
    is not known or the same.
    """
    picks, tail = pool.picks[: pool.tail_from], pool.picks[pool.tail_from :]
    dropped = pool.dropped
    order = np.lexsort((pool.hashes[dropped], -pool.means[dropped], -pool.gain[dropped]))
    num_near = min(NEAR_MISSES, -(-len(dropped) // 10))
    near, far = dropped[order[:num_near]], dropped[order[num_near:]]

    def by_rank(rows: Rows) -> Rows:
        return rows[np.argsort(pool.rank[rows])]

    groups = [
        ("first pick", picks[:FIRST_PICKS]),
        ("later pick", by_rank(pool.drawn(picks[FIRST_PICKS:], OTHER_PICKS))),
        ("zero-gain pick", by_rank(pool.drawn(tail, TAIL_PICKS))),
        ("near miss", near),
        ("dropped", pool.drawn(far, NEAR_MISSES + OTHER_DROPPED - num_near)),
        ("crashes the encoder", np.flatnonzero(~pool.embedded)[:OTHER_DROPPED]),
    ]
    return [(row, group) for group, rows in groups for row in rows.tolist()]
