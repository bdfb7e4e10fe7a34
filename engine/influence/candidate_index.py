"""Prefilter of the product form: FAISS finds the candidates with the largest inner products.

An inverted file over the candidates' factors, kept in a byte a number: they are clustered, and a
target is compared with the clusters nearest to it. How many those are is the least number with
which a first half of some judges, targets that are compared with everything, finds the wanted
share of their true best, and a second half too: its share is the recall that is reported. What
FAISS finds is compared again exactly, so influence is that of the matrix, whatever FAISS rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from engine import storage
from engine.artifacts.files import atomic_path
from engine.errors import RunDirectoryError
from engine.kernels.arrays import FloatArray, IndexArray
from engine.kernels.product import Grid, ProductTop, in_steps
from engine.kernels.top import Top

__all__ = ["CandidateIndex", "find_index"]

NUM_JUDGES = 512  # the first half chooses, the second half tells
MIN_TARGETS = 4 * NUM_JUDGES
MIN_CANDIDATES = 20_000
TRAINED_PER_CLUSTER = 64
MORE = 2  # times k that are asked of FAISS, whose own order is that of bytes
WORTHWHILE = 0.4  # of the candidates looked at; what is saved must pay for its error
_EXACT_TARGETS = 64


@dataclass(frozen=True)
class CandidateIndex:
    """The index and how many clusters it looks into.

    Attributes:
        index: of FAISS, over the factors of all candidates.
        probes: clusters that a target is compared with.
        share: of the candidates that those hold, on average.
        recall: share of their true k best that the second judges found.
        num_compared: targets that were compared with all candidates to find this out.
    """

    index: Any
    probes: int
    share: float
    recall: float
    num_compared: int

    def top(
        self,
        targets: FloatArray,
        candidates: Sequence[FloatArray],
        grid: Grid,
        k: int,
        *,
        threads: int | None = None,
    ) -> Top:
        """The k best of each target (n, R) among what the index finds; influence is exact."""
        found = _found(self.index, targets, k, self.probes, threads)
        top = _exactly(targets, candidates, found, grid, k)
        short = np.flatnonzero((found >= 0).sum(axis=1) < k)
        if len(short):  # too few in its clusters: with everything
            best = ProductTop(targets[short], grid, k)
            for part in candidates:
                best.offer(part, threads=threads)
            top.ids[short], top.influence[short] = best.top().ids, best.top().influence
        return top

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        import faiss

        numbers = np.array([self.probes, self.share, self.recall, self.num_compared])
        arrays = {"index": faiss.serialize_index(self.index), "numbers": numbers}
        with atomic_path(path) as temporary:
            safetensors.numpy.save_file(arrays, temporary)

    @classmethod
    def load(cls, path: Path) -> CandidateIndex:
        """Read what `save` wrote; raises RunDirectoryError for a file that is none."""
        import faiss

        try:
            with safetensors.safe_open(storage.fetch(path), framework="np") as file:
                index = faiss.deserialize_index(file.get_tensor("index"))
                probes, share, recall, compared = file.get_tensor("numbers").tolist()
        except (KeyError, OSError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
            raise RunDirectoryError(f"{path} is no index of candidates: {error}") from None
        return cls(index, int(probes), share, recall, int(compared))


def find_index(
    candidates: Sequence[FloatArray],
    targets: Sequence[FloatArray],
    grid: Grid,
    k: int,
    recall: float,
    *,
    seed: int = 0,
    threads: int | None = None,
) -> CandidateIndex | None:
    """An index in which targets find at least `recall` of their k best candidates, on average.

    Both sides may come in parts, numbered through, (rows, R) float32. Cost: NUM_JUDGES targets are
    compared with everything; clustering is some 20 M^1/2 R operations for each candidate. None for
    few rows of either side, and where too many candidates would be looked at to be worth it.
    """
    import faiss

    num_candidates, num_targets = (sum(map(len, side)) for side in (candidates, targets))
    if num_targets < MIN_TARGETS or num_candidates < max(MIN_CANDIDATES, MORE * k):
        return None
    rng = np.random.default_rng(seed % 2**64)
    judges = _taken(targets, rng.permutation(num_targets)[:NUM_JUDGES])
    truth = ProductTop(judges, grid, k)
    for part in candidates:
        truth.offer(part, threads=threads)
    wanted = truth.top().ids
    num_clusters = max(16, round(num_candidates**0.5))
    trained = np.sort(rng.permutation(num_candidates)[: TRAINED_PER_CLUSTER * num_clusters])
    index = _clustered(_taken(candidates, trained), num_clusters)
    faiss.omp_set_num_threads(threads or faiss.omp_get_max_threads())
    for part in candidates:
        index.add(np.ascontiguousarray(part, np.float32))
    sizes = np.array([index.get_list_size(number) for number in range(num_clusters)])
    half, probes = NUM_JUDGES // 2, 1
    while True:
        found = _found(index, judges, k, probes, threads)
        hits = _shares_found(_exactly(judges, candidates, found, grid, k).ids, wanted)
        share = float(np.sort(sizes)[::-1][:probes].sum() / num_candidates)
        error = float(hits[:half].std() / half**0.5)
        if hits[:half].mean() >= min(1.0, recall + 2 * error) and hits[half:].mean() >= recall:
            told = float(hits[half:].mean())
            return CandidateIndex(index, probes, share, told, NUM_JUDGES)
        probes *= 2
        if share > WORTHWHILE or probes > num_clusters:
            return None


def _clustered(rows: FloatArray, num_clusters: int) -> Any:
    import faiss

    metric = faiss.METRIC_INNER_PRODUCT
    index = faiss.index_factory(rows.shape[1], f"IVF{num_clusters},SQ8", metric)
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # sums must not depend on how many there are
    try:
        index.train(rows)
    finally:
        faiss.omp_set_num_threads(before)
    return index


def _found(index: Any, targets: FloatArray, k: int, probes: int, threads: int | None) -> IndexArray:
    """Candidates of each target, (n, MORE k); -1 where there are no more in the clusters."""
    import faiss

    if threads is not None:
        faiss.omp_set_num_threads(threads)
    index.nprobe = probes
    _, ids = index.search(np.ascontiguousarray(targets, np.float32), MORE * k)
    found: IndexArray = ids
    return found


def _exactly(
    targets: FloatArray,
    candidates: Sequence[FloatArray],
    found: IndexArray,
    grid: Grid,
    k: int,
) -> Top:
    """The k best of the candidates found for each target, compared exactly; short lists repeat."""
    ids = np.empty((len(targets), k), np.int64)
    influence = np.empty((len(targets), k), np.float32)
    for start in range(0, len(targets), _EXACT_TARGETS):
        some = found[start : start + _EXACT_TARGETS]
        rows, places = np.unique(np.maximum(some, 0), return_inverse=True)
        left = in_steps(targets[start : start + _EXACT_TARGETS], grid.targets).numpy()
        right = in_steps(_taken(candidates, rows), grid.candidates).numpy()
        values = (left @ right.T * grid.product).astype(np.float32)
        values = np.take_along_axis(values, places.reshape(some.shape), axis=1)
        values[some < 0] = -np.inf
        order = np.lexsort((some, -values), axis=1)[:, :k]
        ids[start : start + len(some)] = np.take_along_axis(some, order, axis=1)
        influence[start : start + len(some)] = np.take_along_axis(values, order, axis=1)
    return Top(ids, influence)


def _taken(parts: Sequence[FloatArray], rows: IndexArray) -> FloatArray:
    """Rows of parts that are numbered through, in the given order."""
    starts = np.cumsum([0, *map(len, parts)])
    part_of = np.searchsorted(starts, rows, side="right") - 1
    taken = np.empty((len(rows), parts[0].shape[1]), np.float32)
    for number in np.unique(part_of):
        where = np.flatnonzero(part_of == number)
        taken[where] = parts[number][rows[where] - starts[number]]
    return taken


def _shares_found(ids: IndexArray, wanted: IndexArray) -> FloatArray:
    """Share of each row of `wanted` that is in the same row of `ids`, (n,)."""
    shares = [np.isin(row, some).mean() for row, some in zip(wanted, ids, strict=True)]
    return np.array(shares, np.float32)
