"""The audit of what selection uses: each unseen candidate's mean over the audited targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from engine.kernels.arrays import DoubleArray as Array
from engine.kernels.arrays import IndexArray
from engine.kernels.ranks import or_none, rank_correlation, stream

__all__ = ["CandidateMeans", "candidate_means"]

NUM_HALVES = 20
TOP_SHARE = 0.3
HALVES = 1  # key of a random stream


@dataclass(frozen=True)
class CandidateMeans:
    """What selection uses: each unseen candidate's mean influence over the audited targets.

    Attributes:
        spearman: of each predictor's means with the teacher's.
        p_value: chance of the student's Spearman or more if its order of the candidates were
            random (one-sided).
        split_half: Spearman of the teacher's means over one random half of the targets with those
            over the other, mean of 20 splits: what the teacher reaches against itself.
        top_overlap: of each predictor's best 30 % of the candidates with the teacher's (Jaccard).
        chance_overlap: what two random subsets of that size share.
    """

    num_candidates: int
    num_targets: int
    spearman: Mapping[str, float | None]
    p_value: float | None
    split_half: float | None
    top_overlap: Mapping[str, float]
    chance_overlap: float


def candidate_means(
    labels: Array, pairs: IndexArray, ranked_by: Mapping[str, Array], seed: int
) -> CandidateMeans | None:
    """Compare the means of each candidate, by every predictor, with the teacher's.

    Args:
        labels: the teacher's scores of the audited pairs of unseen candidates, (n,).
        pairs: (n, 2) int, [c, t].
        ranked_by: what each predictor ranks the pairs by, (n,) each; "student" among them.
        seed: of the halves.

    None without pairs.
    """
    if not len(pairs):
        return None
    (_, row_ids), (_, column_ids) = (
        np.unique(pairs[:, side], return_inverse=True) for side in (0, 1)
    )
    num_rows, num_columns = int(row_ids.max()) + 1, int(column_ids.max()) + 1
    truth = _means(labels, row_ids, num_rows)
    spearman = {
        name: or_none(rank_correlation(_means(values, row_ids, num_rows), truth))
        for name, values in ranked_by.items()
    }
    rng = np.random.default_rng(stream(seed, HALVES))
    agreements = []
    for _ in range(NUM_HALVES if num_columns > 1 else 0):
        in_first = (rng.permutation(num_columns) < num_columns // 2)[column_ids]
        first, second = (
            _means(labels[half], row_ids[half], num_rows) for half in (in_first, ~in_first)
        )
        both = np.isfinite(first) & np.isfinite(second)
        agreements.append(rank_correlation(first[both], second[both]))
    finite = [agreement for agreement in agreements if np.isfinite(agreement)]
    split_half = float(np.mean(finite)) if finite else None
    p_value = None
    if spearman["student"] is not None and num_rows > 2:
        predicted = _means(ranked_by["student"], row_ids, num_rows)
        p_value = float(scipy.stats.spearmanr(predicted, truth, alternative="greater").pvalue)
    top = _top(truth)
    overlap = {
        name: _jaccard(_top(_means(values, row_ids, num_rows)), top)
        for name, values in ranked_by.items()
        if spearman[name] is not None  # the top of a constant is anything
    }
    size = int(top.sum())
    # the expected share of common members, which for sets of this size is near the expected Jaccard
    chance = size / (2 * num_rows - size)
    return CandidateMeans(num_rows, num_columns, spearman, p_value, split_half, overlap, chance)


def _top(means: Array) -> NDArray[np.bool_]:
    """The best 30 % of the candidates, at least one; ties to the lower row."""
    chosen = np.zeros(len(means), dtype=bool)
    chosen[np.argsort(-means, kind="stable")[: max(1, round(TOP_SHARE * len(means)))]] = True
    return chosen


def _jaccard(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return float((first & second).sum() / (first | second).sum())


def _means(values: Array, ids: IndexArray, size: int) -> Array:
    """Mean of the values of each id; NaN for an id without any."""
    counts = np.bincount(ids, minlength=size)
    sums = np.bincount(ids, values, minlength=size)
    means: Array = np.divide(sums, counts, out=np.full(size, np.nan), where=counts > 0)
    return means
