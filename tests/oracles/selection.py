"""Selection the slow and obvious way: greedy with Python loops, and the optimum by trying all."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import numpy as np


def facility_location(kernel: np.ndarray, picks: Iterable[int]) -> float:
    """sum_r max(0, max_{c in picks} kernel[r, c])."""
    picks = list(picks)
    return sum(max([0.0, *(float(row[c]) for c in picks)]) for row in kernel)


def greedy(kernel: np.ndarray, budget: int, seed: int) -> tuple[list[int], list[float]]:
    """Facility location, every candidate evaluated from scratch at every step; no tail policy."""
    tie_rank = np.random.default_rng(seed).permutation(kernel.shape[1])
    picks: list[int] = []
    gains: list[float] = []
    for _ in range(budget):
        rest = [c for c in range(kernel.shape[1]) if c not in picks]
        now = facility_location(kernel, picks)
        gain = {c: facility_location(kernel, [*picks, c]) - now for c in rest}
        best = max(rest, key=lambda c: (gain[c], -tie_rank[c]))
        picks.append(best)
        gains.append(gain[best])
    return picks, gains


def optimum(kernel: np.ndarray, budget: int) -> float:
    """The best value of any subset of that size."""
    subsets = combinations(range(kernel.shape[1]), budget)
    return max(facility_location(kernel, subset) for subset in subsets)
