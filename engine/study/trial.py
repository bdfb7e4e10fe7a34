"""One trial: draw a sample, fit a student on it, and hold it against all other labels.

The sample is drawn by the sample stage's own functions and the fit is the pipeline's, so what a
study finds holds for a run. Quadrants are judged on pairs that the student did not learn from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.audit.audit import training_part
from engine.audit.fidelity import fidelity
from engine.config import FeatureName, NetworkConfig, SampleConfig, StudentConfig
from engine.errors import SettingsError
from engine.influence.predict import predict_influence
from engine.kernels.arrays import FloatArray, IndexArray
from engine.kernels.ranks import order_within_targets
from engine.network.ensemble import EnsembleTrainer
from engine.network.training_set import MIN_LABELS, TrainingSet
from engine.students.choice import (
    Choice,
    choose,
    fit_student,
    prepared,
    targets_of,
)
from engine.students.network import NetworkStudent, TrainedStudent
from engine.students.student import ProductStudent, Student, student_class
from engine.study.data import StudyData
from engine.study.subsets import subset_agreement
from engine.teachers.designs import Draw, design_of, draw_pairs, draw_points

__all__ = ["TrialSettings", "all_influence", "run_trial", "settings_of_trial"]

PREDICTORS = ("student", "mean", "zero", "cosine", "linear")
_JUDGED = 3  # key of a random stream: pairs that are judged, the same for all trials of a seed


@dataclass(frozen=True)
class TrialSettings:
    """What a trial tries: the sections of the settings, and what students read."""

    student: StudentConfig
    network: NetworkConfig
    sample: SampleConfig
    features: tuple[FeatureName, ...]


def run_trial(
    data: StudyData,
    settings: TrialSettings,
    unit: str,
    seed: int,
    pairs_per_quadrant: int = 1_000,
    fractions: tuple[float, ...] = (),
    on_epoch: Callable[[int, float], None] | None = None,
    on_ranking: Callable[[IndexArray], None] | None = None,
) -> dict[str, Any]:
    """Fit and judge; returns one flat row of numbers, None where something is not defined.

    Args:
        data: of the study.
        settings: what is studied.
        unit: of the teacher, "pair" or "point".
        seed: of weights, held-out candidates and judged pairs; and, by turning the order in which
            rows are drawn, of the sample.
        pairs_per_quadrant: judged, at most.
        fractions: v, shares of the candidates to select; adds `overlap v` and `value v`.
        on_epoch: is told epoch and validation loss (or training loss) of a network after each.
        on_ranking: is given the candidates selected for the largest v, in the order of their gain;
            the first of them are the subset for any smaller v.
    """
    draw = _draw(data, settings.sample, unit, seed)
    learned = draw.quadrant == 0
    known = np.isfinite(data.labels[draw.candidates, draw.targets])
    pairs = np.stack([draw.candidates, draw.targets], axis=1)[learned & known]
    if len(pairs) < MIN_LABELS:
        raise SettingsError(f"{len(pairs)} labels are too few to learn from: raise sample.fraction")
    everything = _all_answers(data, settings.features, pairs)
    training = training_part(everything, np.ones(len(pairs), bool))
    student = settings.student
    if data.pairwise and len(np.unique(pairs[:, 1])) < data.labels.shape[1]:
        # as the fit stage has it: exact answers and predictions do not compete
        student = student.model_copy(update={"targets": "student"})
    started = time.process_time()
    torch.set_num_threads(1)
    choice = choose(training, student, settings.network, seed)
    fitted, epochs = _fitted(training, choice, student, settings.network, seed, on_epoch)
    row: dict[str, Any] = {
        "labels": len(pairs),
        "asked_candidates": len(np.unique(draw.candidates[learned])),
        "asked_targets": len(np.unique(draw.targets[learned])),
        "chosen": choice.student,
        "parameters": fitted.num_parameters,
        "epochs": epochs,
        "fit_cpu_s": time.process_time() - started,
    }
    students = {"student": fitted}
    for name in ("cosine", "linear"):
        if student_class(name).learns_from(training):
            students[name] = fit_student(name, "raw", training, student, settings.network, seed)
    row |= _judge(data, everything, training.labels, students, seed, pairs_per_quadrant)
    if fractions:
        influence = all_influence(everything, fitted)
        found, ranking = subset_agreement(data, influence, fractions, seed)
        row |= found
        if on_ranking is not None:
            on_ranking(ranking)
    return row


def _all_answers(
    data: StudyData, features: Sequence[FeatureName], pairs: NDArray[np.int64]
) -> TrainingSet:
    """Labels of some pairs, with the features and the vectors of all rows."""
    candidates, targets = data.features(features)
    vectors = [data.candidate_vectors, data.target_vectors]
    return TrainingSet(
        candidates,
        targets,
        pairs,
        np.asarray(data.labels[pairs[:, 0], pairs[:, 1]]),
        text_dim=data.candidates.shape[1] if "text" in features else 0,
        candidate_vectors=None if vectors[0] is None else np.asarray(vectors[0]),
        target_vectors=None if vectors[1] is None else np.asarray(vectors[1]),
    )


def _fitted(
    training: TrainingSet,
    choice: Choice,
    student: StudentConfig,
    network: NetworkConfig,
    seed: int,
    on_epoch: Callable[[int, float], None] | None,
) -> tuple[Student, int]:
    """The student that was chosen, and the epochs that it took."""
    kind = student_class(choice.student)
    if not issubclass(kind, TrainedStudent):
        found = fit_student(choice.student, choice.labels, training, student, network, seed)
        return found, 0
    known = kind.training_set(prepared(training, choice.labels))
    trainer = EnsembleTrainer(known, kind.training_settings(student, network), seed)
    while not trainer.done:
        loss = trainer.train_epoch()
        if on_epoch is not None:
            on_epoch(trainer.epochs, loss.train if loss.validation is None else loss.validation)
    return kind.of_network(trainer.result(), training, student), trainer.epochs


def _draw(data: StudyData, sample: SampleConfig, unit: str, seed: int) -> Draw:
    """The sample of a seed: hashes turned by it are as uniform as before, and another order."""
    sides = data.sides(design_of(sample, unit) == "stratified")  # type: ignore[arg-type]
    turn = np.random.default_rng(seed).integers(2**63, dtype=np.uint64) if seed else np.uint64(0)
    first, second = (
        type(side)(side.hashes * np.uint64(2 * int(turn) + 1 & (2**64 - 1)), side.strata)
        for side in sides
    )
    if not data.pairwise:
        return draw_points(first, sample)
    return draw_pairs(first, second, sample, unit)  # type: ignore[arg-type]


def _judge(
    data: StudyData,
    everything: TrainingSet,
    training_labels: FloatArray,
    students: Mapping[str, Student],
    seed: int,
    count: int,
) -> dict[str, Any]:
    pairs, quadrants = _judged_pairs(data, everything.pairs, seed, count)
    labels = np.asarray(data.labels[pairs[:, 0], pairs[:, 1]])
    predicted = {
        name: student.predict_pairs(everything.candidates, targets_of(everything, student), pairs)
        for name, student in students.items()
    }
    found = fidelity(
        predicted=predicted,
        labels=labels,
        quadrants=quadrants,
        pairs=pairs,
        training_labels=training_labels,
        pairwise=data.pairwise,
        seed=seed,
        num_resamples=2,  # seeds of the study give the spread
    )
    # in variances of all labels: those of a sample's own differ from trial to trial
    row: dict[str, Any] = {"label_std": float(np.nanstd(data.labels))}
    variance = row["label_std"] ** 2
    for quadrant, judged in found.quadrants.items():
        for name in PREDICTORS:
            if name in judged.scores:
                score = judged.scores[name]
                for measure in ("mse", "r2", "spearman"):
                    row[f"q{quadrant} {name} {measure}"] = getattr(score, measure)
                row[f"q{quadrant} {name} mse_std"] = score.mse / variance if variance else None
    # of candidates that were not asked about, whatever is known of their targets
    last = max(found.quadrants)
    for name, values in predicted.items():
        for measure in ("mse_std", "r2", "spearman"):
            row[f"unseen {name} {measure}"] = row.get(f"q{last} {name} {measure}")
        unseen = quadrants == last
        within, means = order_within_targets(values[unseen], labels[unseen], pairs[unseen])
        row[f"unseen {name} within"], row[f"unseen {name} means"] = within, means
    return row


def _judged_pairs(
    data: StudyData, learned: NDArray[np.int64], seed: int, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Random pairs of each quadrant that were not learned from, and their quadrants."""
    num_candidates, num_targets = data.labels.shape
    seen_c = np.isin(np.arange(num_candidates), learned[:, 0])
    seen_t = np.isin(np.arange(num_targets), learned[:, 1])
    free = np.isfinite(data.labels)
    free[learned[:, 0], learned[:, 1]] = False
    chooser = np.random.default_rng([seed, _JUDGED])
    pieces, quadrants = [], []
    sides = {1: (seen_c, seen_t), 2: (seen_c, ~seen_t), 3: (~seen_c, seen_t), 4: (~seen_c, ~seen_t)}
    if not data.pairwise:
        sides = {4: (~seen_c, seen_t)}
    for quadrant, (of_c, of_t) in sides.items():
        found = np.argwhere(free & of_c[:, None] & of_t[None, :])
        if len(found) >= 2:
            drawn = found[np.sort(chooser.permutation(len(found))[:count])]
            pieces.append(drawn)
            quadrants.append(np.full(len(drawn), quadrant))
    return np.concatenate(pieces).astype(np.int64), np.concatenate(quadrants).astype(np.int64)


