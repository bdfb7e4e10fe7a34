"""The audit of what selection uses: each unseen candidate's mean over the audited targets.

Values are less their target's mean first: a candidate of which some pairs could not be scored is
not to look good because easy targets are left. Where all pairs are there the order is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.kernels.arrays import DoubleArray as Array
from engine.kernels.arrays import IndexArray
from engine.kernels.ranks import (
    Interval,
    Ranker,
    centred,
    correlation,
    middle_of,
    or_none,
    rank_correlation,
    stream,
)

__all__ = ["CandidateMeans", "candidate_means"]

NUM_HALVES = 20
TOP_SHARE = 0.3
HALVES, BOOTSTRAP = 1, 2  # keys of random streams


@dataclass(frozen=True)
class CandidateMeans:
    """What selection uses: each unseen candidate's mean influence over the audited targets.

    Attributes:
        spearman: of each predictor's means with the teacher's.
        spearman_interval: of it, at the audit's confidence, candidates resampled.
        lead_interval: 95 % of (student's Spearman - this predictor's), paired.
        split_half: Spearman of the teacher's means over one random half of the targets with those
            over the other, mean of 20 splits.
        ceiling: what Spearman knowing each candidate's mean over endless targets like these would
            reach: the root of the reliability over all of them, 2 r / (1 + r) by Spearman and
            Brown. None where the halves do not agree. A student may be above it that knows how
            these targets differ.
        top_overlap: of each predictor's best 30 % of the candidates with the teacher's (Jaccard).
        chance_overlap: what two random subsets of that size share.
    """

    num_candidates: int
    num_targets: int
    spearman: Mapping[str, float | None]
    spearman_interval: Mapping[str, Interval | None]
    lead_interval: Mapping[str, Interval | None]
    split_half: float | None
    ceiling: float | None
    top_overlap: Mapping[str, float]
    chance_overlap: float


def candidate_means(
    labels: Array,
    pairs: IndexArray,
    ranked_by: Mapping[str, Array],
    seed: int,
    num_resamples: int,
    confidence: float,
) -> CandidateMeans | None:
    """Compare the means of each candidate, by every predictor, with the teacher's.

    Args:
        labels: the teacher's scores of the audited pairs of unseen candidates, (n,).
        pairs: (n, 2) int, [c, t].
        ranked_by: what each predictor ranks the pairs by, (n,) each; "student" among them.
        seed: of the halves and the bootstrap.
        num_resamples: of the bootstrap.
        confidence: of `spearman_interval`.

    None without pairs.
    """
    if not len(pairs):
        return None
    (_, row_ids), (_, column_ids) = (
        np.unique(pairs[:, side], return_inverse=True) for side in (0, 1)
    )
    num_rows, num_columns = int(row_ids.max()) + 1, int(column_ids.max()) + 1
    relative = centred(labels, column_ids)
    truth = _means(relative, row_ids, num_rows)
    means = {
        name: _means(centred(values, column_ids), row_ids, num_rows)
        for name, values in ranked_by.items()
    }
    spearman = {name: or_none(rank_correlation(found, truth)) for name, found in means.items()}
    resampled = _resampled(means, truth, seed, num_resamples)
    split_half = _split_half(relative, row_ids, column_ids, seed)
    ceiling = None
    if split_half is not None and split_half > 0:
        ceiling = float(np.sqrt(2 * split_half / (1 + split_half)))
    top = _top(truth)
    size = int(top.sum())
    return CandidateMeans(
        num_candidates=num_rows,
        num_targets=num_columns,
        spearman=spearman,
        spearman_interval={n: middle_of(found, confidence) for n, found in resampled.items()},
        lead_interval={
            name: middle_of(resampled["student"] - found)
            for name, found in resampled.items()
            if name != "student"
        },
        split_half=split_half,
        ceiling=ceiling,
        top_overlap={
            name: _jaccard(_top(found), top)
            for name, found in means.items()
            if spearman[name] is not None  # the top of a constant is anything
        },
        # the expected share of common members, for sets of this size near the expected Jaccard
        chance_overlap=size / (2 * num_rows - size),
    )


def _resampled(
    means: Mapping[str, Array], truth: Array, seed: int, num_resamples: int
) -> dict[str, Array]:
    """Spearman of every predictor on resampled candidates, (num_resamples,), NaN if undefined."""
    found = {name: np.full(num_resamples, np.nan) for name in means}
    rankers, of_truth, size = {n: Ranker(m) for n, m in means.items()}, Ranker(truth), len(truth)
    rng = np.random.default_rng(stream(seed, BOOTSTRAP))
    for number in range(num_resamples if size > 1 else 0):
        weights = rng.multinomial(size, np.full(size, 1 / size)).astype(np.float64)
        ranks = of_truth.ranks(weights)
        for name, ranker in rankers.items():
            found[name][number] = correlation(ranker.ranks(weights), ranks, weights)
    return found


def _split_half(
    labels: Array, row_ids: IndexArray, column_ids: IndexArray, seed: int
) -> float | None:
    num_rows, num_columns = int(row_ids.max()) + 1, int(column_ids.max()) + 1
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
    return float(np.mean(finite)) if finite else None


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
