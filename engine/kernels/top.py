"""The k best candidates of each target, exactly, without the M x N matrix.

    top_of_form    streams the pairs of a PairwiseForm past one heap per target
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
from engine.kernels.pairwise import ROWS, TILE, PairwiseForm, fold, pair_row
from engine.kernels.threads import kernel_threads

__all__ = ["Top", "merge_top", "top_of_block", "top_of_form"]


@dataclass(frozen=True)
class Top:
    """The best candidates of each target among those seen so far.

    Attributes:
        ids: (N, k) int64, best first.
        influence: (N, k) float32, descending along a row.
    """

    ids: IndexArray
    influence: FloatArray


def top_of_form(
    form: PairwiseForm, k: int, *, first_id: int = 0, threads: int | None = None
) -> Top:
    """The min(k, M) best of the form's M candidates for each target; ids count from `first_id`.

    Cost M N h max-and-adds, plus about k log(M / k) heap updates a target; memory N k. The values
    are the bits of `pairwise_block`, for any number of threads.
    """
    folded = fold(form)
    k = min(k, len(folded.candidates))
    ids = np.full((len(folded.targets), k), np.iinfo(np.int64).max, dtype=np.int64)
    influence = np.full(ids.shape, -np.inf, dtype=np.float32)
    if k > 0:
        columns = np.ascontiguousarray(folded.candidates.T)
        with kernel_threads(threads):
            _stream(
                folded.targets,
                columns,
                folded.num_positive,
                folded.target_bias,
                folded.candidate_bias,
                first_id,
                ids,
                influence,
            )
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
    rows: FloatArray,
    columns: FloatArray,
    num_positive: int,
    row_bias: FloatArray,
    column_bias: FloatArray,
    first_id: int,
    ids: IndexArray,
    influence: FloatArray,
) -> None:
    """Targets are the rows here: each owns a heap, so threads never share one."""
    n, m = rows.shape[0], columns.shape[1]
    for block in numba.prange((n + ROWS - 1) // ROWS):
        values = np.empty(TILE, dtype=np.float32)
        for start in range(0, m, TILE):
            stop = min(m, start + TILE)
            for r in range(block * ROWS, min(n, (block + 1) * ROWS)):
                seen = values[: stop - start]
                pair_row(rows[r], columns, num_positive, row_bias[r], column_bias, start, seen)
                _offer(seen, first_id + start, ids[r], influence[r])
        for r in range(block * ROWS, min(n, (block + 1) * ROWS)):
            _sort_heap(ids[r], influence[r])


@compiled()
def _offer(values: FloatArray, first_id: int, ids: IndexArray, influence: FloatArray) -> None:
    """Replace the worst of the heap, its root, by every better value.

    Ids arrive in ascending order, so a value equal to the root's loses to it.
    """
    for i in range(values.shape[0]):
        if values[i] > influence[0]:
            influence[0] = values[i]
            ids[0] = first_id + i
            _sift_down(ids, influence, ids.shape[0])


@compiled()
def _sort_heap(ids: IndexArray, influence: FloatArray) -> None:
    """Turn a heap with the worst at its root into a row with the best first."""
    for size in range(ids.shape[0] - 1, 0, -1):
        ids[0], ids[size] = ids[size], ids[0]
        influence[0], influence[size] = influence[size], influence[0]
        _sift_down(ids, influence, size)


@compiled()
def _sift_down(ids: IndexArray, influence: FloatArray, size: int) -> None:
    """Move the root down until neither child is worse: lower, or equal with a higher id."""
    parent, child = 0, 1
    while child < size:
        if child + 1 < size and _worse(ids, influence, child + 1, child):
            child += 1
        if not _worse(ids, influence, child, parent):
            return
        ids[parent], ids[child] = ids[child], ids[parent]
        influence[parent], influence[child] = influence[child], influence[parent]
        parent, child = child, 2 * child + 1


@compiled()
def _worse(ids: IndexArray, influence: FloatArray, a: int, b: int) -> bool:
    if influence[a] != influence[b]:
        return bool(influence[a] < influence[b])
    return bool(ids[a] > ids[b])
