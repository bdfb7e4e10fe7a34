"""Fit: the InfluenceNetwork on the teacher's labels, and the audit of how well it learned them.

A teacher that was asked about everything needs no network; the stage then only says so.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from engine.actors import run_task
from engine.artifact_rows import VectorParts, target_side
from engine.config import NetworkConfig
from engine.errors import InputError
from engine.kernels.arrays import FloatArray
from engine.network.fidelity import fidelity
from engine.network.fit import fit_network, fit_on_ray
from engine.network.influence_network import InfluenceNetwork
from engine.network.training_set import MIN_LABELS, TrainingSet
from engine.network.verdict import verdict
from engine.run_directory import Artifact, atomic_path, digest, finish_part, write_json
from engine.stage import StageContext, StageResult

__all__ = ["run"]

# The permuted-label baseline learns from no more labels than this: it is there to fail.
PERMUTED_LABELS = 20_000
_NOT_AUDITED: dict[str, Any] = {
    "trusted": False,
    "remarks": [],
    "judged_quadrant": None,
    "shares": {},
    "quadrants": {},
}


def run(context: StageContext) -> StageResult:
    """Fit by Ray Train and audit in a worker.

    Too few labels to learn from give the constant network, the mean of what there is, and a
    verdict that says so.
    """
    if context.inputs["sample"].counts["everything"]:
        return _no_network(context)
    settings, seed = context.config.network, context.config.seed
    pairwise = context.inputs["sample"].counts["pairwise"]
    data_dir = context.directory / "training"
    data_dir.mkdir(exist_ok=True)
    inputs = (context.inputs["embed"], context.inputs["score"])
    num_labels = run_task(_write_training_set, *inputs, pairwise, data_dir)
    path = context.directory / "network.safetensors"
    if num_labels < MIN_LABELS:
        history = run_task(_write_constant, data_dir, settings, path)
    else:
        # Ray Train goes on with an unfinished fit of the same name: it must be of the same data
        fit_of = [artifact.fingerprint for artifact in inputs]
        name = f"fit-{digest(settings.model_dump(mode='json'), seed, fit_of)}"
        storage = context.directory / "ray-train"
        history = fit_on_ray(data_dir, path, settings, seed, storage, name).to_dict()
    write_json(context.directory / "history.json", history)
    audit_path = context.directory / "fidelity.json"
    counts = run_task(_audit, *inputs, path, pairwise, settings, seed, audit_path)
    files = {"network": path, "history": context.directory / "history.json", "fidelity": audit_path}
    return StageResult(
        parts={group: [finish_part(context.directory, file, 1)] for group, file in files.items()},
        counts={
            "training_labels": num_labels,
            "parameters": history["num_parameters"],
            "epochs": history["epochs"],
            **counts,
        },
        columns={
            "network.safetensors": "weights, label_mean and label_std; shape in its metadata",
            "fidelity.json": "scores per quadrant, in teacher units, and the verdict",
        },
    )


def _no_network(context: StageContext) -> StageResult:
    path = context.directory / "fidelity.json"
    num_labels = context.inputs["score"].counts["pairs"]
    reason = "no network was needed: the teacher itself was asked about everything"
    write_json(path, {**_NOT_AUDITED, "trusted": True, "reasons": [reason]})
    return StageResult(
        parts={"fidelity": [finish_part(context.directory, path, 1)]},
        counts={"training_labels": num_labels, "parameters": 0, "epochs": 0, "trusted": True},
        columns={"fidelity.json": "why nothing was audited"},
    )


# --- the training set ----------------------------------------------------------------------------


def _labels(score: Artifact) -> tuple[NDArray[np.int64], FloatArray, NDArray[np.int8]]:
    """Pairs (n, 2) of row numbers, labels and quadrants of all pairs that the teacher scored."""
    table = pq.read_table(score.path("labels"))
    labels = table["score"].to_numpy()
    scored = np.isfinite(labels)
    pairs = np.stack([table["candidate"].to_numpy(), table["target"].to_numpy()], axis=1)
    return pairs[scored], labels[scored], table["quadrant"].to_numpy()[scored]


def _write_training_set(
    embeddings: Artifact, score: Artifact, pairwise: bool, data_dir: Path
) -> int:
    """The sampled rows' embeddings once each, and the pairs renumbered to them."""
    pairs, labels, quadrants = _labels(score)
    training = quadrants == 0
    data = _renumbered(embeddings, pairs[training], labels[training], pairwise)
    data.save(data_dir)
    return len(data.labels)


