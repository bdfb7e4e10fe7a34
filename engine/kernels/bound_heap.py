"""A priority queue of candidates by upper bounds that only ever fall: the heart of lazy greedy.

The queue is an array of candidate ids in heap order: highest bound first, equal bounds by the
lower tie rank. After some bounds in its first places fell, `restore` makes it a heap again.
"""

from __future__ import annotations

import numpy as np

from engine.kernels.arrays import DoubleArray, IndexArray
from engine.kernels.compiled import compiled

__all__ = ["heap_of", "restore", "take_first"]


def heap_of(bounds: DoubleArray, tie_rank: IndexArray) -> IndexArray:
    """All candidates as a heap (M,): a sorted array is one. O(M log M)."""
    return np.lexsort((tie_rank, -bounds)).astype(np.int64)


@compiled()
def restore(
    heap: IndexArray, size: int, places: int, bounds: DoubleArray, tie_rank: IndexArray
) -> None:
    """Make heap[:size] a heap again after bounds of candidates in heap[:places] fell."""
    for place in range(places - 1, -1, -1):  # from the back: all below `place` is in order
        parent, child = place, 2 * place + 1
        while child < size:
            if child + 1 < size and _before(heap[child + 1], heap[child], bounds, tie_rank):
                child += 1
            if not _before(heap[child], heap[parent], bounds, tie_rank):
                break
            heap[parent], heap[child] = heap[child], heap[parent]
            parent, child = child, 2 * child + 1


@compiled()
def take_first(heap: IndexArray, size: int, bounds: DoubleArray, tie_rank: IndexArray) -> int:
    """Remove the first candidate of heap[:size] and return it; heap[: size - 1] is a heap."""
    first = heap[0]
    heap[0] = heap[size - 1]
    restore(heap, size - 1, 1, bounds, tie_rank)
    return int(first)


@compiled()
def _before(a: int, b: int, bounds: DoubleArray, tie_rank: IndexArray) -> bool:
    if bounds[a] != bounds[b]:
        return bool(bounds[a] > bounds[b])
    return bool(tie_rank[a] < tie_rank[b])
