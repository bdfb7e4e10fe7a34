"""What a selection is good at: one class per objective, each with one gain oracle.

    facility_location   covers every row of the kernel with at least one similar pick (submodular)
    top_mean            the candidates with the highest mean influence, each for itself
    random              a seeded draw: the baseline

An objective reads a kernel through `engine.kernels.columns` and never decides an order; that is
`greedy`'s. To add one: a class as below under `@objective`, and its slow version in
tests/oracles/selection.py. Source: ALGORITHMS.md section 7.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from engine.errors import SettingsError
from engine.kernels.arrays import DoubleArray, IndexArray
from engine.kernels.columns import Columns

__all__ = [
    "FacilityLocation",
    "Objective",
    "Random",
    "TopMean",
    "make_objective",
    "objective_names",
]


class Objective(Protocol):
    """A set function, seen from the set that has been picked so far.

    Attributes:
        modular: gains never change, so one sort is the greedy ranking.
        saturates: gains of 0 mean that nothing is left to gain, and the zero-gain policy applies.

    Unless modular it must be monotone submodular: a gain never rises, in float64, as picks are
    added. The constructor is given the kernel's columns and the candidates' mean influence (M,);
    further settings are its keyword arguments.
    """

    modular: ClassVar[bool]
    saturates: ClassVar[bool]

    def __init__(self, columns: Columns, means: DoubleArray) -> None: ...

    def gains(self, candidates: IndexArray) -> DoubleArray:
        """What each of the candidates (n,) would add to the picks so far: (n,) float64.

        A candidate's gain must not depend on which others are asked about with it.
        """

    def add(self, candidate: int) -> None:
        """Pick a candidate."""


_OBJECTIVES: dict[str, type[Objective]] = {}
ObjectiveType = TypeVar("ObjectiveType", bound=type[Objective])


def objective(name: str) -> Callable[[ObjectiveType], ObjectiveType]:
    """Class decorator: make an objective known to `select` by its name."""

    def register(class_: ObjectiveType) -> ObjectiveType:
        _OBJECTIVES[name] = class_
        return class_

    return register


def objective_names() -> list[str]:
    """The names that `select` knows, sorted."""
    return sorted(_OBJECTIVES)


def make_objective(
    name: str, columns: Columns, means: DoubleArray, settings: dict[str, Any]
) -> Objective:
    """The objective of that name on a kernel; SettingsError for a name or setting it has not."""
    if name not in _OBJECTIVES:
        raise SettingsError(f"unknown objective {name!r}; known: {', '.join(objective_names())}")
    class_ = _OBJECTIVES[name]
    known = list(inspect.signature(class_).parameters)[2:]
    for setting in settings:
        if setting not in known:
            raise SettingsError(
                f"objective {name} has no setting {setting!r}; it has: {', '.join(known) or 'none'}"
            )
    return class_(columns, means, **settings)


@objective("facility_location")
class FacilityLocation:
    """f(A) = sum_r max(0, max_{c in A} s[r, c]), for s >= 0.

    One gain costs O(R), or the stored entries of the column for a sparse kernel; state R floats.
    Raises SettingsError for a kernel with negative values: rows would start covered.
    """

    modular: ClassVar[bool] = False
    saturates: ClassVar[bool] = True

    def __init__(self, columns: Columns, means: DoubleArray) -> None:
        if columns.minimum < 0:
            raise SettingsError(
                "facility_location needs a kernel with values >= 0, its minimum is "
                f"{columns.minimum:g}: scale influence first (selection.scaling: minmax or clip0)"
            )
        self.columns = columns
        self.covered = np.zeros(columns.num_rows, dtype=np.float32)

    def gains(self, candidates: IndexArray) -> DoubleArray:
        return self.columns.excess(candidates, self.covered)

    def add(self, candidate: int) -> None:
        self.columns.cover(candidate, self.covered)


@objective("top_mean")
class TopMean:
    """f(A) = sum over A of the candidate's mean influence; any sign."""

    modular: ClassVar[bool] = True
    saturates: ClassVar[bool] = False

    def __init__(self, columns: Columns, means: DoubleArray) -> None:
        self.means = means

    def gains(self, candidates: IndexArray) -> DoubleArray:
        return self.means[candidates]

    def add(self, candidate: int) -> None:
        pass


@objective("random")
class Random:
    """f(A) = 0: every candidate ties, so the seeded permutation that breaks ties is the ranking."""

    modular: ClassVar[bool] = True
    saturates: ClassVar[bool] = False

    def __init__(self, columns: Columns, means: DoubleArray) -> None:
        pass

    def gains(self, candidates: IndexArray) -> DoubleArray:
        return np.zeros(len(candidates))

    def add(self, candidate: int) -> None:
        pass
