"""What an objective is, and how `select` finds it by its name.

To add one: a module of its name with a class under `@objective`, the name in `ObjectiveName`, and
its slow version in a test (docs/extending.md).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, get_args, runtime_checkable

from engine.config import ObjectiveName
from engine.errors import SettingsError
from engine.kernels.arrays import DoubleArray, FloatArray, IndexArray
from engine.kernels.columns import Columns
from engine.spelling import meant

if TYPE_CHECKING:  # greedy imports this module
    from engine.selection.greedy import Picks, Search

__all__ = ["Covering", "Objective", "OwnRanking", "make_objective", "objective", "objective_names"]


class Objective(Protocol):
    """A set function, seen from the set that has been picked so far; of no pick it is 0.

    Attributes:
        modular: gains never change, so one sort is the greedy ranking.
        saturates: gains of at most 0 mean that nothing is left to gain, and the zero-gain policy
            applies. A modular objective never saturates.
        monotone: no gain is negative. Greedy then reaches 1 - 1/e of the best value of any
            subset of that size (Nemhauser, Wolsey, Fisher 1978); otherwise nothing is promised.

    Unless modular it must be submodular: a gain never rises, in float64, as picks are added. The
    constructor is given the kernel's columns and the candidates' mean influence (M,); further
    settings are its keyword arguments.
    """

    modular: ClassVar[bool]
    saturates: ClassVar[bool]
    monotone: ClassVar[bool]

    def __init__(self, columns: Columns, means: DoubleArray) -> None: ...

    def gains(self, candidates: IndexArray) -> DoubleArray:
        """What each of the candidates (n,) would add to the picks so far: (n,) float64.

        A candidate's gain must not depend on which others are asked about with it.
        """

    def add(self, candidate: int) -> None:
        """Pick a candidate."""


@runtime_checkable
class Covering(Objective, Protocol):
    """An objective for which picks are no more than how well they cover each row.

    Once nothing is left to gain, another round can start from the coverage before the first pick
    (`cover_again`).

    Attributes:
        covered: how well each row is covered, (R,).
    """

    covered: FloatArray


@runtime_checkable
class OwnRanking(Protocol):
    """An objective that is not greedy and says itself what is picked next."""

    def rank(self, search: Search) -> Picks:
        """Pick within the limits of the search; saturated where it has nothing more to say."""


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
    return sorted({*_OBJECTIVES, *get_args(ObjectiveName)})


def make_objective(
    name: str, columns: Columns, means: DoubleArray, settings: dict[str, Any]
) -> Objective:
    """The objective of that name on a kernel; SettingsError for a name or setting it has not."""
    if name not in _OBJECTIVES and name in get_args(ObjectiveName):
        importlib.import_module(f"engine.selection.{name}")
    if name not in _OBJECTIVES:
        names = objective_names()
        raise SettingsError(
            f"unknown objective {name!r}; known: {', '.join(names)}{meant(name, names)}"
        )
    class_ = _OBJECTIVES[name]
    parameters = list(inspect.signature(class_).parameters.values())[2:]
    known = [parameter.name for parameter in parameters]
    for setting in settings:
        if setting not in known:
            raise SettingsError(
                f"objective {name} has no setting {setting!r}; it has: {', '.join(known) or 'none'}"
            )
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.name not in settings:
            raise SettingsError(f"objective {name} needs the setting {parameter.name!r}")
    return class_(columns, means, **settings)