def _renumbered(
    embeddings: Artifact, pairs: NDArray[np.int64], labels: FloatArray, pairwise: bool
) -> TrainingSet:
    candidate_rows, c = np.unique(pairs[:, 0], return_inverse=True)
    target_rows, t = np.unique(pairs[:, 1], return_inverse=True)
    targets = None
    if pairwise:
        targets = VectorParts(embeddings, target_side(embeddings)).take(target_rows)
    return TrainingSet(
        candidates=VectorParts(embeddings, "candidates").take(candidate_rows),
        targets=targets,
        pairs=np.stack([c, t], axis=1).astype(np.int64),
        labels=labels,
    )


def _write_constant(data_dir: Path, settings: NetworkConfig, path: Path) -> dict[str, Any]:
    data = TrainingSet.open(data_dir)
    if not len(data.labels):
        raise InputError(
            "there is no scored pair to learn from: the corpus is too small to be its own target, "
            "or the teacher could score none (4-teacher/labels.parquet says why)"
        )
    network = InfluenceNetwork(data.dim, settings.hidden, pairwise=data.pairwise)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    network.label_mean.fill_(float(data.labels.mean()))
    with atomic_path(path) as temporary:
        network.save(temporary)
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    return {"epochs": 0, "num_parameters": num_parameters, "histories": []}


# --- the audit -----------------------------------------------------------------------------------


def _audit(
    embeddings: Artifact,
    score: Artifact,
    network_path: Path,
    pairwise: bool,
    settings: NetworkConfig,
    seed: int,
    path: Path,
) -> dict[str, Any]:
    pairs, labels, quadrants = _labels(score)
    training, audited = quadrants == 0, quadrants > 0
    needed = {3, 4} if pairwise else {4}
    if training.sum() < MIN_LABELS or needed - set(quadrants.tolist()):
        reason = f"{len(labels)} teacher labels are too few to learn from and to audit"
        write_json(path, {**_NOT_AUDITED, "reasons": [reason]})
        return {"trusted": False}
    data = _renumbered(embeddings, pairs, labels, pairwise)
    known = replace(data, pairs=data.pairs[training], labels=labels[training])
    measured = fidelity(
        predictions=_predictions(InfluenceNetwork.load(network_path), data, data.pairs[audited]),
        labels=labels[audited],
        quadrants=quadrants[audited].astype(np.int64),
        pairs=data.pairs[audited],
        candidates=data.candidates,
        targets=data.targets,
        training_pairs=known.pairs,
        training_labels=known.labels,
        permuted=_predictions(_permuted(known, settings, seed), data, data.pairs[audited]),
        seed=seed,
    )
    shares = _shares(embeddings, pairs[training], pairwise)
    # of the quadrants with unseen candidates: those are what is selected from
    quadrant = 3 if shares["Q3"] > shares["Q4"] else 4
    judged = verdict(measured, quadrant)
    score_of_network = measured.quadrants[quadrant].scores["network"]
    summary = {
        "trusted": judged.trusted,
        "judged_quadrant": f"Q{quadrant}",
        "spearman": score_of_network.spearman,
        "r2": score_of_network.r2,
    }
    write_json(path, {**vars(judged), **summary, "shares": shares, **measured.to_dict()})
    return summary


def _permuted(data: TrainingSet, settings: NetworkConfig, seed: int) -> InfluenceNetwork:
    """The same network, fitted on labels that were dealt out anew."""
    rng = np.random.default_rng(seed % 2**64)
    order = rng.permutation(len(data.labels))[:PERMUTED_LABELS]
    labels = data.labels[rng.permutation(order)]
    return fit_network(data.candidates, data.targets, data.pairs[order], labels, settings, seed)


def _shares(
    embeddings: Artifact, training_pairs: NDArray[np.int64], pairwise: bool
) -> dict[str, float]:
    """Share of all M x N predictions that lies in each quadrant."""
    counts = embeddings.counts
    seen_c = len(np.unique(training_pairs[:, 0])) / counts["candidates"]
    if not pairwise:  # rows that were asked about, and all others
        return {"Q1": seen_c, "Q2": 0.0, "Q3": 0.0, "Q4": 1 - seen_c}
    seen_t = len(np.unique(training_pairs[:, 1])) / counts[target_side(embeddings)]
    return {
        "Q1": seen_c * seen_t,
        "Q2": seen_c * (1 - seen_t),
        "Q3": (1 - seen_c) * seen_t,
        "Q4": (1 - seen_c) * (1 - seen_t),
    }


@torch.no_grad()
def _predictions(
    network: InfluenceNetwork, data: TrainingSet, pairs: NDArray[np.int64]
) -> FloatArray:
    pieces = []
    for start in range(0, len(pairs), 4096):
        c, t = pairs[start : start + 4096].T
        e_c = torch.from_numpy(data.candidates[c])
        e_t = None if data.targets is None else torch.from_numpy(data.targets[t])
        pieces.append(network(e_c, e_t))
    predictions: FloatArray = torch.cat(pieces).numpy()
    return predictions
