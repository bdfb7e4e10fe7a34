"""From a candidate's influence on each target to its influence on a target set of sub-tasks.

Source: LESS (arXiv 2402.04333), section 4.2: a candidate is as good as it is for the sub-task that
it helps most.
"""

from __future__ import annotations

import numpy as np

from engine.errors import EngineError
from engine.kernels.arrays import DoubleArray, FloatArray, IndexArray

__all__ = ["group_means", "max_of_group_means"]


def group_means(scores: FloatArray, groups: IndexArray) -> DoubleArray:
    """Mean over each group of targets, for each candidate: (M, N) -> (M, G) float64.

    `groups` (N,) holds the group of each target: any integers, in the order of which the means
    are; a NaN among a group's scores makes that mean NaN. Raises EngineError for no target.
    """
    if len(groups) == 0:
        raise EngineError("a mean of 0 targets does not exist: pass at least one target")
    means = [
        scores[:, groups == group].mean(axis=1, dtype=np.float64) for group in np.unique(groups)
    ]
    return np.stack(means, axis=1)


def max_of_group_means(scores: FloatArray, groups: IndexArray) -> FloatArray:
    """Largest mean over a group of targets, for each candidate: (M,) float32; see `group_means`."""
    return np.asarray(group_means(scores, groups).max(axis=1), dtype=np.float32)
