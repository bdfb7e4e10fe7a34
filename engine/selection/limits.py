"""What a selection may still take: so many rows, of each group, at such a cost.

All three only shrink, so a candidate that no longer fits never fits again and an optimiser may
forget it. Limits count what is picked now, never the initial subset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from engine.errors import SettingsError
from engine.kernels.arrays import IndexArray

__all__ = ["Limits", "Quotas", "group_limits", "token_costs"]

Quotas = int | Mapping[Any, int]  # at most so many rows of every group, or of those named


class Limits:
    """Counts down as rows are taken.

    Attributes:
        rows: how many may still be taken.
        groups: the group (M,) of each candidate, and the rows left for each group (G,).
        costs: the cost (M,) of each candidate.
        left: the cost that may still be spent.
    """

    def __init__(
        self,
        rows: int,
        groups: tuple[IndexArray, IndexArray] | None = None,
        costs: tuple[IndexArray, int] | None = None,
    ) -> None:
        self.rows = rows
        self.groups = None if groups is None else (groups[0], groups[1].copy())
        self.costs = None if costs is None else costs[0]
        self.left = 0 if costs is None else costs[1]

    def fits(self, candidate: int) -> bool:
        """Whether this candidate may be taken now."""
        if self.groups is not None:
            group, room = self.groups
            if not room[group[candidate]]:
                return False
        return self.costs is None or bool(self.costs[candidate] <= self.left)

    def fitting(self, candidates: IndexArray) -> IndexArray:
        """Those of the candidates that may be taken now, in their order."""
        if self.groups is not None:
            group, room = self.groups
            candidates = candidates[room[group[candidates]] > 0]
        if self.costs is not None:
            candidates = candidates[self.costs[candidates] <= self.left]
        return candidates

    def take(self, candidate: int) -> None:
        """Count a candidate that fits as taken."""
        self.rows -= 1
        if self.groups is not None:
            group, room = self.groups
            room[group[candidate]] -= 1
        if self.costs is not None:
            self.left -= int(self.costs[candidate])

    def fill(self, candidates: IndexArray) -> IndexArray:
        """Take the candidates in their order, skipping those that do not fit: what was taken."""
        if self.groups is None and self.costs is None:
            taken = candidates[: self.rows]
            self.rows -= len(taken)
            return taken
        chosen = []
        for candidate in self.fitting(candidates).tolist():
            if not self.rows:
                break
            if self.fits(candidate):
                self.take(candidate)
                chosen.append(candidate)
        return np.array(chosen, dtype=np.int64)


def group_limits(
    groups: ArrayLike | None, quotas: Quotas | None, num_candidates: int
) -> tuple[IndexArray, IndexArray] | None:
    """(number of the group (M,), rows allowed (G,)); None without quotas.

    A mapping need not name every group: the others are not limited. SettingsError for one without
    the other, for a name that no candidate has, and for a quota that is no whole number >= 0.
    """
    if groups is None and quotas is None:
        return None
    if groups is None or quotas is None:
        raise SettingsError("groups (one per candidate) and quotas go together, got only one")
    given = np.asarray(groups)
    if given.dtype == object and all(isinstance(name, str) for name in given.flat):
        given = given.astype(str)
    if given.shape != (num_candidates,) or given.dtype.kind not in "iuU":
        raise SettingsError(
            f"groups must be {num_candidates} whole numbers or strings, one per candidate, "
            f"got {given.dtype} of shape {given.shape}"
        )
    unique, numbers = np.unique(given, return_inverse=True)
    names = unique.tolist()
    known = set(names)
    if not isinstance(quotas, Mapping):
        quotas = dict.fromkeys(names, quotas)
    for name, quota in quotas.items():
        if name not in known:
            raise SettingsError(f"quotas name the group {name!r}, which no candidate has")
        if not _is_count(quota):
            raise SettingsError(f"a quota must be a whole number >= 0, got {quota!r} for {name!r}")
    room = [int(quotas.get(name, num_candidates)) for name in names]
    return numbers.astype(np.int64), np.array(room, dtype=np.int64)


def token_costs(
    costs: ArrayLike | None, max_cost: int | None, num_candidates: int
) -> tuple[IndexArray, int] | None:
    """(cost (M,), what may be spent); None without a cost budget.

    SettingsError for one without the other, for costs that are no whole numbers >= 1, and for a
    budget that not even the cheapest candidate fits.
    """
    if costs is None and max_cost is None:
        return None
    if costs is None or max_cost is None:
        raise SettingsError("costs (one per candidate) and max_cost go together, got only one")
    given = np.asarray(costs)
    if given.shape != (num_candidates,) or given.dtype.kind not in "iu" or given.min() < 1:
        raise SettingsError(
            f"costs must be {num_candidates} whole numbers >= 1, one per candidate (tokens, say), "
            f"got {given.dtype} of shape {given.shape}"
        )
    if not _is_count(max_cost) or max_cost < given.min():
        raise SettingsError(
            f"max_cost must be a whole number of at least {given.min()}, the cost of the cheapest "
            f"candidate, got {max_cost!r}"
        )
    return given.astype(np.int64), int(max_cost)


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 0)
