"""Candidates that are strong for some row, and on average: each for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from engine.config import Section
from engine.kernels.arrays import DoubleArray, IndexArray
from engine.selection.objective import Objective

if TYPE_CHECKING:
    from engine.kernels.columns import Columns

__all__ = ["Strongest"]


class StrongestSettings(Section):
    """What makes a candidate strong."""

    mean_weight: float = Field(0.0, ge=0, description="of its mean beside its maximum")


class Strongest(Objective):
    """f(A) = sum over A of max_r s[r, c] + mean_weight mean_r s[r, c]; any sign."""

    name = "strongest"
    modular = True
    saturates = False
    monotone = False
    Settings = StrongestSettings

    def __init__(self, columns: Columns, means: DoubleArray, mean_weight: float = 0.0) -> None:
        self._worth = columns.maxima() + mean_weight * means

    def gains(self, candidates: IndexArray) -> DoubleArray:
        return self._worth[candidates]

    def add(self, candidate: int) -> None:
        pass
