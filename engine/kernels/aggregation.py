"""From a candidate's influence on each target to its influence on a target set of sub-tasks.

Source: LESS (arXiv 2402.04333), section 4.2: a candidate is as good as it is for the sub-task that
it helps most.

    max_of_group_means       `mean_of_cos`: mean of the scores in each sub-task, then the maximum
    mean_of_group_features   `cos_of_mean`: mean of the targets' features, to be scored afterwards
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError
from engine.kernels.arrays import FloatArray, IndexArray

__all__ = ["max_of_group_means", "mean_of_group_features"]


def max_of_group_means(scores: FloatArray, groups: IndexArray) -> FloatArray:
    """Largest mean over a group of targets, for each candidate: (M,) float32.

    Args:
        scores: S (M, N); a NaN among a group's scores makes that candidate NaN.
        groups: (N,) the group of each target; any integers, e.g. all 0 for one sub-task.

    Sums in float64. Raises EngineError for no target.
    """
    means = [
        scores[:, columns].mean(axis=1, dtype=np.float64) for columns in _members(groups, "score")
    ]
    return np.asarray(np.max(means, axis=0), dtype=np.float32)


def mean_of_group_features(features: NDArray[np.floating], groups: IndexArray) -> FloatArray:
    """Mean feature of each group, by ascending group: (G, F) float32 of (N, F) and (N,).

    Sums in float64. Raises EngineError for no target.
    """
    means = [features[rows].mean(axis=0, dtype=np.float64) for rows in _members(groups, "feature")]
    return np.asarray(means, dtype=np.float32)


def _members(groups: IndexArray, what: str) -> list[IndexArray]:
    if len(groups) == 0:
        raise EngineError(f"a mean {what} of 0 targets does not exist: pass at least one target")
    return [np.flatnonzero(groups == group) for group in np.unique(groups)]
