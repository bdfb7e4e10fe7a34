"""Greedy: pick whatever adds most, again and again. At least 1 - 1/e of the optimum.

    lazy_greedy         for use: keeps every candidate's last known worth as an upper bound and
                        asks again only about those that could still win (Minoux 1978)
    naive_greedy        asks about every candidate at every step: what lazy_greedy is tested against
    stochastic_greedy   asks about a random sample at every step (Mirzasoleiman et al. 2015)
    in_rounds           one of them, again and again: forgets the coverage when it is full

The first two return the same ranking and gains to the bit: gains cannot rise, rounding included,
and equal ones go to the lower `tie_rank`, a seeded permutation. All stop before the first pick
whose worth is not above the floor of the search.

The share of the optimum is that of a monotone submodular objective and a number of rows
(Nemhauser, Wolsey, Fisher 1978). Under quotas, a partition matroid, it is 1/2 (Fisher, Nemhauser,
Wolsey 1978); under a cost see `select`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from engine.kernels.arrays import DoubleArray, IndexArray
from engine.kernels.bound_heap import restore, take_first
from engine.selection.limits import Limits
from engine.selection.objective import Covering, Objective

__all__ = ["Picks", "Search", "in_rounds", "lazy_greedy", "naive_greedy", "stochastic_greedy"]

MOST_AT_ONCE = 256  # stale bounds refreshed by one call of the oracle


@dataclass(frozen=True)
class Search:
    """What is searched, and what makes one candidate better than another.

    Attributes:
        limits: what may be picked; counted down on the way.
        candidates: (n,) those that may be picked, by ascending tie rank.
        queue: (n,) the same by falling `first_worth`, equal ones by ascending tie rank.
        tie_rank: (M,) a permutation.
        first_worth: (M,) worth of every candidate before anything was picked: no worth is higher.
        floor: worth up to which a candidate counts as adding nothing; -inf: never stop.
        seed: of what is drawn on the way.
        prices: (M,) a candidate's worth is its gain divided by this; None: the gain itself.
    """

    limits: Limits
    candidates: IndexArray
    queue: IndexArray
    tie_rank: IndexArray
    first_worth: DoubleArray
    floor: float
    seed: int
    prices: DoubleArray | None = None

    def worth(self, candidates: IndexArray, gains: DoubleArray) -> DoubleArray:
        """What candidates with these gains are ranked by; falls when the gain falls."""
        return gains if self.prices is None else gains / self.prices[candidates]

    def without(self, picks: IndexArray) -> Search:
        """The search from the start again, among those that are left and still fit."""
        left = np.ones(len(self.tie_rank), dtype=bool)
        left[picks] = False
        candidates = self.limits.fitting(self.candidates[left[self.candidates]])
        left[:] = False
        left[candidates] = True
        return replace(self, candidates=candidates, queue=self.queue[left[self.queue]])


@dataclass
class Picks:
    """What was picked, in order, with the gains, and whether the rest adds nothing any more.

    `rounds` are numbered from 1.
    """

    ranking: list[int] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    saturated: bool = False


def lazy_greedy(objective: Objective, search: Search) -> Picks:
    """As `naive_greedy`, to the bit, asking only about candidates that could be the best.

    Typically a few oracle calls per pick. Stale bounds at the front of the queue are refreshed in
    batches of 1, 2, 4, ...: more than strictly needed, never fewer, so the result is that of
    refreshing them one by one.
    """
    limits, tie_rank, bounds = search.limits, search.tie_rank, search.first_worth.copy()
    heap = search.queue.copy()  # sorted, and so a heap
    if objective.modular:
        ranking = limits.fill(heap)
        return Picks(ranking.tolist(), objective.gains(ranking).tolist(), [1] * len(ranking))
    known_at = np.full(len(tie_rank), -1)  # number of picks when a bound was the worth itself
    picks, size, places = Picks(), len(heap), 1
    while size and limits.rows:
        first, step = heap[0], len(picks.ranking)
        if not limits.fits(first):
            take_first(heap, size, bounds, tie_rank)
            size -= 1
        elif known_at[first] < step:
            front = heap[: min(places, size)]
            stale = front[known_at[front] < step]
            bounds[stale] = search.worth(stale, objective.gains(stale))
            known_at[stale] = step
            restore(heap, size, len(front), bounds, tie_rank)
            places = min(2 * places, MOST_AT_ONCE)
        elif bounds[first] <= search.floor:
            picks.saturated = True
            break
        else:
            take_first(heap, size, bounds, tie_rank)
            size, places = size - 1, 1
            _pick(objective, search, picks, first, bounds[first])
    return picks


def naive_greedy(objective: Objective, search: Search) -> Picks:
    """Ask about all remaining candidates at every step: M B gains."""
    picks, remaining = Picks(), search.candidates
    while search.limits.rows:
        remaining = search.limits.fitting(remaining)
        if not len(remaining):
            break
        worth = search.worth(remaining, objective.gains(remaining))
        best = int(worth.argmax())  # the first of equals: the lowest tie rank
        if worth[best] <= search.floor:
            picks.saturated = True
            break
        _pick(objective, search, picks, remaining[best], worth[best])
        remaining = np.delete(remaining, best)
    return picks


def stochastic_greedy(objective: Objective, search: Search, epsilon: float) -> Picks:
    """The best of a fresh sample of (M / B) ln(1 / epsilon) candidates at every step, seeded.

    1 - 1/e - epsilon of the optimum in expectation, for M ln(1 / epsilon) gains whatever the
    budget B (Mirzasoleiman et al. 2015, for a number of rows alone). B is that of one round.
    A sample with nothing to gain does not end the search: all that is left is asked about, and what
    adds nothing is set aside.
    """
    rng = np.random.default_rng((search.seed, 1))  # not the stream of the tie ranks
    limits, picks, pool = search.limits, Picks(), search.candidates.copy()
    set_aside = 0
    expected = limits.rows
    if isinstance(objective, Covering):  # a round has no more picks than there are rows
        expected = min(expected, len(objective.covered))
    sample_size = math.ceil(len(pool) / expected * math.log(1 / epsilon))
    while limits.rows and len(pool):
        places = rng.choice(len(pool), min(sample_size, len(pool)), replace=False, shuffle=False)
        sample = pool[places]
        if len(limits.fitting(sample)) < len(sample):  # draw again from those that fit
            pool = limits.fitting(pool)
            continue
        worth = search.worth(sample, objective.gains(sample))
        equals = np.flatnonzero(worth == worth.max())
        best = equals[search.tie_rank[sample[equals]].argmin()]
        if worth[best] <= search.floor:
            gaining = search.worth(pool, objective.gains(pool)) > search.floor
            set_aside += int(len(pool) - gaining.sum())
            pool = pool[gaining]
            continue
        _pick(objective, search, picks, sample[best], worth[best])
        pool[places[best]] = pool[-1]
        pool = pool[:-1]
    picks.saturated = set_aside > 0 and limits.rows > 0
    return picks


def in_rounds(
    objective: Covering, search: Search, maximize: Callable[[Objective, Search], Picks]
) -> Picks:
    """Cover the rows as well as can be, forget that, and cover them again with what is left.

    Facility location over R rows ends after R picks at the latest, and what is ranked after them by
    its mean undoes the mix. Saturated where no candidate that is left and fits covers anything.
    """
    before = objective.covered.copy()
    picks = last = maximize(objective, search)
    number = 1
    while last.saturated and last.ranking:
        number += 1
        search = search.without(np.array(last.ranking))
        objective.covered = before.copy()
        last = maximize(objective, search)
        picks.ranking += last.ranking
        picks.gains += last.gains
        picks.rounds += [number] * len(last.ranking)
    picks.saturated = last.saturated
    return picks


def _pick(
    objective: Objective, search: Search, picks: Picks, candidate: np.int64, worth: np.float64
) -> None:
    gain = worth if search.prices is None else objective.gains(np.array([candidate]))[0]
    picks.ranking.append(int(candidate))
    picks.gains.append(float(gain))
    picks.rounds.append(1)
    objective.add(int(candidate))
    search.limits.take(int(candidate))
