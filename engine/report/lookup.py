"""The rows that the page shows one by one: a table to search and sort, and a map."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.artifacts.run_directory import Artifact
from engine.report.embedding_map import EmbeddingMap, embedding_map
from engine.report.pool import Pool, listed_rows, mapped_rows, read_pool
from engine.report.row_texts import RowText, read_texts

__all__ = ["ListedRow", "Lookup", "Nearest", "read_lookup"]


@dataclass(frozen=True)
class Nearest:
    """The pick that is nearest to a row."""

    rank: int
    similarity: float
    text: RowText


@dataclass(frozen=True)
class ListedRow:
    """A row of the table.

    Attributes:
        group: what it is an example of.
        rank: None for a dropped row.
        gain: of a pick; of a dropped row what it would still add, None where nobody knows.
        nearest: another pick, None where there is none.
        stands_for: of a pick, the dropped rows that it is the nearest of.
    """

    text: RowText
    group: str
    rank: int | None
    mean_influence: float
    gain: float | None
    nearest: Nearest | None
    stands_for: int


@dataclass(frozen=True)
class Lookup:
    """The table's rows and the map, None where the embeddings do not differ.

    Attributes:
        num_candidates, num_picks: of the whole pool.
        nearest_recall: how many of the nearest picks are certainly the nearest.
    """

    rows: list[ListedRow]
    map: EmbeddingMap | None
    num_candidates: int
    num_picks: int
    nearest_recall: float


def read_lookup(
    corpus: Artifact, embeddings: Artifact, predict: Artifact, select: Artifact
) -> Lookup:
    """Draw the rows and read them. Memory: some numbers per candidate and one part of the corpus.

    The texts are read in one pass, those of the nearest picks among them.
    """
    pool = read_pool(corpus, predict, select)
    on_list, on_map = listed_rows(pool), mapped_rows(pool)
    rows = np.array([row for row, _ in on_list], dtype=np.int64)
    texts = read_texts(corpus, np.unique(np.concatenate([rows, _nearest_of(pool, rows), on_map])))
    return Lookup(
        rows=[_listed(pool, row, group, texts) for row, group in on_list],
        map=embedding_map(embeddings, pool, on_map, texts),
        num_candidates=len(pool),
        num_picks=len(pool.picks),
        nearest_recall=float(select.counts.get("nearest_recall", 1.0)),
    )


def _listed(pool: Pool, row: int, group: str, texts: Mapping[int, RowText]) -> ListedRow:
    pick, nearest = int(pool.nearest[row]), None
    if pick >= 0 and pool.embedded[row]:
        nearest = Nearest(int(pool.rank[pick]), float(pool.similarity[row]), texts[pick])
    return ListedRow(
        text=texts[row],
        group=group,
        rank=int(pool.rank[row]) or None,
        mean_influence=float(pool.means[row]),
        gain=None if math.isnan(pool.gain[row]) else float(pool.gain[row]),
        nearest=nearest,
        stands_for=int(pool.num_nearest[row]),
    )


def _nearest_of(pool: Pool, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The picks that are nearest to some rows."""
    nearest = pool.nearest[rows[pool.embedded[rows]]]
    return nearest[nearest >= 0]
