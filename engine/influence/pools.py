"""Prefilter of `top_candidates`: which candidates can be among the best of a target at all.

Targets that rate candidates alike share their best ones. So targets are clustered by how they rate
a few candidates (probes), some targets of each cluster (scouts) are compared with every candidate,
and the union of what the scouts rate best is the pool of the cluster: all others are compared with
their pool only, by the same exact kernel. How many clusters, and how deep to go into the scouts'
lists, is the cheapest choice that finds the wanted share of the true best of further targets
(judges), and that a second set of judges finds too: theirs is the recall that is reported.

Why not nearest neighbours: those of the raw embeddings are hardly ever the best candidates, and
inner-product search in a low-rank form of the matrix, which finds them, costs as much as comparing
everything with our kernel (measured in benchmarks/prefilter.py).

    find_pools   scouts, judges and clusters -> Pools, or None where comparing everything is cheaper
    PoolSearch   the best candidates of any targets, from their pools
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.kernels.arrays import FloatArray, IndexArray
from engine.kernels.pairwise import pairwise_block
from engine.kernels.top import RunningTop, Top
from engine.kernels.units import Units, take_units

__all__ = ["PoolSearch", "Pools", "find_pools"]

NUM_PROBES = 256
NUM_JUDGES = 512  # the first half chooses, the second half tells
MIN_SCOUTS = 2048
TARGETS_PER_SCOUT = 64
MAX_SCOUT_SHARE = 1 / 8  # of the targets
LIST_LENGTH = 4  # of scouts and judges, in lengths of the wanted lists
CLUSTERS = (1, 4, 16, 64, 256)
SCOUTS_PER_CLUSTER = 16  # on average, at least
# What keeping a target's k best costs beside the comparisons, in pairs of 100 units for each of
# them: nothing beside a million candidates, as much as the pairs in a pool of two thousand.
PAIRS_PER_KEPT = 30
WORTHWHILE = 0.6  # of the cost of comparing everything; what pools save must pay for their error


@dataclass(frozen=True)
class Pools:
    """The candidates to compare the targets of each cluster with.

    Attributes:
        probes: candidate rows that targets are clustered by, (P,) int64.
        centroids: mean rating of the probes in each cluster, (G, P) float32.
        ids: candidate rows, those of a pool together, the most wanted first.
        starts: (G + 1,) int64: pool g is ids[starts[g] : starts[g + 1]].
        recall: share of their true k best that the second judges found. They choose nothing, but
            pools grow until they too find what is wanted, so it never reads less than that.
        num_compared: targets that were compared with all candidates to find this out.
    """

    probes: IndexArray
    centroids: FloatArray
    ids: IndexArray
    starts: IndexArray
    recall: float
    num_compared: int


def find_pools(
    candidates: Sequence[Units],
    targets: Sequence[Units],
    k: int,
    recall: float,
    *,
    seed: int = 0,
    threads: int | None = None,
) -> Pools | None:
    """Pools in which targets find at least `recall` of their k best candidates, on average.

    Both sides may come in parts, numbered through. Cost: some 2 % of the targets, up to an eighth,
    are compared with all candidates. None when that and the pools together would not be clearly
    cheaper than comparing everything. The same for any number of threads.
    """
    num_candidates = sum(part.num_rows for part in candidates)
    num_targets = sum(part.num_rows for part in targets)
    num_scouts = max(MIN_SCOUTS, num_targets // TARGETS_PER_SCOUT)
    most_scouts = int(num_targets * MAX_SCOUT_SHARE)
    length = LIST_LENGTH * k
    if num_scouts > most_scouts or length > num_candidates:
        return None
    rng = np.random.default_rng(seed)
    asked = rng.permutation(num_targets)
    probes = np.sort(rng.permutation(num_candidates)[:NUM_PROBES])
    probe_units = take_units(candidates, probes)
    ids = np.empty((0, length), dtype=np.int64)
    ratings = np.empty((0, len(probes)), dtype=np.float32)
    while True:
        more = take_units(targets, asked[len(ids) : NUM_JUDGES + num_scouts])
        best = RunningTop(more, length)
        for part in candidates:
            best.offer(part, threads=threads)
        ids = np.concatenate((ids, best.top().ids))
        ratings = np.concatenate((ratings, _ratings(more, probe_units, threads)))
        choices = [
            _choice(ids, ratings, clusters, k, recall)
            for clusters in CLUSTERS
            if clusters * SCOUTS_PER_CLUSTER <= num_scouts
        ]
        cheapest = min(choices, key=lambda choice: choice.pairs_per_target)
        scouting = len(ids) * num_candidates
        searching = num_targets * (cheapest.pairs_per_target + PAIRS_PER_KEPT * k)
        # more scouts only help while it is the pools that cost
        if searching <= scouting or 2 * num_scouts > most_scouts:
            break
        num_scouts *= 2
    if scouting + searching > WORTHWHILE * num_targets * num_candidates:
        return None
    return Pools(
        probes=probes,
        centroids=cheapest.centroids,
        ids=cheapest.ids,
        starts=cheapest.starts,
        recall=cheapest.recall,
        num_compared=len(ids),
    )


class PoolSearch:
    """The best candidates of any targets, from their pools.

    Memory: the units of all pools. `candidates` in parts, as given to `find_pools`.
    """

    def __init__(self, pools: Pools, candidates: Sequence[Units]) -> None:
        self._centroids = pools.centroids
        self._probes = take_units(candidates, pools.probes)
        slices = zip(pools.starts[:-1], pools.starts[1:], strict=True)
        self._ids = [pools.ids[start:stop] for start, stop in slices]
        self._units = [take_units(candidates, ids) for ids in self._ids]

    def top(self, targets: Units, k: int, *, threads: int | None = None) -> Top:
        """The k best of each target among the candidates of its pool; its influences are exact."""
        cluster = _nearest(_ratings(targets, self._probes, threads), self._centroids)
        ids = np.empty((targets.num_rows, k), dtype=np.int64)
        influence = np.empty((targets.num_rows, k), dtype=np.float32)
        for number in np.unique(cluster):
            rows = np.flatnonzero(cluster == number)
            best = RunningTop(take_units([targets], rows), k)
            best.offer(self._units[number], self._ids[number], threads=threads)
            top = best.top()
            ids[rows], influence[rows] = top.ids, top.influence
        return Top(ids, influence)


# --- how many clusters, how deep -----------------------------------------------------------------


@dataclass(frozen=True)
class _Choice:
    """Pools for a number of clusters, as deep as the recall needs; see `Pools`."""

    centroids: FloatArray
    ids: IndexArray
    starts: IndexArray
    recall: float
    pairs_per_target: float


def _choice(
    ids: IndexArray, ratings: FloatArray, num_clusters: int, k: int, recall: float
) -> _Choice:
    """The smallest pools of so many clusters with the recall; without end where it is not reached.

    `ids` (n, length) are the lists of judges and scouts, best first, `ratings` (n, P) theirs.
    """
    centroids = _centroids(ratings[NUM_JUDGES:], num_clusters)
    cluster = _nearest(ratings, centroids)
    pools, ranks = _pooled(cluster[NUM_JUDGES:], ids[NUM_JUDGES:])
    # rank of each judge's true best in the list of the scout who rates it highest
    keys = (cluster[:NUM_JUDGES, None] << 32) | ids[:NUM_JUDGES, :k]
    places = np.minimum(np.searchsorted(pools, keys), len(pools) - 1)
    length = ids.shape[1]
    needed = np.where(pools[places] == keys, ranks[places], length)
    found = np.array([(needed < depth).mean(axis=1) for depth in range(length + 1)])  # (., judges)
    choosing, telling = found[:, : NUM_JUDGES // 2], found[:, NUM_JUDGES // 2 :]
    error = choosing.std(axis=1) / np.sqrt(choosing.shape[1])
    enough = (choosing.mean(axis=1) >= recall + 2 * error) & (telling.mean(axis=1) >= recall)
    depth = int(np.argmax(enough)) if enough.any() else length
    chosen = ranks < depth
    order = np.lexsort((ranks[chosen], pools[chosen] >> 32))
    sizes = np.bincount(pools[chosen] >> 32, minlength=num_clusters)
    share = np.bincount(cluster, minlength=num_clusters) / len(cluster)
    too_small = (sizes < k).any()  # a pool must hold as many as are wanted
    return _Choice(
        centroids=centroids,
        ids=(pools[chosen] & (2**32 - 1))[order],
        starts=np.append(0, np.cumsum(sizes)),
        recall=float(telling[depth].mean()),
        pairs_per_target=float(share @ sizes) if enough.any() and not too_small else np.inf,
    )


def _pooled(cluster: IndexArray, lists: IndexArray) -> tuple[IndexArray, IndexArray]:
    """All candidates that scouts of a cluster list, as sorted keys cluster << 32 | id, and for each
    its best rank in their lists."""
    keys = ((cluster[:, None] << 32) | lists).ravel()
    ranks = np.broadcast_to(np.arange(lists.shape[1]), lists.shape).ravel()
    order = np.argsort(keys, kind="stable")
    keys, ranks = keys[order], ranks[order]
    first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    return keys[first], np.minimum.reduceat(ranks, first)


def _ratings(targets: Units, probes: Units, threads: int | None) -> FloatArray:
    """How targets rate the probes beside each other: (n, P) float32, centred, of unit length."""
    ratings = pairwise_block(targets, probes, threads=threads)
    ratings -= ratings.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(ratings, axis=1, keepdims=True)
    ratings /= np.where(lengths > 0, lengths, 1)
    return ratings


def _centroids(ratings: FloatArray, num_clusters: int) -> FloatArray:
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # sums must not depend on how many there are
    try:
        kmeans = faiss.Kmeans(
            ratings.shape[1],
            num_clusters,
            niter=10,
            seed=0,
            min_points_per_centroid=1,
            max_points_per_centroid=len(ratings),
        )
        kmeans.train(ratings)
    finally:
        faiss.omp_set_num_threads(threads)
    return np.asarray(kmeans.centroids, dtype=np.float32)


def _nearest(ratings: FloatArray, centroids: FloatArray) -> IndexArray:
    halves = np.einsum("gp,gp->g", centroids, centroids) / 2
    return np.asarray(np.argmax(ratings @ centroids.T - halves, axis=1), dtype=np.int64)
