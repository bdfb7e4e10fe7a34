"""How rows take turns: what `round_robin` picks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from engine.kernels.arrays import IndexArray
from engine.kernels.columns import Columns
from engine.kernels.compiled import compiled
from engine.selection.greedy import Picks, Search

__all__ = ["in_turns"]

FIRST_FOUND = 2.0  # candidates that a row sorts at first, in its share of the budget
TURNS = 2  # key of a random stream


def in_turns(columns: Columns, search: Search) -> Picks:
    """Each row in turn takes its best candidate that is left, within the limits of the search."""
    gone = np.ones(columns.num_columns, dtype=bool)
    gone[search.candidates] = False
    order = np.random.default_rng((search.seed, TURNS)).permutation(columns.num_rows)
    share = search.limits.rows / len(order)
    lines = [_Line(columns, row, search.tie_rank, share) for row in order.tolist()]
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
