"""A map of the embedding space: where the picks lie among the dropped rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.artifacts.rows import VectorParts
from engine.artifacts.run_directory import Artifact
from engine.report.pool import Pool
from engine.report.row_texts import RowText

__all__ = ["EmbeddingMap", "MapPoint", "embedding_map"]


@dataclass(frozen=True)
class MapPoint:
    """A row on the map; `rank` is None for a dropped one."""

    x: float
    y: float
    rank: int | None
    mean_influence: float
    text: RowText


@dataclass(frozen=True)
class EmbeddingMap:
    """Rows projected to two dimensions, dropped ones first.

    Attributes:
        num_picks, num_dropped: of the points.
        variance_kept: of the rows' variance, what the two dimensions hold.
    """

    points: list[MapPoint]
    num_picks: int
    num_dropped: int
    variance_kept: float


def embedding_map(
    embeddings: Artifact, pool: Pool, rows: NDArray[np.int64], texts: Mapping[int, RowText]
) -> EmbeddingMap | None:
    """Principal components of some rows' embeddings; None where they do not differ.

    On one thread and with a fixed sign: the same map wherever it is drawn. Memory: those rows.
    """
    # only here: their import would slow down the start of every worker
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    vectors = VectorParts(embeddings, "candidates").take(rows)
    if len(rows) < 3 or vectors.shape[1] < 2 or not np.ptp(vectors, axis=0).any():
        return None
    with threadpool_limits(1):
        fitted: Any = PCA(2, svd_solver="randomized", random_state=0)
        places = fitted.fit_transform(vectors).astype(np.float64)
    ranks = pool.rank[rows]
    points = [
        MapPoint(x, y, rank or None, float(pool.means[row]), texts[row])
        for (x, y), rank, row in zip(places.tolist(), ranks.tolist(), rows.tolist(), strict=True)
    ]
    num_picks = int(np.count_nonzero(ranks))
    kept = float(fitted.explained_variance_ratio_.sum())
    return EmbeddingMap(points, num_picks, len(points) - num_picks, kept)
