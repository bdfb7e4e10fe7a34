"""The audit: how far the network may be trusted on pairs that it never saw.

`fidelity` measures, `engine.network.verdict` judges. The network stands beside what costs nothing
or next to nothing: the mean of the training labels, zero, the same network fitted on permuted
labels, the cosine of the two embeddings, and a ridge regression on [e_c, e_t]. Pairs share
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

from engine.errors import InputError
from engine.kernels.arrays import DoubleArray as Array
from engine.kernels.arrays import FloatArray, IndexArray
from engine.network.candidate_means import CandidateMeans, candidate_means
from engine.network.ranks import Ranker, correlation, or_none, stream
from engine.network.ridge import Ridge

__all__ = [
    "Fidelity",
    "QuadrantFidelity",
    "Score",
    "fidelity",
]

Interval = tuple[float, float]

GATHER_ROWS = 16384
BOOTSTRAP = 0  # key of a random stream; 1 is the candidate means', 2 the ridge's


@dataclass(frozen=True)
class Score:
    """How well one predictor meets the teacher on one quadrant; None where undefined.

    Attributes:
        mse: mean squared error, in teacher units squared.
        mse_std: the same in variances of the training labels.
        r2: 1 - mse / variance of the quadrant's own labels; 0 is as good as knowing their mean.
        spearman: rank correlation over the pairs.
        r2_interval, spearman_interval: 95 %, candidates and targets resampled.
        spearman_lead_interval: 95 % of (network's Spearman - this predictor's), paired.
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
    ridge_penalty: float
    quadrants: Mapping[int, QuadrantFidelity]
    candidate_means: CandidateMeans | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values; quadrants are keyed "Q1".."Q4"."""
        values = asdict(self)
        values["quadrants"] = {f"Q{q}": quadrant for q, quadrant in values["quadrants"].items()}
        return values


def fidelity(
    predictions: FloatArray,
    labels: FloatArray,
    quadrants: IndexArray,
    pairs: IndexArray,
    candidates: FloatArray,
    targets: FloatArray | None,
    training_pairs: IndexArray,
    training_labels: FloatArray,
    permuted: FloatArray | None = None,
    seed: int = 0,
    num_resamples: int = 1000,
) -> Fidelity:
    """Measure a network on audited pairs, beside its baselines.

    Args:
        predictions: the network's influence of each audited pair, (n,), teacher units.
        labels: the teacher's scores of the same pairs, (n,); never used in training.
        quadrants: 1..4 of each pair, (n,).
        pairs: (n, 2) int, [c, t] row numbers into the embeddings.
        candidates, targets: the embeddings the network read, (C, D) and (T, D) float32; without
            targets there is no cosine, and the ridge reads e_c alone.
        training_pairs, training_labels: (m, 2) and (m,), what the network learned from; the mean,
            the calibration of the cosine and the ridge come from them alone.
        permuted: as predictions, (n,), of a network that was fitted on permuted labels, if any.
        seed: of the bootstrap, the halves and the ridge's held-out candidates: same seed, same
            numbers.
        num_resamples: of the bootstrap.

    Raises InputError for shapes that do not match or values that are not finite.
    Cost: the ridge solves six (2 D)^2 systems, 2 s at D = 1024 on one core; the bootstrap takes
    about 0.06 ms per resample and 1,000 pairs. Memory: a few copies of the embeddings in float64.
    """
    _check(predictions, labels, quadrants, pairs, training_pairs, training_labels)
    known = training_labels.astype(np.float64)
    mean, std = float(known.mean()), float(known.std())
    nothing = np.empty((int(pairs[:, 1].max(initial=0)) + 1, 0), dtype=np.float32)
    sides = (candidates, nothing if targets is None else targets)
    ridge = Ridge.fit(*sides, training_pairs, known, seed)
    predicted = {
        "network": predictions.astype(np.float64),
        "mean": np.full(len(pairs), mean),
        "zero": np.zeros(len(pairs)),
        "ridge": ridge.predict(*sides, pairs),
    }
    if permuted is not None:
        predicted["permuted"] = permuted.astype(np.float64)
    ranked_by = dict(predicted)
    if targets is not None:
        cosine = _cosine(candidates, targets, pairs)
        slope, offset = _calibration(_cosine(candidates, targets, training_pairs), known)
        predicted["cosine"] = slope * cosine + offset
        # Ranks by the raw one: a negative slope would make the baseline look wise after the event.
        ranked_by["cosine"] = cosine
    truth = labels.astype(np.float64)
    measured = {}
    for quadrant in np.unique(quadrants).tolist():
        rows = quadrants == quadrant
        audit = _Audit(truth[rows], pairs[rows], targets is not None, std, seed, num_resamples)
        scores = audit.scores(_rows(predicted, rows), _rows(ranked_by, rows))
        measured[quadrant] = audit.quadrant(quadrant, scores)
    unseen = quadrants >= 3
    means = candidate_means(truth[unseen], pairs[unseen], _rows(ranked_by, unseen), seed)
    return Fidelity(mean, std, ridge.penalty, measured, means)


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

    def scores(
        self, predicted: Mapping[str, Array], ranked_by: Mapping[str, Array]
    ) -> dict[str, Score]:
        """Score every predictor by its values and, for Spearman, by what it ranks by."""
        errors = {name: (values - self.labels) ** 2 for name, values in predicted.items()}
        rankers = {name: Ranker(values) for name, values in ranked_by.items()}
        point = self._measure(np.ones(len(self.labels)), errors, rankers)
        resampled = {name: np.full((self.num_resamples, 2), np.nan) for name in predicted}
        varying = {name: ranker for name, ranker in rankers.items() if ranker.num_values > 1}
        for row, weights in enumerate(self._resamples()):
            for name, values in self._measure(weights, errors, varying).items():
                resampled[name][row] = values
        return {
            name: self._score(errors[name], point[name], resampled[name], resampled["network"])
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
        self, errors: Array, point: tuple[float, float], resampled: Array, network: Array
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
                None if resampled is network else _interval(network[:, 1] - resampled[:, 1])
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


def _cosine(candidates: FloatArray, targets: FloatArray, pairs: IndexArray) -> Array:
    """Cosine of each pair, (n,); 0 for an embedding that is all zeros."""
    cosine = np.empty(len(pairs))
    for start in range(0, len(pairs), GATHER_ROWS):
        part = pairs[start : start + GATHER_ROWS]
        left = np.asarray(candidates[part[:, 0]], dtype=np.float64)
        right = np.asarray(targets[part[:, 1]], dtype=np.float64)
        norms = np.sqrt((left * left).sum(axis=1) * (right * right).sum(axis=1))
        cosine[start : start + GATHER_ROWS] = (left * right).sum(axis=1) / np.where(
            norms > 0, norms, 1.0
        )
    return cosine


def _calibration(cosine: Array, labels: Array) -> tuple[float, float]:
    """Slope and offset of the least-squares line from cosine to label."""
    centred = cosine - cosine.mean()
    spread = centred @ centred
    slope = float(centred @ labels / spread) if spread > 1e-12 * len(cosine) else 0.0
    return slope, float(labels.mean() - slope * cosine.mean())


def _check(
    predictions: FloatArray,
    labels: FloatArray,
    quadrants: IndexArray,
    pairs: IndexArray,
    training_pairs: IndexArray,
    training_labels: FloatArray,
) -> None:
    sizes = (len(predictions), len(labels), len(quadrants), len(pairs))
    if len(set(sizes)) > 1 or len(training_pairs) != len(training_labels):
        raise InputError(
            f"the audit got {sizes} predictions, labels, quadrants and pairs, and "
            f"{len(training_pairs)} training pairs with {len(training_labels)} labels; expected "
            "as many of each"
        )
    if not len(training_labels):
        raise InputError("the audit needs the training labels: its baselines come from them")
    if len(quadrants) and not 1 <= quadrants.min() <= quadrants.max() <= 4:
        raise InputError(f"quadrants {np.unique(quadrants).tolist()}; expected 1 to 4")
    for name, values in (("predictions", predictions), ("labels", labels)):
        if not np.isfinite(values).all():
            raise InputError(f"the audit's {name} hold values that are not finite numbers")


def _rows(values: Mapping[str, Array], rows: NDArray[np.bool_]) -> dict[str, Array]:
    return {name: part[rows] for name, part in values.items()}
