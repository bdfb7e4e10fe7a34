"""The audit: how far a student may be trusted on pairs that it never saw.

`fidelity` measures, `engine.audit.verdict` judges. The student stands beside what costs nothing or
next to nothing: the mean of the training labels, zero, itself fitted on answers that were dealt out
anew among the candidates, and the other students, the cosine and the ridge among them. Pairs share
candidates and targets, so they are not independent: intervals resample both sides (the pigeonhole
bootstrap; Owen 2007, The Annals of Applied Statistics 1).

Everything is numpy; nothing here reads a file or asks a teacher.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.audit.candidate_means import CandidateMeans, candidate_means
from engine.errors import InputError
from engine.kernels.arrays import DoubleArray as Array
from engine.kernels.arrays import FloatArray, IndexArray
from engine.kernels.ranks import Ranker, correlation, or_none, stream

__all__ = [
    "Fidelity",
    "QuadrantFidelity",
    "Score",
    "fidelity",
]

Interval = tuple[float, float]

BOOTSTRAP = 0  # key of a random stream; 1 is the candidate means'


@dataclass(frozen=True)
class Score:
    """How well one predictor meets the teacher on one quadrant; None where undefined.

    Attributes:
        mse: mean squared error, in teacher units squared.
        mse_std: the same in variances of the training labels.
        r2: 1 - mse / variance of the quadrant's own labels; 0 is as good as knowing their mean.
        spearman: rank correlation over the pairs.
        r2_interval, spearman_interval: 95 %, candidates and targets resampled.
        spearman_lead_interval: 95 % of (student's Spearman - this predictor's), paired.
    """

    mse: float
    mse_std: float | None
    r2: float | None
    spearman: float | None
    r2_interval: Interval | None
    spearman_interval: Interval | None
    spearman_lead_interval: Interval | None


@dataclass(frozen=True)
class QuadrantFidelity:
    """All predictors on one quadrant: 1 both sides seen in training, 4 neither."""

    quadrant: int
    num_pairs: int
    num_candidates: int
    num_targets: int
    scores: Mapping[str, Score]


@dataclass(frozen=True)
class Fidelity:
    """The whole audit; `to_dict` gives JSON without NaN."""

    label_mean: float
    label_std: float
    quadrants: Mapping[int, QuadrantFidelity]
    candidate_means: CandidateMeans | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values; quadrants are keyed "Q1".."Q4"."""
        values = asdict(self)
        values["quadrants"] = {f"Q{q}": quadrant for q, quadrant in values["quadrants"].items()}
        return values


def fidelity(
    predicted: Mapping[str, FloatArray],
    labels: FloatArray,
    quadrants: IndexArray,
    pairs: IndexArray,
    training_labels: FloatArray,
    pairwise: bool = True,
    seed: int = 0,
    num_resamples: int = 1000,
) -> Fidelity:
    """Measure a student on audited pairs, beside whatever else predicts them.

    Args:
        predicted: by predictor what it says of each audited pair, (n,), teacher units: "student",
            and what stands beside it; the mean of the training labels and zero are added.
        labels: the teacher's scores of the same pairs, (n,); never used in training.
        quadrants: 1..4 of each pair, (n,).
        pairs: (n, 2) int, [c, t] row numbers.
        training_labels: (m,), what the student learned from.
        pairwise: whether targets matter; else candidates alone are resampled.
        seed: of the bootstrap and the halves: same seed, same numbers.
        num_resamples: of the bootstrap.

    Raises InputError for shapes that do not match or values that are not finite.
    Cost: the bootstrap takes about 0.06 ms per resample, predictor and 1,000 pairs.
    """
    _check(predicted, labels, quadrants, pairs, training_labels)
    known = training_labels.astype(np.float64)
    mean, std = float(known.mean()), float(known.std())
    values = {name: np.asarray(found, np.float64) for name, found in predicted.items()}
    values |= {"mean": np.full(len(pairs), mean), "zero": np.zeros(len(pairs))}
    truth = labels.astype(np.float64)
    measured = {}
    for quadrant in np.unique(quadrants).tolist():
        rows = quadrants == quadrant
        audit = _Audit(truth[rows], pairs[rows], pairwise, std, seed, num_resamples)
        measured[quadrant] = audit.quadrant(quadrant, audit.scores(_rows(values, rows)))
    unseen = quadrants >= 3
    means = candidate_means(truth[unseen], pairs[unseen], _rows(values, unseen), seed)
    return Fidelity(mean, std, measured, means)


