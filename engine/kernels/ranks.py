"""Rank correlation under weights, and small numbers' manners: what the parts of the audit share."""

from __future__ import annotations

import numpy as np

from engine.kernels.arrays import DoubleArray as Array
from engine.kernels.arrays import FloatArray, IndexArray

__all__ = [
    "Interval",
    "Ranker",
    "centred",
    "correlation",
    "middle_of",
    "or_none",
    "order_within_targets",
    "rank_correlation",
    "stream",
]

Interval = tuple[float, float]


class Ranker:
    """Ranks of fixed values under changing weights, without sorting again."""

    def __init__(self, values: Array) -> None:
        unique, self.value_ids = np.unique(values, return_inverse=True)
        self.num_values = len(unique)

    def ranks(self, weights: Array) -> Array:
        """Mid-ranks, less 1/2, that each value has when it is repeated `weights` times."""
        mass = np.bincount(self.value_ids, weights, minlength=self.num_values)
        middle: Array = np.cumsum(mass) - mass / 2
        return middle[self.value_ids]


def centred(values: Array, ids: IndexArray) -> Array:
    """Each value less the mean of those with its id, (n,) int from 0; exactly 0 where all agree."""
    counts = np.bincount(ids)
    sums = np.bincount(ids, values)
    less: Array = values - (sums / np.maximum(counts, 1))[ids]
    # What is left of equal values is rounding, and ranks would make an order of it.
    less[np.abs(less) <= 1e-12 * np.abs(values).max(initial=0)] = 0
    return less


def rank_correlation(first: Array, second: Array) -> float:
    """Rank correlation; NaN when either side is constant."""
    ones = np.ones(len(first))
    return correlation(Ranker(first).ranks(ones), Ranker(second).ranks(ones), ones)


def correlation(first: Array, second: Array, weights: Array) -> float:
    """Weighted Pearson correlation; NaN when either side is constant."""
    total = weights.sum()
    if total == 0:
        return np.nan
    x = first - weights @ first / total
    y = second - weights @ second / total
    variances = (weights @ (x * x)) * (weights @ (y * y))
    if variances <= 1e-24 * (weights @ (first * first)) * (weights @ (second * second)):
        return np.nan
    return float(weights @ (x * y) / np.sqrt(variances))


def middle_of(resampled: Array, confidence: float = 0.95) -> Interval | None:
    """The middle 95 %; None when fewer than half of the resamples define the number."""
    finite = resampled[np.isfinite(resampled)]
    if not len(finite) or 2 * len(finite) < len(resampled):
        return None
    low, high = np.quantile(finite, ((1 - confidence) / 2, (1 + confidence) / 2))
    return float(low), float(high)


def or_none(value: float) -> float | None:
    """The value, or None where it is not defined."""
    return float(value) if np.isfinite(value) else None


def stream(seed: int, key: int) -> np.random.SeedSequence:
    """Random numbers of one part of the audit; no two keys share any."""
    return np.random.SeedSequence([seed % 2**64, key])


def order_within_targets(
    predicted: FloatArray, labels: FloatArray, pairs: IndexArray
) -> tuple[float, float]:
    """Spearman within targets, and of the candidates' means; 0 where one side is constant.

    Of a candidate with only some targets the mean is that of what it has above its targets' means.
    """
    c, t = pairs.T
    if (t == t[:1]).all():
        within = _or_zero(rank_correlation(predicted.astype(np.float64), labels.astype(np.float64)))
        return within, within
    sides = [centred(values.astype(np.float64), t) for values in (predicted, labels)]
    counts = np.bincount(c)
    there = counts > 0
    means = [np.bincount(c, values)[there] / counts[there] for values in sides]
    return _or_zero(rank_correlation(*sides)), _or_zero(rank_correlation(*means))


def _or_zero(value: float) -> float:
    return float(value) if np.isfinite(value) else 0.0
