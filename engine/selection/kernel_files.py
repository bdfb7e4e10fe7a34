"""The kernel of a run, (R, M) [r, c], in the files that it lies in: read in passes, not held.

    KernelFiles.load      some candidates' columns, as a matrix for `select`
    KernelFiles.best      how well each row is covered by some picks, and by which
    KernelFiles.excess    what each candidate would add to rows that are covered so far
    KernelFiles.maxima    the best that each candidate is for any row

Two kinds of files: `dense`, blocks of candidates (m, R) [c, r] as .npy, and `lists`, blocks of rows
with the K best candidates of each as Arrow fixed-size lists; what is not listed is 0. Values are
scaled, (value - low) / (high - low), and cut at 0; a penalty of a candidate is taken off first.

Where the rows are the candidates themselves, influence says nothing of a row on itself: teachers
and networks are never asked. `fills_diagonal` has a row cover itself as well as any other candidate
could, S[r, r] = max_c S[r, c]: with less, a row that was picked would still need others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.sparse

from engine.artifacts.files import load_array, map_table
from engine.artifacts.rows import as_matrix
from engine.kernels.arrays import DoubleArray, FloatArray, IndexArray

__all__ = ["KernelFiles", "scaled"]

# While a sparse kernel is made and read by columns: ids and values twice, and places in between.
BYTES_PER_ENTRY = 24


@dataclass(frozen=True)
class KernelFiles:
    """Where a kernel lies, and what makes a kernel of its values.

    Attributes:
        kind: dense or lists, see the module.
        paths: the blocks, in row order.
        num_rows, num_candidates: R and M.
        per_row: K, entries listed for each row; of lists.
        scaling: (low, high), which become 0 and 1, or more levels in order; see `scaled`.
        penalty: file of what each candidate's values are lowered by before they are scaled, (M,).
        fills_diagonal: whether the rows are the candidates, and a row is to itself what the best
            other candidate is to it.
    """

    kind: Literal["dense", "lists"]
    paths: tuple[Path, ...]
    num_rows: int
    num_candidates: int
    per_row: int
    scaling: tuple[float, ...]
    fills_diagonal: bool
    penalty: Path | None = None

    def num_bytes(self, num_columns: int | None = None) -> int:
        """Memory of the kernel of so many candidates, of all by default."""
        columns = self.num_candidates if num_columns is None else num_columns
        if self.kind == "dense":
            return 4 * columns * self.num_rows
        per_row = self.per_row + self.fills_diagonal
        return BYTES_PER_ENTRY * self.num_rows * per_row * columns // self.num_candidates

    def load(self, columns: IndexArray | None = None) -> FloatArray | scipy.sparse.csr_array:
        """The kernel (R, m) of the given candidates, ascending; of all of them by default."""
        if columns is None:
            columns = np.arange(self.num_candidates)
        if self.kind == "lists":
            return self._sparse(columns)
        # (m, R) in memory, handed on as its transpose: the greedy reads whole columns
        out = np.empty((len(columns), self.num_rows), dtype=np.float32)
        for start, block in self._blocks():
            first, last = np.searchsorted(columns, [start, start + len(block)])
            out[first:last] = block[columns[first:last] - start]
        kernel: FloatArray = out.T
        return kernel

    def best(self, picks: IndexArray) -> tuple[IndexArray, FloatArray]:
        """For each row the pick that covers it best, -1 for none, and how well: (R,), (R,)."""
        best, value = np.full(self.num_rows, -1), np.zeros(self.num_rows, dtype=np.float32)
        picked = np.zeros(self.num_candidates, dtype=bool)
        picked[picks] = True
        if self.kind == "lists":
            for start, ids, values in self._lists():
                rows = np.arange(len(ids))
                offered = np.where(picked[ids], values, 0)
                place = offered.argmax(axis=1)
                value[start : start + len(ids)] = offered[rows, place]
                best[start : start + len(ids)] = np.where(
                    offered[rows, place] > 0, ids[rows, place], -1
                )
            return best, value
        for start, block in self._blocks():
            inside = np.flatnonzero(picked[start : start + len(block)])
            if not len(inside):
                continue
            offered = block[inside]
            place = offered.argmax(axis=0)
            offer = offered[place, np.arange(self.num_rows)]
            better = offer > value
            best[better], value[better] = inside[place[better]] + start, offer[better]
        return best, value

    def excess(self, covered: FloatArray, caps: FloatArray | None = None) -> DoubleArray:
        """sum_r max(min(s[r, c], caps[r]) - covered[r], 0) of each candidate: (M,)."""
        total = np.zeros(self.num_candidates)
        if self.kind == "dense":
            for start, block in self._blocks():
                capped = block if caps is None else np.minimum(block, caps)
                over = np.maximum(capped - covered, 0)
                total[start : start + len(block)] = over.sum(axis=1, dtype=np.float64)
            return total
        for start, ids, values in self._lists():
            rows = slice(start, start + len(ids))
            capped = values if caps is None else np.minimum(values, caps[rows, None])
            over = np.maximum(capped - covered[rows, None], 0).astype(np.float64)
            total += np.bincount(ids.ravel(), over.ravel(), self.num_candidates)
        return total

    def maxima(self) -> FloatArray:
        """max_r s[r, c] of each candidate, at least 0: (M,)."""
        maxima = np.zeros(self.num_candidates, dtype=np.float32)
        if self.kind == "dense":
            for start, block in self._blocks():
                maxima[start : start + len(block)] = block.max(axis=1)
        else:
            for _, ids, values in self._lists():
                np.maximum.at(maxima, ids.ravel(), values.ravel())
        return maxima

    # --- reading ---------------------------------------------------------------------------------

    def _scaled(self, values: FloatArray, penalty: FloatArray | None) -> FloatArray:
        """Values of candidates, each less its penalty, which is of their shape or broadcasts."""
        return scaled(values if penalty is None else values - penalty, self.scaling)

    def _penalties(self) -> FloatArray | None:
        return None if self.penalty is None else load_array(self.penalty)

    def _blocks(self) -> Iterator[tuple[int, FloatArray]]:
        """(first candidate, block (m, R)) of a dense kernel, scaled."""
        largest, start = self._largest() if self.fills_diagonal else None, 0
        for block in self._scaled_blocks():
            if largest is not None:
                own = np.arange(len(block))
                block[own, start + own] = largest[start : start + len(block)]
            yield start, block
            start += len(block)

    def _scaled_blocks(self) -> Iterator[FloatArray]:
        penalties, start = self._penalties(), 0
        for path in self.paths:
            block = load_array(path, mmap_mode="r")
            own = None if penalties is None else penalties[start : start + len(block), None]
            yield self._scaled(block, own)
            start += len(block)

    def _largest(self) -> FloatArray:
        """max_c s[r, c] over other candidates, (R,): what a row is to itself."""
        largest, start = np.zeros(self.num_rows, dtype=np.float32), 0
        for block in self._scaled_blocks():
            own = np.arange(len(block))
            block[own, start + own] = 0
            np.maximum(largest, block.max(axis=0), out=largest)
            start += len(block)
        return largest

    def _lists(self) -> Iterator[tuple[int, IndexArray, FloatArray]]:
        """(first row, ids (n, K), values (n, K)), scaled; filled: the row itself first."""
        penalties, start = self._penalties(), 0
        for path in self.paths:
            table = map_table(path)
            ids = as_matrix(table.column(0))
            own = None if penalties is None else penalties[ids]
            values = self._scaled(as_matrix(table.column(1)), own)
            if self.fills_diagonal:
                own = np.arange(start, start + len(ids))[:, None]
                values = np.where(ids == own, 0, values)
                largest = values.max(axis=1, keepdims=True)
                ids = np.concatenate((own, ids), axis=1)
                values = np.concatenate((largest, values), axis=1)
            yield start, ids, values
            start += len(table)

    def _sparse(self, columns: IndexArray) -> scipy.sparse.csr_array:
        number = np.full(self.num_candidates, -1, dtype=np.int32)
        number[columns] = np.arange(len(columns), dtype=np.int32)
        found, data, counts = [], [], []
        for _, ids, values in self._lists():
            numbers = number[ids]
            kept = (numbers >= 0) & (values > 0)
            found.append(numbers[kept])
            data.append(values[kept])
            counts.append(kept.sum(axis=1))
        starts = np.append(0, np.cumsum(np.concatenate(counts)))
        return scipy.sparse.csr_array(
            (np.concatenate(data), np.concatenate(found), starts),
            shape=(self.num_rows, len(columns)),
        )


def scaled(values: FloatArray, scaling: tuple[float, ...]) -> FloatArray:
    """(value - low) / (high - low), cut at 0; of more than two levels the share passed.

    That is linear between two levels, 0 up to the first and 1 from the last.
    """
    if len(scaling) > 2:
        shares = np.interp(values, scaling, np.linspace(0, 1, len(scaling)))
        return np.asarray(shares, np.float32)
    low, high = scaling
    out: FloatArray = np.maximum((values - np.float32(low)) / np.float32(high - low), 0)
    return out
