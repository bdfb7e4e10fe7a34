"""The audit: how far a student may be trusted on pairs that it never saw.

`fidelity` measures, `engine.audit.verdict` judges. The student stands beside what costs nothing or
next to nothing: the mean of the training labels, zero, itself fitted on answers that were dealt out
anew among the candidates, and the other students, the cosine and the ridge among them.

Selection compares candidates, for one target or over all. Over raw pairs the targets' levels drown
that: who knows only how high each target scores has a high Spearman there and knows of candidates
nothing. So what is judged is measured *within* targets: predictions and labels each less the mean
that they have over the audited candidates of the target. Where a target has one audited candidate
nothing is left of it, so such pairs have no part. Of a teacher of rows, which has no targets, these
are the plain measures.

Pairs share candidates and targets, so they are not independent: intervals resample both sides (the
pigeonhole bootstrap; Owen 2007, The Annals of Applied Statistics 1).

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

__all__ = [
    "Fidelity",
    "QuadrantFidelity",
    "Score",
    "fidelity",
]

BOOTSTRAP = 0  # key of a random stream; those of the candidate means are theirs


@dataclass(frozen=True)
class Score:
    """How well one predictor meets the teacher on one quadrant; None where undefined.

    Attributes:
        mse: mean squared error, in teacher units squared.
        mse_std: the same in variances of the training labels.
        r2: 1 - mse / variance of the quadrant's own labels, over the raw pairs.
        spearman: rank correlation over the raw pairs.
        within: Spearman within targets.
        within_r2: R^2 within targets; 0 is as good as knowing each target's mean.
        within_interval, within_r2_interval: at the audit's confidence.
        within_lead_interval: 95 % of (student's `within` - this predictor's), paired.
    """

    mse: float
    mse_std: float | None
    r2: float | None
    spearman: float | None
    within: float | None
    within_r2: float | None
    within_interval: Interval | None
    within_r2_interval: Interval | None
    within_lead_interval: Interval | None


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
    """The whole audit; `to_dict` gives JSON without NaN.

    `confidence` is that of the intervals of single measures; leads are at 95 %.
    """

    pairwise: bool
    confidence: float
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
    confidence: float = 0.95,
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
        confidence: of the intervals of single measures.

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
        audit = _Audit(truth[rows], pairs[rows], pairwise, seed, num_resamples, confidence)
        scores = audit.scores(_rows(values, rows), std)
        num_candidates, num_targets = (len(np.unique(pairs[rows, side])) for side in (0, 1))
        measured[quadrant] = QuadrantFidelity(
            quadrant, int(rows.sum()), num_candidates, num_targets, scores
        )
    unseen = quadrants >= 3
    means = candidate_means(
        truth[unseen], pairs[unseen], _rows(values, unseen), seed, num_resamples, confidence
    )
    return Fidelity(pairwise, confidence, mean, std, measured, means)


class _Audit:
    """The pairs of one quadrant, what is left of them within targets, and their resamples."""

    def __init__(
        self,
        labels: Array,
        pairs: IndexArray,
        pairwise: bool,
        seed: int,
        num_resamples: int,
        confidence: float,
    ) -> None:
        self.labels = labels
        _, of_target, counts = np.unique(pairs[:, 1], return_inverse=True, return_counts=True)
        self.kept = counts[of_target] > 1
        self.ids = [np.unique(pairs[self.kept, side], return_inverse=True)[1] for side in (0, 1)]
        self.sizes = [int(ids.max(initial=-1)) + 1 for ids in self.ids]
        self.pairwise, self.resampled = pairwise, (0, 1) if pairwise else (0,)
        self.seed, self.num_resamples, self.confidence = seed, num_resamples, confidence
        # Centred once: a resample weighs what is left of the pairs and not the targets' levels.
        self.within = self._within(labels)
        self.truth = Ranker(self.within)

    def _within(self, values: Array) -> Array:
        kept = values[self.kept]
        # of rows alone levels are part of what is learned: there is no target to have them
        return centred(kept, self.ids[1]) if self.pairwise else kept

    def scores(self, predicted: Mapping[str, Array], label_std: float) -> dict[str, Score]:
        """Score every predictor."""
        within = {name: self._within(values) for name, values in predicted.items()}
        errors = {name: (values - self.within) ** 2 for name, values in within.items()}
        rankers = {name: Ranker(values) for name, values in within.items()}
        point = self._measure(np.ones(len(self.within)), errors, rankers)
        resampled = {name: np.full((self.num_resamples, 2), np.nan) for name in predicted}
        varying = {name: ranker for name, ranker in rankers.items() if ranker.num_values > 1}
        for row, weights in enumerate(self._resamples()):
            for name, values in self._measure(weights, errors, varying).items():
                resampled[name][row] = values
        return {
            name: self._score(values, label_std, point[name], resampled[name], resampled["student"])
            for name, values in predicted.items()
        }

    def _measure(
        self, weights: Array, errors: Mapping[str, Array], rankers: Mapping[str, Ranker]
    ) -> dict[str, tuple[float, float]]:
        """(R^2, Spearman) of each predictor under weights of the pairs; NaN where undefined."""
        truth = self.truth.ranks(weights)
        return {
            name: (
                _r2(errors[name], self.within, weights),
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
            weights = np.ones(len(self.within))
            for side in self.resampled:
                size = self.sizes[side]
                weights *= rng.multinomial(size, np.full(size, 1 / size))[self.ids[side]]
            yield weights

    def _score(
        self,
        predicted: Array,
        label_std: float,
        point: tuple[float, float],
        resampled: Array,
        student: Array,
    ) -> Score:
        errors = (predicted - self.labels) ** 2
        mse, variance = float(errors.mean()), label_std**2
        return Score(
            mse=mse,
            mse_std=mse / variance if variance > 0 else None,
            r2=or_none(_r2(errors, self.labels, np.ones(len(errors)))),
            spearman=or_none(rank_correlation(predicted, self.labels)),
            within=or_none(point[1]),
            within_r2=or_none(point[0]),
            within_interval=middle_of(resampled[:, 1], self.confidence),
            within_r2_interval=middle_of(resampled[:, 0], self.confidence),
            within_lead_interval=(
                None if resampled is student else middle_of(student[:, 1] - resampled[:, 1])
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
