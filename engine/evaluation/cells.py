"""One cell of the evaluation: an arm, a method and a seed, with the subset that it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine.artifacts.files import read_table
from engine.artifacts.run_directory import Artifact
from engine.kernels.arrays import IndexArray

__all__ = ["Cell", "Method", "subset_rows"]

Method = Literal["icl", "qlora"]


@dataclass(frozen=True)
class Cell:
    """What is answered once over all test rows.

    Attributes:
        arm: as the table names it.
        method: rows shown in the prompt, or trained on.
        seed: of whatever is random in it.
        subset: name of the input artifact whose `ranking` lists its rows; None: no rows at all.
    """

    arm: str
    method: Method
    seed: int
    subset: str | None

    @property
    def name(self) -> str:
        return f"{self.arm}/{self.method}/{self.seed}"


def subset_rows(inputs: Mapping[str, Artifact], subset: str | None) -> IndexArray:
    """Candidate rows of a subset, ascending: what a subset is used for does not see its order."""
    if subset is None:
        return np.empty(0, np.int64)
    path = inputs[subset].path("ranking")
    rows: IndexArray = read_table(path, columns=["row"])["row"].to_numpy()
    return np.sort(rows)
