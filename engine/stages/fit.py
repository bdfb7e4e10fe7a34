"""Fit: a student on the teacher's answers, and the audit of how well it learned them.

With `student.name: auto` the contenders are compared first (`engine.students.choice`). Networks
are fitted by Ray Train, every other student in one worker. A teacher that was asked
about everything needs no student; the stage then only says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engine.artifacts.files import (
    atomic_path,
    digest,
    load_array,
    read_json,
    save_array,
    write_json,
)
from engine.artifacts.parts import finish_part
from engine.artifacts.rows import target_side
from engine.artifacts.run_directory import Artifact
from engine.audit.audit import NOT_AUDITED, audit, labels_of, renumbered, vectors_of
from engine.audit.verdict import Look
from engine.config import Config
from engine.errors import InputError
from engine.features.rows import FeatureRows
from engine.network.fit import train_network
from engine.network.influence_network import InfluenceNetwork
from engine.network.training_set import MIN_LABELS, TrainingSet
from engine.runtime.stage import Stage, StageContext, StageResult
from engine.students.choice import choose, fit_student, prepared
from engine.students.kernel import KernelStudent
from engine.students.kernel_ridge import KernelRidge
from engine.students.network import TrainedStudent
from engine.students.student import load_student, student_class
from engine.students.vectors import PredictedVectors
from engine.terminal.progress import say

__all__ = ["STAGE", "run"]

MAX_THREADS = 16
ROWS = "candidate_rows.npy"  # of the training set: which candidates of the corpus they are


def run(context: StageContext, look: Look | None = None) -> StageResult:
    """Choose, fit and audit; `look` is which of several looks at the same audit rows this is.

    Too few labels to learn from give a constant, the mean of what there is, and a verdict that
    says so.
    """
    if context.inputs["sample"].counts["everything"]:
        return _no_student(context)
    directory, inputs = context.directory, (context.inputs["embed"], context.inputs["score"])
    pairwise = bool(context.inputs["sample"].counts["pairwise"])
    config = context.executor.call(_with_target_side, context.config, *inputs, pairwise)
    data_dir = directory / "training"
    data_dir.mkdir(exist_ok=True)
    num_labels = context.executor.call(_write_training_set, *inputs, config, pairwise, data_dir)
    files = {name: directory / f"{name}.json" for name in ("choice", "history", "fidelity")}
    files["student"] = directory / "student.safetensors"
    threads = min(MAX_THREADS, context.executor.num_cpus)
    if num_labels < MIN_LABELS:
        choice, history = context.executor.call(_write_constant, data_dir, files["student"])
    else:
        choice = context.executor.call(_choose, data_dir, config, threads=threads)
        _tell(choice)
        kind = student_class(choice["student"])
        if issubclass(kind, TrainedStudent):
            history = _train(context, kind, config, data_dir, choice["labels"], files["student"])
        else:
            history = context.executor.call(
                _fit, data_dir, choice, config, directory, threads=threads
            )
            if history.pop("left_out"):
                files |= {name: directory / f"{name}.npy" for name in ("left_out", "left_out_rows")}
    write_json(files["choice"], choice)
    write_json(files["history"], history)
    target_vectors = directory / "target_vectors.npy"
    if context.executor.call(_write_target_vectors, inputs[1], files["student"], target_vectors):
        files["target_vectors"] = target_vectors
    fidelity = files["fidelity"]
    counts = context.executor.call(
        _audit, *inputs, files["student"], config, pairwise, fidelity, look
    )
    trusted = "trusted" if counts["trusted"] else "not to be trusted"
    say(f"  fit: {trusted}: {counts.pop('reason')}")
    return StageResult(
        parts={group: [finish_part(directory, file, 1)] for group, file in files.items()},
        counts={
            "student": choice["student"],
            "targets": config.student.targets or _own_side(choice["student"]),
            "labels_learned": choice["labels"],
            "training_labels": num_labels,
            "parameters": history["num_parameters"],
            "epochs": history["epochs"],
            **counts,
        },
        columns={
            "student.safetensors": "what predicts; which student it is, in its metadata",
            "choice.json": "the student, and how every contender did on held-out candidates",
            "fidelity.json": "scores per quadrant, in teacher units, and the verdict",
            "left_out.npy": "float32 (C, R), factors of the asked candidates, whose rows are in "
            "left_out_rows.npy (C,), without their own answers: they compete by these",
            "target_vectors.npy": "float32 (N, V), the teacher's vectors of the targets, where the "
            "student compares with them",
        },
    )


def _no_student(context: StageContext) -> StageResult:
    path = context.directory / "fidelity.json"
    num_labels = context.inputs["score"].counts["pairs"]
    reason = "no student was needed: the teacher itself was asked about everything"
    write_json(path, {**NOT_AUDITED, "trusted": True, "reasons": [reason]})
    return StageResult(
        parts={"fidelity": [finish_part(context.directory, path, 1)]},
        counts={
            "student": None,
            "training_labels": num_labels,
            "parameters": 0,
            "epochs": 0,
            "trusted": True,
        },
        columns={"fidelity.json": "why nothing was audited"},
    )


def _tell(choice: dict[str, Any]) -> None:
    """What was chosen, on stderr."""
    if not choice["contenders"]:
        return
    told = ", ".join(
        f"{one['student']}{'' if one['labels'] == 'raw' else ' on ' + one['labels']} "
        f"{one['within']:.2f}/{one['means']:.2f}"
        for one in choice["contenders"]
    )
    say(f"  fit: student {choice['student']} of {told} (order within a target / of means)")


# --- the training set ----------------------------------------------------------------------------


def _write_training_set(
    embeddings: Artifact, score: Artifact, config: Config, pairwise: bool, data_dir: Path
) -> int:
    """The sampled rows' features once each, and the pairs renumbered to them."""
    labels = labels_of(score)
    training = labels.quadrants == 0
    data = renumbered(
        embeddings,
        score,
        labels.pairs[training],
        labels.scores[training],
        config.features,
        pairwise,
    )
    data.save(data_dir)
    save_array(data_dir / ROWS, np.unique(labels.pairs[training, 0]))
    return len(data.labels)


