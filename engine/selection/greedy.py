"""Greedy: pick whatever adds most, again and again. At least 1 - 1/e of the optimum.

    lazy_greedy     for use: keeps every candidate's last known gain as an upper bound and asks
                    again only about those that could still win (Minoux 1978)
    naive_greedy    asks about every candidate at every step: what lazy_greedy is tested against

Both return the same ranking and gains to the bit: gains cannot rise, rounding included, and equal
gains go to the lower `tie_rank`, a seeded permutation. Both stop before the first gain that is
not above `tolerance` of the first one.
"""

from __future__ import annotations

import numpy as np

from engine.kernels.arrays import DoubleArray, IndexArray
from engine.kernels.bound_heap import heap_of, restore, take_first
from engine.selection.objectives import Objective

__all__ = ["lazy_greedy", "naive_greedy"]

Picks = tuple[IndexArray, DoubleArray]

MOST_AT_ONCE = 256  # stale bounds refreshed by one call of the oracle


def lazy_greedy(
    objective: Objective, budget: int, tie_rank: IndexArray, tolerance: float | None
) -> Picks:
    """Ranking (B',) and gains (B',) of at most `budget` picks; `tolerance` None never stops.

    O(M) oracle calls at first, then typically a few per pick. Stale bounds at the front of the
    queue are refreshed in batches of 1, 2, 4, ...: more than strictly needed, never fewer, so the
    result is that of refreshing them one by one.
    """
    bounds = objective.gains(np.arange(len(tie_rank)))
    heap = heap_of(bounds, tie_rank)
    if objective.modular:
        return _until_saturated(heap[:budget], bounds[heap[:budget]], tolerance)
    known_at = np.zeros(len(tie_rank), dtype=np.int64)  # step at which a bound was the gain itself
    ranking, gains = np.empty(budget, dtype=np.int64), np.empty(budget)
    floor = _floor(bounds.max(), tolerance)
    for step in range(budget):
        size, places = len(tie_rank) - step, 1
        while known_at[heap[0]] < step:
            front = heap[: min(places, size)]
            stale = front[known_at[front] < step]
            bounds[stale] = objective.gains(stale)
            known_at[stale] = step
            restore(heap, size, len(front), bounds, tie_rank)
            places = min(2 * places, MOST_AT_ONCE)
        if bounds[heap[0]] <= floor:
            return ranking[:step], gains[:step]
        pick = take_first(heap, size, bounds, tie_rank)
        ranking[step], gains[step] = pick, bounds[pick]
        objective.add(pick)
    return ranking, gains


def naive_greedy(
    objective: Objective, budget: int, tie_rank: IndexArray, tolerance: float | None
) -> Picks:
    """As `lazy_greedy`, with all remaining candidates asked about at every step: M B gains."""
    remaining = np.argsort(tie_rank)
    ranking, all_gains = np.empty(budget, dtype=np.int64), np.empty(budget)
    floor = -np.inf
    for step in range(budget):
        gains = objective.gains(remaining)
        best = int(gains.argmax())  # the first of equals: the lowest tie rank
        if step == 0:
            floor = _floor(gains[best], tolerance)
        if gains[best] <= floor:
            return ranking[:step], all_gains[:step]
        ranking[step], all_gains[step] = remaining[best], gains[best]
        objective.add(int(remaining[best]))
        remaining = np.delete(remaining, best)
    return ranking, all_gains


def _until_saturated(ranking: IndexArray, gains: DoubleArray, tolerance: float | None) -> Picks:
    above = int((gains > _floor(gains[0], tolerance)).sum())
    return ranking[:above], gains[:above]


def _floor(first_gain: float, tolerance: float | None) -> float:
    return -np.inf if tolerance is None else tolerance * first_gain
