"""Rows in turn: each takes the candidate that is best for it, again and again.

What RDS+ selects by (arXiv 2503.01807), over any matrix of influence or similarity. Every target
has as many picks as the next one, so the subset has the target set's mix whatever the level of one
target's scores; it optimises nothing that could be full.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from engine.kernels.arrays import DoubleArray, IndexArray
from engine.kernels.columns import Columns
from engine.kernels.compiled import compiled
from engine.selection.greedy import Picks, Search
from engine.selection.objective import objective

__all__ = ["RoundRobin"]

FIRST_FOUND = 2.0  # candidates that a row sorts at first, in its share of the budget
TURNS = 2  # key of a random stream


@objective("round_robin")
class RoundRobin:
    """Each row of the kernel (R, M) in turn takes its best candidate that is left and fits.

    Turns follow a seeded permutation of the rows; equal candidates the lower tie rank. A row for
    which no candidate is left with a value above 0 has no further turn. A pick's gain is its value
    for the row whose turn it was, and its round the number of that turn, from 1. The optimizer
    makes no difference.

    Cost: of each row as much of its order as its turns need, O(M) or its stored entries at a time;
    memory the order of R rows as far as it was needed, 4 bytes an entry, R B at most.
    """

    modular: ClassVar[bool] = False
    saturates: ClassVar[bool] = True
    monotone: ClassVar[bool] = True

    def __init__(self, columns: Columns, means: DoubleArray) -> None:
        self.columns = columns

    def gains(self, candidates: IndexArray) -> DoubleArray:
        """The best that each candidate is for any row."""
        return self.columns.maxima()[candidates]

    def add(self, candidate: int) -> None:
        pass

    def rank(self, search: Search) -> Picks:
        """Pick in turns, within the limits of the search."""
        gone = np.ones(self.columns.num_columns, dtype=bool)
        gone[search.candidates] = False
        order = np.random.default_rng((search.seed, TURNS)).permutation(self.columns.num_rows)
        share = search.limits.rows / len(order)
        lines = [_Line(self.columns, row, search.tie_rank, share) for row in order.tolist()]
        picks, turn = Picks(), 0
        while lines and search.limits.rows:
            turn += 1
            waiting = []
            for line in lines:
                if not search.limits.rows:
                    break
                found = line.next(gone)
                while found is not None and not search.limits.fits(found[0]):
                    gone[found[0]] = True  # never again
                    found = line.next(gone)
                if found is None:
                    continue
                candidate, value = found
                gone[candidate] = True
                search.limits.take(candidate)
                picks.ranking.append(candidate)
                picks.gains.append(value)
                picks.rounds.append(turn)
                waiting.append(line)
            lines = waiting
        picks.saturated = not lines
        return picks


class _Line:
    """A row's candidates, the best first, sorted as far as they are needed."""

    def __init__(
        self, columns: Columns, row: int, tie_rank: IndexArray, share_of_budget: float
    ) -> None:
        self.columns, self.row, self.tie_rank = columns, row, tie_rank
        self.count = math.ceil(FIRST_FOUND * share_of_budget)
        self.place, self.order, self.values = 0, np.empty(0, np.int32), np.empty(0, np.float32)
        self.whole = False

    def next(self, gone: NDArray[np.bool_]) -> tuple[int, float] | None:
        """The best candidate that is not gone, and its value; None where none is left."""
        self.place = _first_left(self.order, self.place, gone)
        while self.place == len(self.order) and not self.whole:
            self._sort_more()
            self.place = _first_left(self.order, self.place, gone)
        if self.place == len(self.order):
            return None
        return int(self.order[self.place]), float(self.values[self.place])

    def _sort_more(self) -> None:
        """Twice as many as before: what was sorted is a prefix, for equal values come together."""
        candidates, values = self.columns.of_row(self.row)
        self.count *= 2
        if self.count < len(values):
            least = np.partition(values, len(values) - self.count)[len(values) - self.count]
            kept = values >= least
            candidates, values = candidates[kept], values[kept]
        else:
            self.whole = True
        order = np.lexsort((self.tie_rank[candidates], -values))
        self.order, self.values = candidates[order].astype(np.int32), values[order]


@compiled()
def _first_left(order: NDArray[np.int32], place: int, gone: NDArray[np.bool_]) -> int:
    while place < len(order) and gone[order[place]]:
        place += 1
    return place
