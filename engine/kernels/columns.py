"""Column access to a selection kernel (R, M), dense or sparse: what a gain oracle sums over.

    columns_of       a dense array or scipy.sparse.csr_array -> DenseColumns or SparseColumns
    DenseColumns     the transpose, contiguous: R x M floats more, none when the kernel is the
                     transposed view of a contiguous [c, r] matrix (`influence.T`)
    SparseColumns    the kernel as CSC: about 8 bytes per stored entry more

Both add up in float64, in the same order, one thread: dense and sparse agree to the bit (an absent
entry adds an exact 0), and a gain can only shrink as `covered` grows, rounding included. The order
is rows ascending; that of `excess` is 64 lanes, row r in lane r % 64, added by halves at the end:
one running sum would wait for each addition before it starts the next.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Protocol

import numpy as np
import scipy.sparse
from torch import Tensor

from engine.errors import SettingsError
from engine.kernels.arrays import DoubleArray, FloatArray, IndexArray
from engine.kernels.compiled import compiled

__all__ = ["Columns", "DenseColumns", "SparseColumns", "columns_of"]

LANES = 64  # a power of two; 64 is where a dense column of 5,000 rows stopped getting faster


class Columns(Protocol):
    """The columns of a kernel: `num_rows` is R, `num_columns` M, `minimum` the least value."""

    num_rows: int
    num_columns: int
    minimum: float

    def sums(self) -> DoubleArray:
        """Sum of each column: (M,) float64."""

    def maxima(self) -> DoubleArray:
        """Greatest value of each column: (M,) float64."""

    def diagonal(self) -> DoubleArray:
        """s[c, c] of a square kernel: (M,) float64."""

    def excess(self, columns: IndexArray, covered: FloatArray) -> DoubleArray:
        """sum_r max(s[r, c] - covered[r], 0) for each of the given columns: (n,) float64."""

    def cover(self, column: int, covered: FloatArray) -> None:
        """covered[r] = max(covered[r], s[r, column]), in place."""

    def add_to(self, column: int, sums: DoubleArray) -> None:
        """sums[r] += s[r, column], in place."""

    def of_row(self, row: int) -> tuple[IndexArray, FloatArray]:
        """The columns with a value above 0 in a row, ascending, and the values: (n,), (n,)."""

    def capped(self, caps: FloatArray) -> Columns:
        """The kernel min(s[r, c], caps[r]), for caps >= 0: a copy of the values."""

    def transposed(self) -> Columns:
        """The kernel s[c, r]: these columns themselves if it is symmetric, a copy otherwise."""


class DenseColumns:
    """Columns of a dense kernel, each contiguous in memory."""

    def __init__(self, kernel: FloatArray) -> None:
        self.values = np.ascontiguousarray(kernel.T)
        self.num_columns, self.num_rows = self.values.shape
        self.minimum = float(self.values.min(initial=np.inf))

    def sums(self) -> DoubleArray:
        return _dense_sums(self.values)

    def maxima(self) -> DoubleArray:
        maxima: DoubleArray = self.values.max(axis=1).astype(np.float64)
        return maxima

    def diagonal(self) -> DoubleArray:
        return self.values.diagonal().astype(np.float64)

    def excess(self, columns: IndexArray, covered: FloatArray) -> DoubleArray:
        return _dense_excess(self.values, columns, covered)

    def cover(self, column: int, covered: FloatArray) -> None:
        np.maximum(covered, self.values[column], out=covered)

    def add_to(self, column: int, sums: DoubleArray) -> None:
        sums += self.values[column]

    def of_row(self, row: int) -> tuple[IndexArray, FloatArray]:
        values = self.values[:, row]
        found = np.flatnonzero(values > 0)
        return found, values[found]

    def capped(self, caps: FloatArray) -> DenseColumns:
        return DenseColumns(np.minimum(self.values, caps).T)

    def transposed(self) -> DenseColumns:
        return self if np.array_equal(self.values, self.values.T) else DenseColumns(self.values)


class SparseColumns:
    """Columns of a sparse kernel; entries that are not stored are 0."""

    def __init__(self, kernel: scipy.sparse.csr_array | scipy.sparse.csc_array) -> None:
        by_column = kernel.tocsc()
        by_column.sum_duplicates()
        self.starts, self.rows, self.values = by_column.indptr, by_column.indices, by_column.data
        self.num_rows, self.num_columns = by_column.shape
        absent = 0.0 if len(self.values) < self.num_rows * self.num_columns else np.inf
        self.minimum = float(self.values.min(initial=absent))

    def sums(self) -> DoubleArray:
        return _sparse_sums(self.starts, self.values)

    def maxima(self) -> DoubleArray:
        return _sparse_maxima(self.starts, self.values, self.num_rows)

    def diagonal(self) -> DoubleArray:
        diagonal: DoubleArray = self._by_column().diagonal().astype(np.float64)
        return diagonal

    def excess(self, columns: IndexArray, covered: FloatArray) -> DoubleArray:
        return _sparse_excess(self.starts, self.rows, self.values, columns, covered)

    def cover(self, column: int, covered: FloatArray) -> None:
        _sparse_cover(self.starts, self.rows, self.values, column, covered)

    def add_to(self, column: int, sums: DoubleArray) -> None:
        entries = slice(self.starts[column], self.starts[column + 1])
        sums[self.rows[entries]] += self.values[entries]

    def of_row(self, row: int) -> tuple[IndexArray, FloatArray]:
        by_row = self._by_row
        entries = slice(by_row.indptr[row], by_row.indptr[row + 1])
        columns, values = by_row.indices[entries], by_row.data[entries]
        return columns[values > 0], values[values > 0]

    def capped(self, caps: FloatArray) -> SparseColumns:
        capped = self._by_column()
        capped.data = np.minimum(self.values, caps[self.rows])
        return SparseColumns(capped)

    def transposed(self) -> SparseColumns:
        other = SparseColumns(self._by_column().T)
        mine = (self.starts, self.rows, self.values)
        its = (other.starts, other.rows, other.values)
        same = all(np.array_equal(a, b) for a, b in zip(mine, its, strict=True))
        return self if same else other

    @cached_property
    def _by_row(self) -> scipy.sparse.csr_array:
        return self._by_column().tocsr()

    def _by_column(self) -> scipy.sparse.csc_array:
        shape = (self.num_rows, self.num_columns)
        return scipy.sparse.csc_array((self.values, self.rows, self.starts), shape=shape)


def columns_of(kernel: Any) -> Columns:
    """Columns of a dense (R, M) array or tensor, or a scipy.sparse.csr_array, checked.

    Values become float32. Raises SettingsError for another kind or shape, an empty kernel, and
    for NaN or infinity.
    """
    if isinstance(kernel, Tensor):
        kernel = kernel.detach().cpu().numpy()
    if scipy.sparse.issparse(kernel):
        sparse = scipy.sparse.csr_array(kernel, dtype=np.float32)
        _check(sparse.shape, sparse.data)
        return SparseColumns(sparse)
    dense = np.asarray(kernel)
    if not np.issubdtype(dense.dtype, np.number) or np.iscomplexobj(dense):
        raise SettingsError(f"the kernel must hold real numbers, got dtype {dense.dtype}")
    dense = dense.astype(np.float32, copy=False)
    _check(dense.shape, dense)
    return DenseColumns(dense)


def _check(shape: tuple[int, ...], values: FloatArray) -> None:
    if len(shape) != 2 or 0 in shape:
        raise SettingsError(
            f"the kernel must be a matrix (rows to cover, candidates) with at least one of each, "
            f"got shape {shape}"
        )
    low, high = values.min(initial=0), values.max(initial=0)  # NaN passes through both
    if not (np.isfinite(low) and np.isfinite(high)):
        raise SettingsError(
            f"the kernel holds NaN or infinity (minimum {low}, maximum {high}): "
            "remove or repair those pairs first"
        )


@compiled()
def _dense_sums(values: FloatArray) -> DoubleArray:
    sums = np.zeros(values.shape[0])
    for c in range(values.shape[0]):
        for r in range(values.shape[1]):
            sums[c] += values[c, r]
    return sums


@compiled()
def _dense_excess(values: FloatArray, columns: IndexArray, covered: FloatArray) -> DoubleArray:
    excess = np.zeros(columns.shape[0])
    lanes = np.zeros(LANES)
    whole = covered.shape[0] - covered.shape[0] % LANES
    for i in range(columns.shape[0]):
        column = values[columns[i]]
        lanes[:] = 0.0
        for start in range(0, whole, LANES):  # the inner loop compiles to vector instructions
            value, level = column[start : start + LANES], covered[start : start + LANES]
            for lane in range(LANES):
                over = np.float64(value[lane]) - np.float64(level[lane])
                lanes[lane] += over if over > 0.0 else 0.0
        for r in range(whole, covered.shape[0]):
            over = np.float64(column[r]) - np.float64(covered[r])
            lanes[r - whole] += over if over > 0.0 else 0.0
        excess[i] = _folded(lanes)
    return excess


@compiled()
def _folded(lanes: DoubleArray) -> float:
    """Sum of the lanes in a fixed order, by halves; overwrites them."""
    half = LANES // 2
    while half:
        for lane in range(half):
            lanes[lane] += lanes[lane + half]
        half //= 2
    return float(lanes[0])


@compiled()
def _sparse_sums(starts: IndexArray, values: FloatArray) -> DoubleArray:
    sums = np.zeros(starts.shape[0] - 1)
    for c in range(sums.shape[0]):
        for entry in range(starts[c], starts[c + 1]):
            sums[c] += values[entry]
    return sums


@compiled()
def _sparse_excess(
    starts: IndexArray,
    rows: IndexArray,
    values: FloatArray,
    columns: IndexArray,
    covered: FloatArray,
) -> DoubleArray:
    excess = np.zeros(columns.shape[0])
    lanes = np.zeros(LANES)
    for i in range(columns.shape[0]):
        lanes[:] = 0.0
        for entry in range(starts[columns[i]], starts[columns[i] + 1]):
            level = covered[rows[entry]]
            if values[entry] > level:
                lanes[rows[entry] % LANES] += np.float64(values[entry]) - np.float64(level)
        excess[i] = _folded(lanes)
    return excess


@compiled()
def _sparse_maxima(starts: IndexArray, values: FloatArray, num_rows: int) -> DoubleArray:
    maxima = np.zeros(starts.shape[0] - 1)
    for c in range(maxima.shape[0]):
        if starts[c + 1] - starts[c] == num_rows:  # no absent entry, which would count as 0
            maxima[c] = -np.inf
        for entry in range(starts[c], starts[c + 1]):
            maxima[c] = max(maxima[c], np.float64(values[entry]))
    return maxima


@compiled()
def _sparse_cover(
    starts: IndexArray, rows: IndexArray, values: FloatArray, column: int, covered: FloatArray
) -> None:
    for entry in range(starts[column], starts[column + 1]):
        covered[rows[entry]] = max(covered[rows[entry]], values[entry])
