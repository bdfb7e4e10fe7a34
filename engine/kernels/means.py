"""Exact means of S over one side, without the matrix.

sum_t max(a, T[t, k]) needs only how many T[t, k] exceed a and what they add up to: sort each
column of T once, keep suffix sums, and find a by binary search (docs/method.md, All pairs).

    mean_over     for each row of one side its mean over the other, or over groups of the other
    MeanSums      the same in pieces, for sides that come in slabs of units or do not fit in memory
"""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError
from engine.kernels.arrays import FloatArray, IndexArray
from engine.kernels.compiled import compiled
from engine.kernels.threads import kernel_threads
from engine.kernels.units import UnitArray, Units

__all__ = ["MeanSums", "columns_by_group", "mean_over"]

LEVELS_PER_BUCKET = 8  # half a cache line


def mean_over(
    rows: Units,
    columns: Units,
    groups: NDArray[np.integer] | None = None,
    *,
    threads: int | None = None,
) -> FloatArray:
    """Mean of S over the columns, for each row: (m, G) float32, G = 1 without `groups`.

    Either side may be the rows: S is symmetric in them. `groups` (n,) gives the group of each
    column as 0 .. G - 1, none of them empty. Cost O((m G + n) u log n) time; exact up to one
    rounding to float32, so any cut of either side and any number of threads give the same bits.
    Raises EngineError for no column and for an empty group.
    """
    sums = MeanSums(rows.num_rows, columns.num_rows, groups)
    sums.add([rows], [columns], threads=threads)
    return sums.means(rows.step)


class MeanSums:
    """Sums of S for each row over groups of columns, unit by unit.

    Args: number of rows m, number of columns n, and the group of each column as in `mean_over`.
    Memory 8 m G bytes, and 16 n for the column at work.
    """

    def __init__(
        self, num_rows: int, num_columns: int, groups: NDArray[np.integer] | None = None
    ) -> None:
        self._order, self._sizes = columns_by_group(num_columns, groups)
        self._sums = np.zeros((len(self._sizes), num_rows), dtype=np.int64)

    def add(
        self, rows: Sequence[Units], columns: Sequence[Units], *, threads: int | None = None
    ) -> None:
        """Add the sums over units of two sides, all units or a slab; sides may come in parts."""
        num_positive = rows[0].num_positive
        assert num_positive == columns[0].num_positive, "two sides of different networks"
        assert rows[0].step == columns[0].step, "two sides with different steps"
        assert sum(part.num_rows for part in rows) == self._sums.shape[1], "other rows than told"
        with kernel_threads(threads):
            for unit in range(rows[0].tiles.shape[1]):
                sign = 1 if unit < num_positive else -1
                levels = np.concatenate([part.column(unit) for part in columns])
                if len(self._sizes) > 1:
                    levels = levels[self._order]
                start = 0
                for sums, size in zip(self._sums, self._sizes, strict=True):
                    ascending = np.sort(levels[start : start + size])
                    start += size
                    suffixes, (starts, shift) = _suffix_sums(ascending), _buckets(ascending)
                    row = 0
                    for part in rows:
                        some = sums[row : row + part.num_rows]
                        _add_sums(part.tiles, unit, ascending, suffixes, starts, shift, sign, some)
                        row += part.num_rows

    def means(self, step: float) -> FloatArray:
        """(m, G) float32: the sums so far over the number of columns of each group."""
        means = self._sums / self._sizes[:, None] * step
        return np.ascontiguousarray(means.T, dtype=np.float32)


def columns_by_group(
    num_columns: int, groups: NDArray[np.integer] | None
) -> tuple[IndexArray, IndexArray]:
    """The columns in order of their group, (n,), and how many each group has, (G,)."""
    if num_columns == 0:
        raise EngineError("a mean over 0 targets does not exist: pass at least one target")
    groups = np.zeros(num_columns, np.int64) if groups is None else np.asarray(groups)
    assert groups.shape == (num_columns,), "one group for each column"
    sizes = np.bincount(groups)
    if not sizes.all():
        raise EngineError(f"group {int(np.argmin(sizes))} of the targets is empty")
    return np.argsort(groups, kind="stable"), sizes


def _suffix_sums(ascending: UnitArray) -> IndexArray:
    """[i] = sum of all from the i-th on, (n + 1,)."""
    sums = np.zeros(len(ascending) + 1, dtype=np.int64)
    np.cumsum(ascending[::-1], dtype=np.int64, out=sums[:-1][::-1])
    return sums


def _buckets(ascending: UnitArray) -> tuple[IndexArray, int]:
    """Where the levels of equal high bits start, (buckets + 1,), and how many low bits that leaves.

    The height above the lowest level, shifted, is a bucket of some LEVELS_PER_BUCKET levels: the
    first steps of a search, which miss every cache, become one look into a small table.
    """
    heights = ascending.astype(np.int64) - int(ascending[0])
    num_buckets = max(1, len(ascending) // LEVELS_PER_BUCKET)
    shift = max(0, int(heights[-1]).bit_length() - num_buckets.bit_length())
    bounds = np.arange((int(heights[-1]) >> shift) + 2) << shift
    return np.searchsorted(heights, bounds), shift


@compiled(parallel=True)
def _add_sums(
    rows: UnitArray,
    unit: int,
    levels: UnitArray,
    suffix_sums: IndexArray,
    starts: IndexArray,
    shift: int,
    sign: int,
    sums: IndexArray,
) -> None:
    """sums[i] += sign * sum_j max(row i, levels[j]); levels ascend."""
    n, m = levels.shape[0], sums.shape[0]
    lowest, highest = np.int64(levels[0]), np.int64(levels[n - 1])
    tile_rows = rows.shape[2]
    for tile in numba.prange(rows.shape[0]):
        for r in range(min(tile_rows, m - tile * tile_rows)):
            value = np.int64(rows[tile, unit, r])
            bucket = (min(max(value, lowest), highest) - lowest) >> shift
            low = starts[bucket]  # the number of levels up to the value is in low .. low + width
            width = starts[bucket + 1] - low
            while width > 0:
                half = (width + 1) // 2
                # a select, not a branch: the outcome is a coin toss that no CPU predicts
                low = low + half if levels[low + half - 1] <= value else low
                width -= half
            sums[tile * tile_rows + r] += sign * (suffix_sums[low] + low * value)
