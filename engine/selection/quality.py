"""The quality gate's judgement: arrays in, arrays out.

A row that the gate's teacher was asked about is judged by its answer, any other by what is
predicted of it. Predictions shrink towards the mean and answers do not, so among all rows together
the asked ones would win both ends: the worst share is taken of each of the two groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.config.quality import QualityConfig
from engine.kernels.arrays import DoubleArray, FloatArray

__all__ = ["Judgement", "judge"]


@dataclass(frozen=True)
class Judgement:
    """Of M candidates.

    Attributes:
        values: answers, else predictions, in the teacher's own units, (M,); NaN: neither.
        asked: whose value is an answer, (M,) bool.
        dropped: which rows are not for selection, (M,) bool.
        penalty: what their influence is lowered by, in standard deviations, (M,); of `weight`. A
            row that is not judged has that of the median row.
    """

    values: FloatArray
    asked: NDArray[np.bool_]
    dropped: NDArray[np.bool_]
    penalty: DoubleArray | None


def judge(
    answers: FloatArray, predicted: FloatArray, settings: QualityConfig, trusted: bool
) -> Judgement:
    """Judge M rows by answers (M,), NaN where there is none, and by predictions (M,).

    Equal values go by row number. Cost: two sorts.
    """
    asked = np.isfinite(answers)
    values = np.where(asked, answers, predicted).astype(np.float32)
    badness = values if settings.teacher.facts.worst == "high" else -values
    groups = [np.flatnonzero(asked), np.flatnonzero(~asked & np.isfinite(values))]
    if not trusted and settings.untrusted != "all":
        groups = groups[:1] if settings.untrusted == "asked" else []
    dropped, penalty = np.zeros(len(values), bool), None
    if settings.weight is not None:
        penalty = np.full(len(values), settings.weight / 2)  # of a row that is not judged
    for rows in groups:
        order = rows[np.argsort(-badness[rows], kind="stable")]  # worst first
        if penalty is not None and settings.weight is not None:
            steps = np.linspace(1, 0, len(order)) if len(order) > 1 else np.zeros(len(order))
            penalty[order] = settings.weight * steps
        elif settings.drop_worst is not None:
            dropped[order[: round(settings.drop_worst * len(order))]] = True
        elif settings.above is not None:
            dropped[rows] = values[rows] > settings.above
        elif settings.below is not None:
            dropped[rows] = values[rows] < settings.below
    return Judgement(values, asked, dropped, penalty)
