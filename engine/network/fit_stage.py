"""Fit: the InfluenceNetwork on the teacher's labels, and the audit of how well it learned them.

A teacher that was asked about everything needs no network; the stage then only says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from engine.cluster import run_task
from engine.config import NetworkConfig
from engine.errors import InputError
from engine.network.audit import NOT_AUDITED, audit, labels_of, renumbered
from engine.network.fit import fit_on_ray
from engine.network.influence_network import InfluenceNetwork
from engine.network.training_set import MIN_LABELS, TrainingSet
from engine.run_directory import Artifact, atomic_path, digest, finish_part, write_json
from engine.stage import StageContext, StageResult

__all__ = ["run"]


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
    write_json(path, {**NOT_AUDITED, "trusted": True, "reasons": [reason]})
    return StageResult(
        parts={"fidelity": [finish_part(context.directory, path, 1)]},
        counts={"training_labels": num_labels, "parameters": 0, "epochs": 0, "trusted": True},
        columns={"fidelity.json": "why nothing was audited"},
    )


# --- the training set ----------------------------------------------------------------------------


def _write_training_set(
    embeddings: Artifact, score: Artifact, pairwise: bool, data_dir: Path
) -> int:
    """The sampled rows' embeddings once each, and the pairs renumbered to them."""
    labels = labels_of(score)
    training = labels.quadrants == 0
    data = renumbered(embeddings, labels.pairs[training], labels.scores[training], pairwise)
    data.save(data_dir)
    return len(data.labels)


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


def _audit(
    embeddings: Artifact,
    score: Artifact,
    network_path: Path,
    pairwise: bool,
    settings: NetworkConfig,
    seed: int,
    path: Path,
) -> dict[str, Any]:
    """Write the audit; returns what the manifest says of it."""
    found = audit(embeddings, labels_of(score), network_path, pairwise, settings, seed)
    write_json(path, found)
    summary = ("trusted", "judged_quadrant", "spearman", "r2")
    return {name: found[name] for name in summary if name in found}
