"""`student.name: auto`: which student predicts candidates best that it has not seen.

The labelled candidates are cut into folds; every contender learns from all but one and predicts
that one. What is compared is what selection uses of a prediction: the order of the candidates
within a target, and their order by mean influence. The audit's rows take no part.

A few dozen candidates tell two orders hardly apart, and what learned nothing is ahead by luck as
often as not. So contenders have an order of preference, and the first one is taken that is not
significantly worse than the best: by no more than two standard errors, from a jackknife of the
difference over groups of candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from engine.components import component_names
from engine.config import NetworkConfig, StudentConfig
from engine.config.facts import STUDENTS
from engine.errors import InputError, SettingsError
from engine.kernels.arrays import FloatArray, IndexArray
from engine.kernels.ranks import order_within_targets
from engine.network.training_set import TrainingSet
from engine.students.network import TrainedStudent
from engine.students.student import Student, student_class, students_for

__all__ = ["Choice", "Contender", "choose", "fit_student", "prepared"]

LABEL_FORMS = ("raw", "clipped", "ranks")
_CLIPPED = 0.02  # share of the labels at either end
# Labelled candidates that contenders are compared on: more would tell them no better apart.
MAX_CANDIDATES = 2048
_FOLDS = 6  # key of a random stream
_GROUPS = 20  # of the jackknife
_SURELY = 2.0  # standard errors


@dataclass(frozen=True)
class Contender:
    """How one contender did on candidates that it had not seen.

    Attributes:
        student: its name.
        labels: what it learned of single pairs: raw, clipped, ranks.
        within: Spearman of predictions with answers, both less their target's mean.
        means: Spearman of the candidates' means; for a teacher of rows `within` again.
        behind: how much its score, the mean of both, is below the best one's, and the standard
            error of that.
    """

    student: str
    labels: str
    within: float
    means: float
    behind: tuple[float, float] = (0.0, 0.0)

    @property
    def score(self) -> float:
        """What contenders are compared by."""
        return (self.within + self.means) / 2


@dataclass(frozen=True)
class Choice:
    """What is fitted, and why: all contenders, the highest score first; none without a choice."""

    student: str
    labels: str
    contenders: tuple[Contender, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        rows = [{**asdict(one), "score": one.score} for one in self.contenders]
        return {"student": self.student, "labels": self.labels, "contenders": rows}


def choose(data: TrainingSet, settings: StudentConfig, network: NetworkConfig, seed: int) -> Choice:
    """The student for some answers, as named or, with `auto`, by cross-fit; on one thread of BLAS.

    Cost: `settings.folds` fits of every contender; the labels of MAX_CANDIDATES candidates at
    most. Raises InputError when a named student cannot learn from such answers, and SettingsError
    when none of the contenders can.
    """
    with threadpool_limits(1, user_api="blas"):  # sums depend on how many there are
        return _choose(data, settings, network, seed)


def _choose(
    data: TrainingSet, settings: StudentConfig, network: NetworkConfig, seed: int
) -> Choice:
    if settings.name != "auto":
        kind = student_class(settings.name)
        _refuse(kind, data)
        forms = _label_forms(kind, data, settings)
        if len(forms) == 1:
            return Choice(settings.name, forms[0], ())
    names = (settings.name,) if settings.name != "auto" else settings.contenders
    kinds = students_for(data, names or _default_contenders(data))
    if not kinds:
        raise SettingsError(
            f"student.contenders: none of {', '.join(names or ())} can learn from what this "
            "teacher answers; leave it out, or add kernel"
        )
    folds = _folds(data, settings.folds, seed)
    if folds is None:  # too few to hold out any: the plainest, which has least to learn
        return Choice(kinds[-1].name, "raw", ())
    tried: list[_Tried] = []
    for kind in sorted(kinds, key=lambda kind: issubclass(kind, TrainedStudent)):  # the dear ones
        forms = _label_forms(kind, data, settings)
        if issubclass(kind, TrainedStudent) and tried:  # on what served the others best
            others = [one for one in tried if one.form in forms]
            if others:
                forms = (max(others, key=lambda one: one.score).form,)
        tried += [_Tried.of(kind, form, data, folds, settings, network, seed) for form in forms]
    return _chosen(tried, data, [kind.name for kind in kinds])


def _chosen(tried: list[_Tried], data: TrainingSet, preferred: Sequence[str]) -> Choice:
    """The first in the order of preference that is not significantly worse than the best."""
    best = max(tried, key=lambda one: one.score)
    judged = [(one, _behind(one, best, data)) for one in tried]
    in_order = sorted(
        judged, key=lambda pair: (preferred.index(pair[0].name), LABEL_FORMS.index(pair[0].form))
    )
    # not significantly worse than the best, nor than the cosine, from which it may differ clearer
    yardsticks = [one for one in tried if one.name == "cosine"]
    taken = next(
        one
        for one, behind in in_order
        if not any(
            by > _SURELY * error
            for by, error in (behind, *(_behind(one, other, data) for other in yardsticks))
        )
    )
    contenders = tuple(
        Contender(one.name, one.form, one.within, one.means, behind)
        for one, behind in sorted(judged, key=lambda pair: -pair[0].score)
    )
    return Choice(taken.name, taken.form, contenders)


def _behind(one: _Tried, best: _Tried, data: TrainingSet) -> tuple[float, float]:
    """By how much the score of one is below the best, and the standard error of that."""
    if one is best:
        return 0.0, 0.0
    ids = np.unique(data.pairs[np.isfinite(one.predicted), 0])
    groups = min(_GROUPS, len(ids))
    group_of = np.searchsorted(ids, data.pairs[:, 0]) % groups  # ids are those of a hash order
    differences = []
    for number in range(groups):
        kept = group_of != number
        differences.append(best.score_of(data, kept) - one.score_of(data, kept))
    spread = np.square(np.array(differences) - np.mean(differences)).sum()
    return best.score - one.score, float(np.sqrt((groups - 1) / groups * spread))


def fit_student(
    name: str,
    labels: str,
    data: TrainingSet,
    settings: StudentConfig,
    network: NetworkConfig,
    seed: int,
) -> Student:
    """Fit one student to the answers, in this process, on one thread of BLAS."""
    with threadpool_limits(1, user_api="blas"):
        return student_class(name).learn(prepared(data, labels), settings, network, seed)


def prepared(data: TrainingSet, labels: str) -> TrainingSet:
    """The answers as they are learned: raw, clipped, or as ranks.

    Ranks are normal scores with the mean and the spread of the clipped labels, so that what is
    predicted stays in about the teacher's units.
    """
    if labels == "raw":
        return data
    low, high = np.quantile(data.labels, (_CLIPPED, 1 - _CLIPPED))
    clipped = np.clip(data.labels, low, high)
    if labels == "ranks":
        import scipy.stats  # takes more than a second: not in every process

        places = (scipy.stats.rankdata(data.labels) - 0.5) / len(data.labels)
        clipped = scipy.stats.norm.ppf(places) * clipped.std() + clipped.mean()
    return replace(data, labels=clipped.astype(np.float32))


def _refuse(kind: type[Student], data: TrainingSet) -> None:
    if kind.learns_from(data):
        return
    why = "they are not of its kind"
    if kind.needs_targets and not data.pairwise:
        why = "this teacher scores rows, not pairs"
    elif kind.needs_vectors:
        why = "this teacher's score of a pair is no similarity of two vectors"
    elif kind.needs_text:
        why = "the texts' embeddings are not among the features"
    raise InputError(f"student {kind.name} cannot learn from these answers: {why}; use auto")


def _default_contenders(data: TrainingSet) -> list[str]:
    """The engine's own in the order of preference, by benchmarks/results/students.md."""
    kinds = [student_class(name) for name in component_names(STUDENTS, installed=False)]
    known = [kind for kind in kinds if kind.preference is not None and kind.contends(data)]
    return [kind.name for kind in sorted(known, key=lambda kind: kind.preference or 0)]


