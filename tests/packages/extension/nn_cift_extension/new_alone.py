"""What each candidate does beyond the owned rows, whatever else is picked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from engine.config import Section
from engine.kernels.arrays import DoubleArray, IndexArray
from engine.selection.objective import Objective

if TYPE_CHECKING:
    from engine.kernels.columns import Columns

__all__ = ["NewAlone"]


class NewAloneSettings(Section):
    """What counts as new."""

    strictness: float = Field(1.0, ge=0, description="how much of what owned rows do counts")


class NewAlone(Objective):
    """f(A) = sum_{c in A} sum_r max(s[r, c] - strictness owned[r], 0), for s >= 0."""

    name = "new_alone"
    modular = True
    saturates = False
    monotone = True
    needs_owned = True
    Settings = NewAloneSettings

    def __init__(
        self, columns: Columns, means: DoubleArray, owned: Any, strictness: float = 1.0
    ) -> None:
        before = np.float32(strictness) * np.asarray(owned, np.float32)
        self._worth = columns.excess(np.arange(len(means)), before)

    def gains(self, candidates: IndexArray) -> DoubleArray:
        return self._worth[candidates]

    def add(self, candidate: int) -> None:
        pass