def all_influence(everything: TrainingSet, fitted: Student) -> FloatArray:
    """Predicted influence (M, N) of all rows of both sides."""
    candidates, targets = everything.candidates, targets_of(everything, fitted)
    if isinstance(fitted, ProductStudent):
        columns = np.ones((1, 1), np.float32) if targets is None else targets
        return np.asarray(predict_influence(fitted, candidates, columns))
    assert isinstance(fitted, NetworkStudent), "there is no third kind"
    network = fitted.network
    if targets is not None and network.factorises:
        return np.asarray(predict_influence(network, candidates, targets))
    num_targets = 1 if targets is None else len(targets)
    pairs = np.stack(
        [
            np.repeat(np.arange(len(candidates)), num_targets),
            np.tile(np.arange(num_targets), len(candidates)),
        ],
        axis=1,
    )
    return fitted.predict_pairs(candidates, targets, pairs).reshape(-1, num_targets)


def settings_of_trial(values: Mapping[str, Any], settings: TrialSettings) -> TrialSettings:
    """The settings with those of a trial, by dotted name below `student.`, `network.`, `sample.`;
    `features` as a whole.
    """
    sections: dict[str, dict[str, Any]] = {"network": {}, "sample": {}, "student": {}}
    features = settings.features
    for name, value in values.items():
        section, _, key = name.partition(".")
        if section == "features":
            features = tuple(value)
            continue
        sections[section][key] = list(value) if isinstance(value, tuple) else value
    # what a preset fills in depends on the shape, so it is filled in anew
    network = settings.network
    everything = network.model_dump(mode="json")
    preset = NetworkConfig.model_validate({"preset": network.preset}).model_dump(mode="json")
    given = {name: value for name, value in everything.items() if value != preset[name]}
    given["preset"] = network.preset
    return TrialSettings(
        StudentConfig.model_validate(
            {**settings.student.model_dump(mode="json"), **sections["student"]}
        ),
        NetworkConfig.model_validate({**given, **sections["network"]}),
        SampleConfig.model_validate(
            {**settings.sample.model_dump(mode="json"), **sections["sample"]}
        ),
        features,
    )
