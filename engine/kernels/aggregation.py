"""From a candidate's influence on each target to its influence on a target set of sub-tasks.

Source: LESS (arXiv 2402.04333), section 4.2: a candidate is as good as it is for the sub-task that
it helps most.
"""

from __future__ import annotations

import numpy as np

from engine.errors import EngineError
from engine.kernels.arrays import FloatArray, IndexArray

__all__ = ["max_of_group_means"]


def max_of_group_means(scores: FloatArray, groups: IndexArray) -> FloatArray:
    """Largest mean over a group of targets, for each candidate: (M,) float32.

    Args:
        scores: S (M, N); a NaN among a group's scores makes that candidate NaN.
        groups: (N,) the group of each target; any integers, e.g. all 0 for one sub-task.

    Sums in float64. Raises EngineError for no target.
    """
    if len(groups) == 0:
        raise EngineError("a mean of 0 targets does not exist: pass at least one target")
    means = [
        scores[:, groups == group].mean(axis=1, dtype=np.float64) for group in np.unique(groups)
    ]
    return np.asarray(np.max(means, axis=0), dtype=np.float32)
