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
import scipy.stats
from numpy.typing import NDArray

from engine.errors import InputError
from engine.kernels.arrays import DoubleArray as Array
from engine.kernels.arrays import FloatArray, IndexArray
from engine.network.ridge import Ridge

__all__ = [
    "CandidateMeans",
    "Fidelity",
    "QuadrantFidelity",
    "Score",
    "fidelity",
]

Interval = tuple[float, float]

NUM_HALVES = 20
TOP_SHARE = 0.3
GATHER_ROWS = 16384
# Keys of the random streams.
BOOTSTRAP, HALVES = range(2)  # 2 is the ridge's


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
class CandidateMeans:
    """What selection uses: each unseen candidate's mean influence over the audited targets.

    Attributes:
        spearman: of each predictor's means with the teacher's.
        p_value: chance of the network's Spearman or more if its order of the candidates were
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
    means = _candidate_means(truth[unseen], pairs[unseen], _rows(ranked_by, unseen), seed)
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
        self.truth = _Ranker(labels)

    def quadrant(self, number: int, scores: Mapping[str, Score]) -> QuadrantFidelity:
        return QuadrantFidelity(number, len(self.labels), self.sizes[0], self.sizes[1], scores)

    def scores(
        self, predicted: Mapping[str, Array], ranked_by: Mapping[str, Array]
    ) -> dict[str, Score]:
        """Score every predictor by its values and, for Spearman, by what it ranks by."""
        errors = {name: (values - self.labels) ** 2 for name, values in predicted.items()}
        rankers = {name: _Ranker(values) for name, values in ranked_by.items()}
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
        self, weights: Array, errors: Mapping[str, Array], rankers: Mapping[str, _Ranker]
    ) -> dict[str, tuple[float, float]]:
        """(R^2, Spearman) of each predictor under weights of the pairs; NaN where undefined."""
        truth = self.truth.ranks(weights)
        return {
            name: (
                _r2(errors[name], self.labels, weights),
                _correlation(ranker.ranks(weights), truth, weights),
            )
            for name, ranker in rankers.items()
        }

    def _resamples(self) -> Iterator[Array]:
        """Weights of the pairs, (n,): times the candidate was drawn x times the target was."""
        if min(self.sizes[side] for side in self.resampled) < 2:
            return
        rng = np.random.default_rng(_stream(self.seed, BOOTSTRAP))
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
            r2=_or_none(point[0]),
            spearman=_or_none(point[1]),
            r2_interval=_interval(resampled[:, 0]),
            spearman_interval=_interval(resampled[:, 1]),
            spearman_lead_interval=(
                None if resampled is network else _interval(network[:, 1] - resampled[:, 1])
            ),
        )


class _Ranker:
    """Ranks of fixed values under changing weights, without sorting again."""

    def __init__(self, values: Array) -> None:
        unique, self.value_ids = np.unique(values, return_inverse=True)
        self.num_values = len(unique)

    def ranks(self, weights: Array) -> Array:
        """Mid-ranks, less 1/2, that each value has when it is repeated `weights` times."""
        mass = np.bincount(self.value_ids, weights, minlength=self.num_values)
        middle: Array = np.cumsum(mass) - mass / 2
        return middle[self.value_ids]


def _candidate_means(
    labels: Array, pairs: IndexArray, ranked_by: Mapping[str, Array], seed: int
) -> CandidateMeans | None:
    if not len(pairs):
        return None
    (_, row_ids), (_, column_ids) = (
        np.unique(pairs[:, side], return_inverse=True) for side in (0, 1)
    )
    num_rows, num_columns = int(row_ids.max()) + 1, int(column_ids.max()) + 1
    truth = _means(labels, row_ids, num_rows)
    spearman = {
        name: _or_none(_spearman(_means(values, row_ids, num_rows), truth))
        for name, values in ranked_by.items()
    }
    rng = np.random.default_rng(_stream(seed, HALVES))
    agreements = []
    for _ in range(NUM_HALVES if num_columns > 1 else 0):
        in_first = (rng.permutation(num_columns) < num_columns // 2)[column_ids]
        first, second = (
            _means(labels[half], row_ids[half], num_rows) for half in (in_first, ~in_first)
        )
        both = np.isfinite(first) & np.isfinite(second)
        agreements.append(_spearman(first[both], second[both]))
    finite = [agreement for agreement in agreements if np.isfinite(agreement)]
    split_half = float(np.mean(finite)) if finite else None
    p_value = None
    if spearman["network"] is not None and num_rows > 2:
        predicted = _means(ranked_by["network"], row_ids, num_rows)
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


def _spearman(first: Array, second: Array) -> float:
    ones = np.ones(len(first))
    return _correlation(_Ranker(first).ranks(ones), _Ranker(second).ranks(ones), ones)


def _correlation(first: Array, second: Array, weights: Array) -> float:
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


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _stream(seed: int, key: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed % 2**64, key])
