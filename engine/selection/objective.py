"""What an objective is, and how `select` finds it by its name.

To add one: an `Objective` subclass with a `name`, in a module here or as an entry point of another
package, and its slow version in a test (docs/extending.md). Settings ask the class for its facts,
so its module imports torch, numba, and what needs them, inside functions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from engine.components import component, component_names
from engine.config.facts import OBJECTIVES, ObjectiveFacts
from engine.errors import SettingsError
from engine.kernels.arrays import DoubleArray, FloatArray, IndexArray

if TYPE_CHECKING:
    from engine.kernels.columns import Columns
    from engine.selection.greedy import Picks, Search

__all__ = ["Covering", "Objective", "OwnRanking", "make_objective", "objective_names"]


class Objective(ObjectiveFacts, ABC):
    """A set function, seen from the set that has been picked so far; of no pick it is 0.

    Unless modular it must be submodular: a gain never rises, in float64, as picks are added. The
    constructor is given the kernel's columns and the candidates' mean influence (M,); further
    settings are its keyword arguments.
    """

    @abstractmethod
    def __init__(self, columns: Columns, means: DoubleArray) -> None: ...

    @abstractmethod
    def gains(self, candidates: IndexArray) -> DoubleArray:
        """What each of the candidates (n,) would add to the picks so far: (n,) float64.

        A candidate's gain must not depend on which others are asked about with it.
        """

    @abstractmethod
    def add(self, candidate: int) -> None:
        """Pick a candidate."""


class Covering(Objective):
    """An objective for which picks are no more than how well they cover each row.

    Once nothing is left to gain, another round can start from the coverage before the first pick
    (`cover_again`).

    Attributes:
        covered: how well each row is covered, (R,).
    """

    has_rounds: ClassVar[bool] = True
    covered: FloatArray


@runtime_checkable
class OwnRanking(Protocol):
    """An objective that is not greedy and says itself what is picked next."""

    def rank(self, search: Search) -> Picks:
        """Pick within the limits of the search; saturated where it has nothing more to say."""


def objective_names() -> list[str]:
    """The names that `select` knows, sorted."""
    return component_names(OBJECTIVES)


def make_objective(
    name: str, columns: Columns, means: DoubleArray, settings: dict[str, Any]
) -> Objective:
    """The objective of that name on a kernel; SettingsError for a name or setting it has not."""
    class_: Any = component(OBJECTIVES, name)
    known = class_.settings()
    for setting in settings:
        if setting not in known:
            raise SettingsError(
                f"objective {name} has no setting {setting!r}; it has: {', '.join(known) or 'none'}"
            )
    for parameter in known.values():
        if parameter.default is parameter.empty and parameter.name not in settings:
            raise SettingsError(f"objective {name} needs the setting {parameter.name!r}")
    made: Objective = class_(columns, means, **settings)
    return made