def _write_constant(data_dir: Path, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    data = TrainingSet.open(data_dir)
    if not len(data.labels):
        raise InputError(
            "there is no scored pair to learn from: the corpus is too small to be its own target, "
            "or the teacher could score none (4-teacher/labels.parquet says why)"
        )
    of_candidates = KernelRidge.constant(data.dim, np.array([data.labels.mean()]))
    of_targets = KernelRidge.constant(data.dim, np.ones(1)) if data.pairwise else None
    with atomic_path(path) as temporary:
        KernelStudent(of_candidates, of_targets).save(temporary)
    choice = {"student": KernelStudent.name, "labels": "raw", "contenders": []}
    return choice, {"epochs": 0, "num_parameters": 1, "histories": []}


# --- choosing and fitting ------------------------------------------------------------------------


def _choose(data_dir: Path, config: Config) -> dict[str, Any]:
    data = TrainingSet.open(data_dir)
    data.check()
    return choose(data, config.student, config.network, config.seed).to_dict()


def _fit(data_dir: Path, choice: dict[str, Any], config: Config, directory: Path) -> dict[str, Any]:
    """Write the student, and what it says of the asked candidates without their own answers."""
    data = TrainingSet.open(data_dir)
    student = fit_student(
        choice["student"], choice["labels"], data, config.student, config.network, config.seed
    )
    with atomic_path(directory / "student.safetensors") as temporary:
        student.save(temporary)
    without = student.left_out_factors
    if without is not None:
        save_array(directory / "left_out.npy", without)
        save_array(directory / "left_out_rows.npy", load_array(data_dir / ROWS))
    return {
        "left_out": without is not None,
        "epochs": 0,
        "num_parameters": student.num_parameters,
        "histories": [],
        **student.facts(),
    }


def _train(
    context: StageContext,
    kind: type[TrainedStudent],
    config: Config,
    data_dir: Path,
    labels: str,
    path: Path,
) -> dict[str, Any]:
    """By the executor, which goes on with an unfinished fit of the same name: of the same data."""
    settings, seed = kind.training_settings(config.student, config.network), config.seed
    prepared_dir = context.directory / "prepared"
    prepared_dir.mkdir(exist_ok=True)
    context.executor.call(_write_prepared, kind, data_dir, labels, prepared_dir)
    fit_of = [context.inputs[name].fingerprint for name in ("embed", "score")]
    made_from = [kind.name, settings.model_dump(mode="json"), labels, seed, fit_of]
    name = f"fit-{digest(made_from)}"
    storage, network = context.directory / "ray-train", prepared_dir / "network.safetensors"
    summary = train_network(context.executor, prepared_dir, network, settings, seed, storage, name)
    context.executor.call(_write_trained, kind, data_dir, config, network, path)
    return summary.to_dict()


def _write_prepared(kind: type[TrainedStudent], data_dir: Path, labels: str, path: Path) -> None:
    kind.training_set(prepared(TrainingSet.open(data_dir), labels)).save(path)


def _write_trained(
    kind: type[TrainedStudent], data_dir: Path, config: Config, network: Path, path: Path
) -> None:
    fitted = InfluenceNetwork.load(network)
    student = kind.of_network(fitted, TrainingSet.open(data_dir), config.student)
    with atomic_path(path) as temporary:
        student.save(temporary)


# --- the targets' side ----------------------------------------------------------------------------


def _with_target_side(
    config: Config, embeddings: Artifact, score: Artifact, pairwise: bool
) -> Config:
    """The settings as they can be kept: where some target was not asked about, exact answers and
    predictions would compete on the targets' side, so all go through the student.
    """
    if not pairwise or config.student.targets == "student":
        return config
    asked = len(np.unique(labels_of(score).pairs[:, 1]))
    if asked == len(FeatureRows(embeddings, target_side(embeddings), config.features)):
        return config
    student = config.student.model_copy(update={"targets": "student"})
    return config.model_copy(update={"student": student})


def _own_side(student: str) -> str:
    """What stands for the targets where nothing is set, of the student that was fitted."""
    return "student" if issubclass(student_class(student), PredictedVectors) else "exact"


def _write_target_vectors(score: Artifact, student_path: Path, path: Path) -> bool:
    """The teacher's vectors of all targets (N, V), if that is what the student reads of them."""
    if not load_student(student_path).reads_target_vectors:
        return False
    vectors = vectors_of(score, "target")
    save_array(path, np.stack([vectors[row] for row in sorted(vectors)]).astype(np.float32))
    return True


def _audit(
    embeddings: Artifact,
    score: Artifact,
    student_path: Path,
    config: Config,
    pairwise: bool,
    path: Path,
    look: Look | None,
) -> dict[str, Any]:
    """Write the audit; returns what the manifest says of it."""
    choice = read_json(path.with_name("choice.json"))
    labels = labels_of(score)
    found = audit(embeddings, score, labels, student_path, choice, config, pairwise, look)
    write_json(path, found)
    summary = {name: found[name] for name in ("judged_quadrant", "spearman", "r2", "means")}
    return {"trusted": found["trusted"], "reason": found["reasons"][0], **summary}


STAGE = Stage(
    name="fit",
    directory="5-student",
    run=run,
    settings=("seed", "features", "student", "network"),
    reads=("embed", "sample", "score"),
    version=7,
)