class _Audit:
    """The pairs of one quadrant, and the weights that each resample gives them."""

    def __init__(
        self,
        labels: Array,
        pairs: IndexArray,
        pairwise: bool,
        label_std: float,
        seed: int,
        num_resamples: int,
    ) -> None:
        self.labels, self.label_std = labels, label_std
        self.ids = [np.unique(pairs[:, side], return_inverse=True)[1] for side in (0, 1)]
        self.sizes = [int(ids.max()) + 1 for ids in self.ids]
        self.resampled = (0, 1) if pairwise else (0,)
        self.seed, self.num_resamples = seed, num_resamples
        self.truth = Ranker(labels)

    def quadrant(self, number: int, scores: Mapping[str, Score]) -> QuadrantFidelity:
        return QuadrantFidelity(number, len(self.labels), self.sizes[0], self.sizes[1], scores)

    def scores(self, predicted: Mapping[str, Array]) -> dict[str, Score]:
        """Score every predictor."""
        errors = {name: (values - self.labels) ** 2 for name, values in predicted.items()}
        rankers = {name: Ranker(values) for name, values in predicted.items()}
        point = self._measure(np.ones(len(self.labels)), errors, rankers)
        resampled = {name: np.full((self.num_resamples, 2), np.nan) for name in predicted}
        varying = {name: ranker for name, ranker in rankers.items() if ranker.num_values > 1}
        for row, weights in enumerate(self._resamples()):
            for name, values in self._measure(weights, errors, varying).items():
                resampled[name][row] = values
        return {
            name: self._score(errors[name], point[name], resampled[name], resampled["student"])
            for name in predicted
        }

    def _measure(
        self, weights: Array, errors: Mapping[str, Array], rankers: Mapping[str, Ranker]
    ) -> dict[str, tuple[float, float]]:
        """(R^2, Spearman) of each predictor under weights of the pairs; NaN where undefined."""
        truth = self.truth.ranks(weights)
        return {
            name: (
                _r2(errors[name], self.labels, weights),
                correlation(ranker.ranks(weights), truth, weights),
            )
            for name, ranker in rankers.items()
        }

    def _resamples(self) -> Iterator[Array]:
        """Weights of the pairs, (n,): times the candidate was drawn x times the target was."""
        if min(self.sizes[side] for side in self.resampled) < 2:
            return
        rng = np.random.default_rng(stream(self.seed, BOOTSTRAP))
        for _ in range(self.num_resamples):
            weights = np.ones(len(self.labels))
            for side in self.resampled:
                size = self.sizes[side]
                weights *= rng.multinomial(size, np.full(size, 1 / size))[self.ids[side]]
            yield weights

    def _score(
        self, errors: Array, point: tuple[float, float], resampled: Array, student: Array
    ) -> Score:
        mse, variance = float(errors.mean()), self.label_std**2
        return Score(
            mse=mse,
            mse_std=mse / variance if variance > 0 else None,
            r2=or_none(point[0]),
            spearman=or_none(point[1]),
            r2_interval=_interval(resampled[:, 0]),
            spearman_interval=_interval(resampled[:, 1]),
            spearman_lead_interval=(
                None if resampled is student else _interval(student[:, 1] - resampled[:, 1])
            ),
        )


def _r2(errors: Array, labels: Array, weights: Array) -> float:
    """1 - weighted squared error / weighted variance of the labels; NaN when they are equal."""
    total = weights.sum()
    if total == 0:
        return np.nan
    spread = weights @ (labels - weights @ labels / total) ** 2
    # Equal labels keep a spread of rounding only.
    if spread <= 1e-12 * (weights @ labels**2):
        return np.nan
    return float(1 - weights @ errors / spread)


def _interval(resampled: Array) -> Interval | None:
    """The middle 95 %; None when fewer than half of the resamples define the number."""
    finite = resampled[np.isfinite(resampled)]
    if not len(finite) or 2 * len(finite) < len(resampled):
        return None
    low, high = np.quantile(finite, (0.025, 0.975))
    return float(low), float(high)


def _check(
    predicted: Mapping[str, FloatArray],
    labels: FloatArray,
    quadrants: IndexArray,
    pairs: IndexArray,
    training_labels: FloatArray,
) -> None:
    assert "student" in predicted, "who is audited?"
    sizes = {len(values) for values in predicted.values()}
    if sizes != {len(labels)} or not len(labels) == len(quadrants) == len(pairs):
        raise InputError(
            f"the audit got {sorted(sizes)} predictions, {len(labels)} labels, {len(quadrants)} "
            f"quadrants and {len(pairs)} pairs; expected as many of each"
        )
    if not len(training_labels):
        raise InputError("the audit needs the training labels: their mean is its first baseline")
    if len(quadrants) and not 1 <= quadrants.min() <= quadrants.max() <= 4:
        raise InputError(f"quadrants {np.unique(quadrants).tolist()}; expected 1 to 4")
    for name, values in (*predicted.items(), ("labels", labels)):
        if not np.isfinite(values).all():
            raise InputError(f"the audit's {name} hold values that are not finite numbers")


def _rows(values: Mapping[str, Array], rows: NDArray[np.bool_]) -> dict[str, Array]:
    return {name: part[rows] for name, part in values.items()}
