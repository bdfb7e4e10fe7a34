"""Selection the slow and obvious way: set functions as defined, greedy from scratch, all subsets.

A value is a function of the picks alone. Greedy evaluates it anew for every candidate at every
step; the optimum tries every subset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

import numpy as np

Value = Callable[[Sequence[int]], float]
Allowed = Callable[[Sequence[int]], bool]


def facility_location(kernel: np.ndarray, picks: Iterable[int]) -> float:
    """sum_r max(0, max_{c in picks} kernel[r, c])."""
    picks = list(picks)
    return sum(max([0.0, *(float(row[c]) for c in picks)]) for row in kernel)


def mutual_information_1(
    kernel: np.ndarray, query: np.ndarray, eta: float, picks: Iterable[int]
) -> float:
    """sum_r min(max_{c in picks} kernel[r, c], eta max_q query[r, q])."""
    picks = list(picks)
    return sum(
        min(max([0.0, *(float(row[c]) for c in picks)]), eta * float(max(to_query)))
        for row, to_query in zip(kernel, query, strict=True)
    )


def mutual_information_2(kernel: np.ndarray, eta: float, picks: Iterable[int]) -> float:
    """sum_q max_{c in picks} kernel[q, c] + eta sum_{c in picks} max_q kernel[q, c]."""
    picks = list(picks)
    return facility_location(kernel, picks) + eta * sum(float(max(kernel[:, c])) for c in picks)


def conditional_gain(
    kernel: np.ndarray, owned: np.ndarray, nu: float, picks: Iterable[int]
) -> float:
    """sum_r max(max_{c in picks} kernel[r, c] - nu max_p owned[r, p], 0)."""
    picks = list(picks)
    return sum(
        max(max([0.0, *(float(row[c]) for c in picks)]) - nu * float(max(to_owned)), 0.0)
        for row, to_owned in zip(kernel, owned, strict=True)
    )


def graph_cut(kernel: np.ndarray, trade_off: float, picks: Iterable[int]) -> float:
    """sum_{r, c in picks} kernel[r, c] - trade_off sum_{a, b in picks} kernel[a, b]."""
    picks = list(picks)
    return sum(float(row[c]) for row in kernel for c in picks) - trade_off * sum(
        float(kernel[a, b]) for a in picks for b in picks
    )


def graph_cut_mutual_information(
    kernel: np.ndarray, trade_off: float, picks: Iterable[int]
) -> float:
    """2 trade_off sum_{q, c in picks} kernel[q, c]."""
    return 2 * trade_off * sum(float(row[c]) for row in kernel for c in picks)


def within(
    groups: Sequence[object], quota: int, costs: Sequence[int] | None = None, most: int = 0
) -> Allowed:
    """Whether picks hold at most `quota` of each group and cost at most `most` together."""

    def allowed(picks: Sequence[int]) -> bool:
        counts = [sum(groups[c] == groups[other] for other in picks) for c in picks]
        return max(counts, default=0) <= quota and (
            costs is None or sum(int(costs[c]) for c in picks) <= most
        )

    return allowed


def greedy(
    value: Value,
    num_candidates: int,
    budget: int,
    seed: int,
    *,
    start: Sequence[int] = (),
    allowed: Allowed = lambda picks: True,
    prices: Sequence[int] | None = None,
) -> tuple[list[int], list[float]]:
    """Every candidate evaluated from scratch at every step; no tail policy.

    Ranked by gain, or by gain per price; `allowed` judges the picks without the start.
    """
    tie_rank = np.random.default_rng(seed).permutation(num_candidates)
    picks: list[int] = []
    gains: list[float] = []
    while len(picks) < budget:
        rest = [c for c in range(num_candidates) if c not in picks and c not in start]
        rest = [c for c in rest if allowed([*picks, c])]
        if not rest:
            break
        now = value([*start, *picks])
        gain = {c: value([*start, *picks, c]) - now for c in rest}
        worth = {c: gain[c] if prices is None else gain[c] / prices[c] for c in rest}
        best = max(rest, key=lambda c: (worth[c], -tie_rank[c]))
        picks.append(best)
        gains.append(gain[best])
    return picks, gains


def optimum(
    value: Value, num_candidates: int, budget: int, allowed: Allowed = lambda picks: True
) -> float:
    """The best value of any allowed subset of at most that size."""
    return max(
        value(subset)
        for size in range(budget + 1)
        for subset in combinations(range(num_candidates), size)
        if allowed(subset)
    )


def in_rounds(kernel, budget, seed):
    """Facility location, and again among what is left: (ranking, gains, rounds) by definition."""
    tie_rank = np.random.default_rng(seed).permutation(kernel.shape[1])
    ranking, gains, rounds, number, current = [], [], [], 1, []
    while len(ranking) < budget:
        left = sorted(set(range(kernel.shape[1])) - set(ranking), key=lambda c: tie_rank[c])
        base = facility_location(kernel, current)
        best = max(left, key=lambda c: facility_location(kernel, [*current, c]) - base)
        gain = facility_location(kernel, [*current, best]) - base
        if gain > 0:
            current.append(best)
            ranking.append(best)
            gains.append(gain)
            rounds.append(number)
        elif current:
            number, current = number + 1, []
        else:
            break
    return ranking, gains, rounds


def round_robin(kernel, budget, seed, groups, quota):
    """Rows in turn, each its best that is left and fits: (ranking, gains, turns) by definition."""
    tie_rank = np.random.default_rng(seed).permutation(kernel.shape[1])
    order = np.random.default_rng((seed, 2)).permutation(len(kernel))
    ranking, gains, turns, turn = [], [], [], 0
    while len(ranking) < budget:
        turn, before = turn + 1, len(ranking)
        for row in order:
            taken = [list(groups[ranking]).count(g) for g in groups]
            left = [c for c in range(kernel.shape[1]) if c not in ranking and taken[c] < quota]
            left = [c for c in left if kernel[row, c] > 0]
            if left and len(ranking) < budget:
                best = min(left, key=lambda c: (-kernel[row, c], tie_rank[c]))
                ranking.append(best)
                gains.append(float(kernel[row, best]))
                turns.append(turn)
        if len(ranking) == before:
            break
    return ranking, gains, turns
