"""Clusters of embeddings, and an order of rows of which every prefix has their proportions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.artifacts.rows import VectorParts
from engine.kernels.arrays import FloatArray

__all__ = ["clusters_of", "stratified"]

# Rows that the clusters are fitted on, and rows assigned at a time.
FITTED_ON = 20_000
CHUNK = 8192


def clusters_of(
    vectors: VectorParts, hashes: NDArray[np.uint64], num_clusters: int, seed: int
) -> tuple[NDArray[np.int64], FloatArray]:
    """The k-means cluster of each row, (n,) int64, and the centroids (K, D).

    Fitted on the 20,000 rows of the lowest hashes, on one thread: the same clusters for any order
    of the rows. Memory: those rows and one chunk.
    """
    # only here: its import would slow down the start of every worker
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    drawn = np.argsort(hashes)[:FITTED_ON]
    sample = vectors.take(drawn)
    # equal rows can fill fewer clusters than asked for, which k-means warns about
    num_clusters = min(num_clusters, len(np.unique(sample, axis=0)))
    with threadpool_limits(1):
        fitted = KMeans(num_clusters, n_init=1, random_state=seed % 2**32).fit(sample)
        pieces = [
            fitted.predict(vectors.block(start, min(start + CHUNK, len(vectors))))
            for start in range(0, len(vectors), CHUNK)
        ]
    centroids = np.asarray(fitted.cluster_centers_, dtype=np.float32)
    return np.concatenate(pieces).astype(np.int64), centroids


def stratified(strata: NDArray[np.int64]) -> NDArray[np.int64]:
    """A permutation (n,) of rows, in whose windows every stratum has its share.

    Row i of s in its stratum gets the place (i + 1/2) / s between 0 and 1; the rows are sorted by
    it, equal places by stratum, so the order that they come in decides within a stratum.
    """
    if len(strata) == 0:
        return np.empty(0, dtype=np.int64)
    by_stratum = np.argsort(strata, kind="stable")
    sizes = np.bincount(strata)
    starts = np.cumsum(sizes) - sizes
    sorted_strata = strata[by_stratum]
    rank = np.arange(len(strata)) - starts[sorted_strata]
    place = (rank + 0.5) / sizes[sorted_strata]
    return by_stratum[np.lexsort((sorted_strata, place))]
