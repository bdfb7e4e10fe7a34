"""One trial: draw a sample, fit a network on it, and hold it against all other labels.

The sample is drawn by the sample stage's own functions and the fit is the pipeline's, so what a
study finds holds for a run. Quadrants are judged on pairs that the network did not learn from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.config import NetworkConfig, SampleConfig
from engine.errors import SettingsError
from engine.influence.predict import predict_influence
from engine.kernels.arrays import FloatArray, IndexArray
from engine.network.audit import predictions
from engine.network.ensemble import EnsembleTrainer
from engine.network.fidelity import fidelity
from engine.network.influence_network import InfluenceNetwork
from engine.network.training_set import MIN_LABELS, TrainingSet
from engine.study.data import StudyData
from engine.study.subsets import subset_agreement
from engine.teachers.sample import Draw, design_of, draw_pairs, draw_points

__all__ = ["all_influence", "run_trial", "settings_of_trial"]

PREDICTORS = ("network", "mean", "zero", "cosine", "ridge")
_JUDGED = 3  # key of a random stream: pairs that are judged, the same for all trials of a seed


def run_trial(
    data: StudyData,
    network: NetworkConfig,
    sample: SampleConfig,
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
        network, sample: the settings that are studied.
        unit: of the teacher, "pair" or "point".
        seed: of weights, held-out candidates and judged pairs; and, by turning the order in which
            rows are drawn, of the sample.
        pairs_per_quadrant: judged, at most.
        fractions: v, shares of the candidates to select; adds `overlap v` and `value v`.
        on_epoch: is told epoch and validation loss (or training loss) after each epoch.
        on_ranking: is given the candidates selected for the largest v, in the order of their gain;
            the first of them are the subset for any smaller v.
    """
    draw = _draw(data, sample, unit, seed)
    learned = draw.quadrant == 0
    known = np.isfinite(data.labels[draw.candidates, draw.targets])
    pairs = np.stack([draw.candidates, draw.targets], axis=1)[learned & known]
    if len(pairs) < MIN_LABELS:
        raise SettingsError(f"{len(pairs)} labels are too few to learn from: raise sample.fraction")
    targets = np.asarray(data.targets) if data.pairwise else None
    training = TrainingSet(
        np.asarray(data.candidates), targets, pairs, data.labels[pairs[:, 0], pairs[:, 1]]
    )
    started = time.process_time()
    torch.set_num_threads(1)
    trainer = EnsembleTrainer(training, network, seed)
    while not trainer.done:
        loss = trainer.train_epoch()
        if on_epoch is not None:
            on_epoch(trainer.epochs, loss.train if loss.validation is None else loss.validation)
    fitted = trainer.result()
    row: dict[str, Any] = {
        "labels": len(pairs),
        "asked_candidates": len(np.unique(draw.candidates[learned])),
        "asked_targets": len(np.unique(draw.targets[learned])),
        "parameters": sum(p.numel() for p in fitted.parameters()),
        "epochs": trainer.epochs,
        "fit_cpu_s": time.process_time() - started,
    }
    row |= _judge(data, training, fitted, seed, pairs_per_quadrant)
    if fractions:
        found, ranking = subset_agreement(data, all_influence(data, fitted), fractions, seed)
        row |= found
        if on_ranking is not None:
            on_ranking(ranking)
    return row


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
    data: StudyData, training: TrainingSet, fitted: InfluenceNetwork, seed: int, count: int
) -> dict[str, Any]:
    pairs, quadrants = _judged_pairs(data, training.pairs, seed, count)
    labels = data.labels[pairs[:, 0], pairs[:, 1]]
    found = fidelity(
        predictions=predictions(fitted, training, pairs),
        labels=np.asarray(labels),
        quadrants=quadrants,
        pairs=pairs,
        candidates=training.candidates,
        targets=training.targets,
        training_pairs=training.pairs,
        training_labels=training.labels,
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


def all_influence(data: StudyData, fitted: InfluenceNetwork) -> FloatArray:
    """Predicted influence (M, N)."""
    candidates = np.array(data.candidates)  # torch wants to own what it reads
    if not data.pairwise:
        with torch.no_grad():
            column: FloatArray = fitted(torch.from_numpy(candidates)).numpy()
        return column[:, None]
    if fitted.factorises:
        return np.asarray(predict_influence(fitted, candidates, np.asarray(data.targets)))
    pieces = []
    targets = torch.from_numpy(np.array(data.targets))
    with torch.no_grad():
        for row in torch.from_numpy(candidates):
            pieces.append(fitted(row.expand(len(targets), -1), targets).numpy())
    return np.stack(pieces)


def settings_of_trial(
    values: Mapping[str, Any], network: NetworkConfig, sample: SampleConfig
) -> tuple[NetworkConfig, SampleConfig]:
    """The settings with those of a trial, by dotted names below `network.` and `sample.`."""
    sections: dict[str, dict[str, Any]] = {"network": {}, "sample": {}}
    for name, value in values.items():
        section, _, key = name.partition(".")
        sections[section][key] = list(value) if isinstance(value, tuple) else value
    # what a preset fills in depends on the shape, so it is filled in anew
    everything = network.model_dump(mode="json")
    preset = NetworkConfig.model_validate({"preset": network.preset}).model_dump(mode="json")
    given = {name: value for name, value in everything.items() if value != preset[name]}
    given["preset"] = network.preset
    return (
        NetworkConfig.model_validate({**given, **sections["network"]}),
        SampleConfig.model_validate({**sample.model_dump(mode="json"), **sections["sample"]}),
    )
