"""Column access to a selection kernel (R, M), dense or sparse: what a gain oracle sums over.

    columns_of       a dense array or scipy.sparse.csr_array -> DenseColumns or SparseColumns
    DenseColumns     the transpose, contiguous: R x M floats more, none when the kernel is the
                     transposed view of a contiguous [c, r] matrix (`influence.T`)
    SparseColumns    the kernel as CSC: about 8 bytes per stored entry more

Both add up in float64, rows in ascending order, one thread: dense and sparse agree to the bit
(an absent entry adds an exact 0), and a gain can only shrink as `covered` grows, rounding included.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import scipy.sparse
from torch import Tensor

from engine.errors import SettingsError
from engine.kernels.arrays import DoubleArray, FloatArray, IndexArray
from engine.kernels.compiled import compiled

__all__ = ["Columns", "DenseColumns", "SparseColumns", "columns_of"]


class Columns(Protocol):
    """The columns of a kernel: `num_rows` is R, `num_columns` M, `minimum` the least value."""

    num_rows: int
    num_columns: int
    minimum: float

    def sums(self) -> DoubleArray:
        """Sum of each column: (M,) float64."""

    def excess(self, columns: IndexArray, covered: FloatArray) -> DoubleArray:
        """sum_r max(s[r, c] - covered[r], 0) for each of the given columns: (n,) float64."""

    def cover(self, column: int, covered: FloatArray) -> None:
        """covered[r] = max(covered[r], s[r, column]), in place."""


class DenseColumns:
    """Columns of a dense kernel, each contiguous in memory."""

    def __init__(self, kernel: FloatArray) -> None:
        self.values = np.ascontiguousarray(kernel.T)
        self.num_columns, self.num_rows = self.values.shape
        self.minimum = float(self.values.min(initial=np.inf))

    def sums(self) -> DoubleArray:
        return _dense_sums(self.values)

    def excess(self, columns: IndexArray, covered: FloatArray) -> DoubleArray:
        return _dense_excess(self.values, columns, covered)

    def cover(self, column: int, covered: FloatArray) -> None:
        np.maximum(covered, self.values[column], out=covered)


class SparseColumns:
    """Columns of a sparse kernel; entries that are not stored are 0."""

    def __init__(self, kernel: scipy.sparse.csr_array) -> None:
        by_column = kernel.tocsc()
        by_column.sum_duplicates()
        self.starts, self.rows, self.values = by_column.indptr, by_column.indices, by_column.data
        self.num_rows, self.num_columns = by_column.shape
        absent = 0.0 if len(self.values) < self.num_rows * self.num_columns else np.inf
        self.minimum = float(self.values.min(initial=absent))

    def sums(self) -> DoubleArray:
        return _sparse_sums(self.starts, self.values)

    def excess(self, columns: IndexArray, covered: FloatArray) -> DoubleArray:
        return _sparse_excess(self.starts, self.rows, self.values, columns, covered)

    def cover(self, column: int, covered: FloatArray) -> None:
        entries = slice(self.starts[column], self.starts[column + 1])
        rows = self.rows[entries]
        covered[rows] = np.maximum(covered[rows], self.values[entries])


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
    for i in range(columns.shape[0]):
        column = values[columns[i]]
        total = 0.0
        for r in range(covered.shape[0]):
            if column[r] > covered[r]:
                total += np.float64(column[r]) - np.float64(covered[r])
        excess[i] = total
    return excess


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
    for i in range(columns.shape[0]):
        total = 0.0
        for entry in range(starts[columns[i]], starts[columns[i] + 1]):
            level = covered[rows[entry]]
            if values[entry] > level:
                total += np.float64(values[entry]) - np.float64(level)
        excess[i] = total
    return excess
