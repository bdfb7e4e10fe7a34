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

__all__ = ["Judgement", "judge", "judge_more"]


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


def judge_more(
    values: FloatArray,
    asked: bool,
    known: Judgement,
    settings: QualityConfig,
    trusted: bool,
) -> Judgement:
    """Judge further rows by what was done to those of `known`, which came before them.

    Their values (n,) are all answers (`asked`), or all predictions; NaN is not judged. They are
    held against the rows of their kind in `known`: dropped where such a value, or a better one,
    was; weighed as a row of that place would be. So a corpus of bad rows is dropped whole, and one
    of good rows is not. Cost: a sort of the known rows.
    """
    sign = 1 if settings.teacher.facts.worst == "high" else -1
    of_known = (known.asked == asked) & np.isfinite(known.values)
    badness, finite = sign * values, np.isfinite(values)
    dropped, penalty = np.zeros(len(values), bool), None
    judged = asked or trusted or settings.untrusted == "all"
    judged &= trusted or settings.untrusted != "none"
    if settings.weight is not None:
        penalty = np.full(len(values), settings.weight / 2)
    if judged and penalty is not None and settings.weight is not None:
        ranked = np.sort(sign * known.values[of_known])
        below = np.searchsorted(ranked, badness[finite]) / max(1, len(ranked) - 1)
        penalty[finite] = settings.weight * np.minimum(below, 1)
    elif judged and settings.drop_worst is not None:
        limits = sign * known.values[of_known & known.dropped]
        dropped[finite] = badness[finite] >= limits.min(initial=np.inf)
    elif judged and settings.above is not None:
        dropped[finite] = values[finite] > settings.above
    elif judged and settings.below is not None:
        dropped[finite] = values[finite] < settings.below
    return Judgement(values, np.full(len(values), asked), dropped, penalty)
