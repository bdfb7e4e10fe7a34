"""The k best candidates of each target, exactly, without the M x N matrix.

    RunningTop     the best of all candidates that were offered, block after block, in any order
    top_of_block   the same for a block of S that exists already (networks that do not factorise)
    merge_top      joins the results of two blocks of candidates, in any order

Order, everywhere: influence descending, then candidate id ascending.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from engine.kernels.arrays import FloatArray, IndexArray
from engine.kernels.compiled import compiled
from engine.kernels.pairwise import BAND_TILES
from engine.kernels.threads import kernel_threads
from engine.kernels.tile_loops import ROWS, TILE, pair_tile
from engine.kernels.units import UnitArray, Units

__all__ = ["ID_BITS", "ID_MASK", "RunningTop", "Top", "merge_top", "top_of_block"]

# A candidate as one integer that sorts as we want: its sum in the upper half, then the
# complement of its id, so that of equal sums the lower id is the larger key.
ID_BITS = 32
ID_MASK = 2**ID_BITS - 1
_NO_KEY = np.iinfo(np.int64).min

CHUNK = 16  # sums of a tile that are looked at together; what is kept does not depend on it


@dataclass(frozen=True)
class Top:
    """The best candidates of each target among those seen so far.

    Attributes:
        ids: (N, k) int64, best first.
        influence: (N, k) float32, descending along a row.
    """

    ids: IndexArray
    influence: FloatArray


class RunningTop:
    """The k best candidates of each target among all that were offered; memory 18 N k bytes.

    Each target keeps some 2 k keys; whenever it has as many only the better half stays, and its
    worst is what a candidate must exceed from then on. Sums are compared before they are rounded to
    float32, so of two candidates that look equal in the result the better may have the higher id.
    """

    def __init__(self, targets: Units, k: int) -> None:
        assert k > 0, "the best 0 of anything"
        self._targets = targets
        self._k = k
        self._keys = np.empty((targets.num_rows, 2 * k + TILE), dtype=np.int64)
        self._counts = np.zeros(targets.num_rows, dtype=np.int64)
        self._thresholds = np.full(targets.num_rows, _NO_KEY, dtype=np.int64)
        self._num_offered = 0

    def offer(
        self, candidates: Units, ids: IndexArray | None = None, *, threads: int | None = None
    ) -> None:
        """Offer candidates of these ids (m,), below 2**32, each once; default: those that follow.

        Cost m N u maxima and additions, and some k log(M / k) keys kept a target in all. The same
        bits for any cut and order of the candidates and any number of threads.
        """
        targets = self._targets
        assert candidates.num_positive == targets.num_positive, "two sides of different networks"
        assert candidates.step == targets.step, "two sides with different steps"
        if ids is None:
            ids = np.arange(self._num_offered, self._num_offered + candidates.num_rows)
        assert ids.shape == (candidates.num_rows,), "one id for each candidate"
        assert len(ids) == 0 or (ids.min() >= 0 and ids.max() <= ID_MASK), "ids of 32 bits"
        with kernel_threads(threads) as num_threads:
            band = min(BAND_TILES, -(-len(targets.tiles) // num_threads) or 1)
            _stream(
                targets.tiles,
                candidates.tiles,
                ID_MASK - ids.astype(np.int64),
                targets.num_positive,
                band,
                self._k,
                self._keys,
                self._counts,
                self._thresholds,
            )
        self._num_offered += candidates.num_rows

    def top(self) -> Top:
        """The best so far: min(k, number offered) for each target."""
        k = min(self._k, self._num_offered)
        ids = np.empty((len(self._keys), k), dtype=np.int64)
        influence = np.empty((len(self._keys), k), dtype=np.float32)
        unused = np.arange(self._keys.shape[1]) >= self._counts[:, None]
        for start in range(0, len(ids), TILE):  # in pieces: a sort copies what it sorts
            some = slice(start, start + TILE)
            keys = np.where(unused[some], _NO_KEY, self._keys[some])
            best = np.sort(keys, axis=1)[:, ::-1][:, :k]
            ids[some] = ID_MASK - (best & ID_MASK)
            influence[some] = (best >> ID_BITS).astype(np.float32)
        influence *= np.float32(self._targets.step)
        return Top(ids, influence)


def top_of_block(block: FloatArray, k: int, *, first_id: int = 0) -> Top:
    """The min(k, m) best rows of each column of block (m, N) [c, t]; ids count from `first_id`."""
    order = np.argsort(-block, axis=0, kind="stable")[:k]
    influence = np.take_along_axis(block, order, axis=0)
    ids = order.T.astype(np.int64) + first_id
    return Top(ids, np.ascontiguousarray(influence.T))


def merge_top(a: Top, b: Top, k: int) -> Top:
    """The k best of two disjoint sets of candidates for the same N targets.

    Associative and commutative, so blocks may be merged in any order and grouping. Cost N k log k.
    """
    ids = np.concatenate((a.ids, b.ids), axis=1)
    influence = np.concatenate((a.influence, b.influence), axis=1)
    order = np.lexsort((ids, -influence), axis=1)[:, :k]
    return Top(np.take_along_axis(ids, order, axis=1), np.take_along_axis(influence, order, axis=1))


@compiled(parallel=True)
def _stream(
    rows: UnitArray,
    columns: UnitArray,
    column_keys: IndexArray,
    num_positive: int,
    band: int,
    k: int,
    keys: IndexArray,
    counts: IndexArray,
    thresholds: IndexArray,
) -> None:
    """Targets are the rows here: each has keys of its own, so threads never share any."""
    n, m = keys.shape[0], column_keys.shape[0]
    num_tiles = (n + TILE - 1) // TILE
    for number in numba.prange((num_tiles + band - 1) // band):
        sums = np.empty((ROWS, TILE), dtype=np.int32)
        for b in range((m + TILE - 1) // TILE):
            low_keys = column_keys[b * TILE : min(m, (b + 1) * TILE)]
            for a in range(number * band, min(num_tiles, (number + 1) * band)):
                for next_row in range(0, min(TILE, n - a * TILE), ROWS):
                    first = min(next_row, TILE - ROWS)  # the last block overlaps the one before
                    pair_tile(rows[a], first, columns[b], num_positive, sums)
                    for i in range(next_row - first, min(ROWS, n - a * TILE - first)):
                        row = a * TILE + first + i
                        level = np.int32(thresholds[row] >> ID_BITS)
                        if not _any_reaches(sums[i], 0, TILE, level):
                            continue
                        for j in range(0, low_keys.shape[0], CHUNK):
                            if _any_reaches(sums[i], j, j + CHUNK, level):
                                some = sums[i, j : min(j + CHUNK, low_keys.shape[0])]
                                counts[row] = _keep(
                                    some, low_keys[j:], thresholds[row], keys[row], counts[row]
                                )
                        if counts[row] >= 2 * k:
                            thresholds[row] = _keep_largest(keys[row, : counts[row]], k)
                            counts[row] = k


@compiled()
def _any_reaches(sums: UnitArray, start: int, stop: int, level: np.int32) -> bool:
    """Whether one of sums[start:stop] is at least `level`; in vectors, most tiles have none."""
    reached = np.int32(0)
    for j in range(start, stop):
        reached |= np.int32(sums[j] >= level)
    return bool(reached != 0)


@compiled()
def _keep(
    sums: UnitArray, low_keys: IndexArray, threshold: int, keys: IndexArray, count: int
) -> int:
    """Append the keys above the threshold to the `count` that are kept; returns how many are."""
    for j in range(sums.shape[0]):
        key = (np.int64(sums[j]) << ID_BITS) | low_keys[j]
        keys[count] = key  # no branch: whether it stays is a coin toss
        count += key > threshold
    return count


@compiled()
def _keep_largest(keys: IndexArray, k: int) -> int:
    """Move the k largest keys to the front; returns the least of them. Keys are distinct.

    Quickselect without a branch on the data: three times as fast as numba's np.partition.
    """
    low, high = 0, keys.shape[0]  # the k-th largest is in keys[low:high]
    while high - low > 1:
        a, b, c = keys[low], keys[(low + high) // 2], keys[high - 1]
        pivot = max(min(a, b), min(max(a, b), c))
        split = low  # keys[low:split] are larger than the pivot
        for i in range(low, high):
            key = keys[i]
            keys[i] = keys[split]
            keys[split] = key
            split += key > pivot
        if split >= k:
            high = split
            continue
        for i in range(split, high):  # the pivot itself to keys[split]
            key = keys[i]
            keys[i] = keys[split]
            keys[split] = key
            if key == pivot:
                break
        low = split + 1
        if low >= k:
            break
    return int(keys[:k].min())