def _label_forms(
    kind: type[Student], data: TrainingSet, settings: StudentConfig
) -> tuple[str, ...]:
    """What a student may learn of the labels: a choice where they are of single pairs."""
    if not kind.learns_label_forms or not data.pairwise or data.block() is not None:
        return ("raw",)
    return LABEL_FORMS if settings.labels == "auto" else (settings.labels,)


def _folds(data: TrainingSet, count: int, seed: int) -> list[IndexArray] | None:
    """Candidates by fold, (m,) row numbers each; None with fewer than two for each."""
    ids = np.unique(data.pairs[:, 0])
    stream = np.random.SeedSequence([seed % 2**64, _FOLDS])
    order = ids[np.random.default_rng(stream).permutation(len(ids))][:MAX_CANDIDATES]
    if len(order) < 2 * count:
        return None
    return [np.sort(order[number::count]) for number in range(count)]


@dataclass(frozen=True)
class _Tried:
    """A contender's predictions (n,) of labels whose candidates it had not seen, NaN elsewhere."""

    name: str
    form: str
    predicted: FloatArray
    fold_of: IndexArray
    within: float
    means: float

    @property
    def score(self) -> float:
        return (self.within + self.means) / 2

    def score_of(self, data: TrainingSet, kept: NDArray[np.bool_]) -> float:
        """The score on some of the labels alone."""
        return sum(_orders(self.predicted, self.fold_of, data, kept)) / 2

    @classmethod
    def of(
        cls,
        kind: type[Student],
        form: str,
        data: TrainingSet,
        folds: Sequence[IndexArray],
        settings: StudentConfig,
        network: NetworkConfig,
        seed: int,
    ) -> _Tried:
        """Each fold as the others predict it; of a network one fit, see `held_out`."""
        predicted = np.full(len(data.labels), np.nan, np.float32)
        fold_of = np.zeros(len(data.labels), np.int64)
        everyone = np.sort(np.concatenate(folds))
        by_members = network.members > 1 and network.validation_fraction > 0
        if issubclass(kind, TrainedStudent) and by_members:
            known = np.flatnonzero(np.isin(data.pairs[:, 0], everyone))
            some = prepared(data.of_candidates(everyone), form)
            rows, values, numbers = kind.held_out(some, settings, network, seed)
            predicted[known[rows]], fold_of[known[rows]] = values, numbers
        else:
            for number, fold in enumerate(folds):
                rest = data.of_candidates(np.setdiff1d(everyone, fold))
                student = kind.learn(prepared(rest, form), settings, network, seed)
                rows = np.flatnonzero(np.isin(data.pairs[:, 0], fold))
                sides = data.candidates, targets_of(data, student)
                predicted[rows] = student.predict_pairs(*sides, data.pairs[rows])
                fold_of[rows] = number
        everything = np.ones(len(predicted), bool)
        orders = _orders(predicted, fold_of, data, everything)
        return cls(kind.name, form, predicted, fold_of, *orders)


def _orders(
    predicted: FloatArray, fold_of: IndexArray, data: TrainingSet, kept: NDArray[np.bool_]
) -> tuple[float, float]:
    """Order within targets and of means, both less the mean of their target *in their fold*.

    Compared across folds a student that learns what a target is worth would look worse than one
    that learns nothing: where the labels held out are high those it learned from are low.
    """
    rows = np.flatnonzero(kept & np.isfinite(predicted))
    c, t = data.pairs[rows].T
    _, blocks, sizes = np.unique(
        fold_of[rows] * len(data.labels) + t, return_inverse=True, return_counts=True
    )
    several = sizes[blocks] > 1  # of a single one nothing is left
    rows, pairs = rows[several], np.stack([c, blocks], axis=1)[several]
    return order_within_targets(predicted[rows], data.labels[rows], pairs)


def targets_of(data: TrainingSet, student: Student) -> FloatArray | None:
    """What a student reads of the targets: their features or the teacher's vectors."""
    return data.target_vectors if student.reads_target_vectors else data.targets


def others_of(choice: Mapping[str, Any]) -> list[str]:
    """Contenders that lost, by name."""
    names = [one["student"] for one in choice["contenders"]]
    return list(dict.fromkeys(name for name in names if name != choice["student"]))
