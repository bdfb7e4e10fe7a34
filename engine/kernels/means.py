"""Exact means of S over one side, without the matrix.

mean_t relu(p + Q[t, k]) needs only how many Q[t, k] exceed -p and what they add up to: sort each
column of Q once, keep suffix sums, and find -p by binary search (ALGORITHMS.md section 5).

    mean_over_targets      (M,) how good each candidate is on average, the ranking of `top_mean`
    mean_over_candidates   (N,) how much each target gains on average
"""

from __future__ import annotations

import numba
import numpy as np

from engine.errors import EngineError
from engine.kernels.arrays import DoubleArray, FloatArray
from engine.kernels.compiled import compiled
from engine.kernels.pairwise import PairwiseForm
from engine.kernels.threads import kernel_threads

__all__ = ["mean_over_candidates", "mean_over_targets"]


def mean_over_targets(form: PairwiseForm, *, threads: int | None = None) -> FloatArray:
    """Mean of S over the targets, for each candidate: (M,) float32.

    Cost O((M + N) h log N) time and O(M + N) memory beside the form; sums in float64 and in an
    order that depends on neither the block of candidates nor the threads. Subsets of targets: pass
    a form that holds only those. Raises EngineError for no target or units that are not finite.
    """
    num_targets = len(form.target_units)
    if num_targets == 0:
        raise EngineError("a mean over 0 targets does not exist: pass at least one target")
    means = np.zeros(len(form.candidate_units), dtype=np.float64)
    with kernel_threads(threads):
        for unit, weight in enumerate(form.weights):
            offsets = np.ascontiguousarray(form.candidate_units[:, unit])
            levels = np.sort(form.target_units[:, unit])
            suffix_sums = np.zeros(num_targets + 1)
            suffix_sums[:-1] = np.cumsum(levels[::-1], dtype=np.float64)[::-1]
            _add_mean_relu(offsets, levels, suffix_sums, float(weight) / num_targets, means)
    means += form.candidate_bias.astype(np.float64)
    means += float(form.target_bias.mean(dtype=np.float64))
    if not np.isfinite(means).all():
        raise EngineError(
            "the means are NaN or infinite: check the embeddings, and that the network's fit did "
            "not diverge"
        )
    return means.astype(np.float32)


def mean_over_candidates(form: PairwiseForm, *, threads: int | None = None) -> FloatArray:
    """Mean of S over the candidates, for each target: (N,) float32; as `mean_over_targets`."""
    return mean_over_targets(form.swapped(), threads=threads)


@compiled(parallel=True)
def _add_mean_relu(
    offsets: FloatArray,
    levels: FloatArray,
    suffix_sums: DoubleArray,
    weight: float,
    sums: DoubleArray,
) -> None:
    """sums[i] += weight * sum_j relu(offsets[i] + levels[j]); levels ascend."""
    n = levels.shape[0]
    for i in numba.prange(offsets.shape[0]):
        threshold = -offsets[i]
        low, width = 0, n  # the number of levels up to the threshold is in low .. low + width
        while width > 0:
            half = (width + 1) // 2
            # a select, not a branch: the outcome is a coin toss that no CPU predicts
            low = low + half if levels[low + half - 1] <= threshold else low
            width -= half
        sums[i] += weight * (suffix_sums[low] + (n - low) * np.float64(offsets[i]))
