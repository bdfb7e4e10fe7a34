"""Rows in turn: each takes the candidate that is best for it, again and again.

What RDS+ selects by (arXiv 2503.01807), over any matrix of influence or similarity. Every target
has as many picks as the next one, so the subset has the target set's mix whatever the level of one
target's scores; it optimises nothing that could be full.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from engine.kernels.arrays import DoubleArray, IndexArray
from engine.selection.objective import Objective

if TYPE_CHECKING:
    from engine.kernels.columns import Columns
    from engine.selection.greedy import Picks, Search

__all__ = ["RoundRobin"]


class RoundRobin(Objective):
    """Each row of the kernel (R, M) in turn takes its best candidate that is left and fits.

    Turns follow a seeded permutation of the rows; equal candidates the lower tie rank. A row for
    which no candidate is left with a value above 0 has no further turn. A pick's gain is its value
    for the row whose turn it was, and its round the number of that turn, from 1. The optimizer
    makes no difference.

    Cost: of each row as much of its order as its turns need, O(M) or its stored entries at a time;
    memory the order of R rows as far as it was needed, 4 bytes an entry, R B at most.
    """

    name = "round_robin"
    covers = "target"
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
        from engine.selection.turns import in_turns

        return in_turns(self.columns, search)
