"""The audit of a fitted student: labels that it never learned from, in the form of the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.artifacts.files import map_table, read_table
from engine.artifacts.rows import as_matrix, target_side
from engine.artifacts.run_directory import Artifact
from engine.audit.predictions import audit_predictions
from engine.audit.verdict import Look
from engine.config import Config, FeatureName
from engine.features.rows import FeatureRows
from engine.kernels.arrays import FloatArray
from engine.network.training_set import MIN_LABELS, TrainingSet
from engine.students.choice import fit_student, others_of, targets_of
from engine.students.network import TrainedStudent
from engine.students.student import Student, load_student, student_class

__all__ = [
    "NOT_AUDITED",
    "Labels",
    "audit",
    "labels_of",
    "renumbered",
    "training_part",
    "vectors_of",
]

# The permuted baseline learns from no more candidates than this: it is there to fail.
PERMUTED_CANDIDATES = 1_000
NOT_AUDITED: dict[str, Any] = {
    "trusted": False,
    "remarks": [],
    "judged_quadrant": None,
    "spearman": None,
    "r2": None,
    "means": None,
    "confidence": None,
    "candidate_means": None,
    "shares": {},
    "quadrants": {},
}


@dataclass(frozen=True)
class Labels:
    """What the teacher scored: pairs (n, 2) of row numbers, scores (n,) and quadrants (n,)."""

    pairs: NDArray[np.int64]
    scores: FloatArray
    quadrants: NDArray[np.int8]


def labels_of(score: Artifact) -> Labels:
    """All pairs that the teacher could score."""
    table = read_table(score.path("labels"))
    labels = table["score"].to_numpy()
    scored = np.isfinite(labels)
    pairs = np.stack([table["candidate"].to_numpy(), table["target"].to_numpy()], axis=1)
    return Labels(pairs[scored], labels[scored], table["quadrant"].to_numpy()[scored])


def renumbered(
    embeddings: Artifact,
    score: Artifact,
    pairs: NDArray[np.int64],
    labels: FloatArray,
    features: Sequence[FeatureName],
    pairwise: bool,
) -> TrainingSet:
    """The labelled rows' features once each, with the teacher's vectors if it has any.

    Pairs are renumbered to them. A pair that has a score has the vectors of both rows.
    """
    side, vectors = target_side(embeddings), {}
    if pairwise and "vectors-candidate" in score.manifest["parts"]:
        vectors = {name: vectors_of(score, name) for name in ("candidate", "target")}
    candidate_rows, c = np.unique(pairs[:, 0], return_inverse=True)
    target_rows, t = np.unique(pairs[:, 1], return_inverse=True)
    candidates = FeatureRows(embeddings, "candidates", features)
    return TrainingSet(
        candidates=candidates.take(candidate_rows),
        targets=FeatureRows(embeddings, side, features).take(target_rows) if pairwise else None,
        pairs=np.stack([c, t], axis=1).astype(np.int64),
        labels=labels,
        text_dim=candidates.text_dim,
        candidate_vectors=_stacked(vectors["candidate"], candidate_rows) if vectors else None,
        target_vectors=_stacked(vectors["target"], target_rows) if vectors else None,
        similarity=score.counts["similarity"] or "cosine" if vectors else "cosine",
    )


def vectors_of(score: Artifact, side: str) -> dict[int, FloatArray]:
    """The teacher's vectors (V,) by row number."""
    found: dict[int, FloatArray] = {}
    for part in score.parts(f"vectors-{side}"):
        table = map_table(score.directory / part.path)
        found.update(zip(table["row"].to_pylist(), as_matrix(table["vector"]), strict=True))
    return found


def _stacked(vectors: Mapping[int, FloatArray], rows: NDArray[np.int64]) -> FloatArray | None:
    if not len(rows):
        return None
    return np.stack([vectors[row] for row in rows.tolist()]).astype(np.float32)


def training_part(data: TrainingSet, training: NDArray[np.bool_]) -> TrainingSet:
    """The part of some answers that a student learns from, rows once each, renumbered again."""
    pairs = data.pairs[training]
    (rows, c), (columns, t) = (np.unique(pairs[:, n], return_inverse=True) for n in (0, 1))

    def some(values: FloatArray | None, which: NDArray[np.int64]) -> FloatArray | None:
        return None if values is None else values[which]

    return replace(
        data,
        candidates=data.candidates[rows],
        targets=some(data.targets, columns),
        pairs=np.stack([c, t], axis=1).astype(np.int64),
        labels=data.labels[training],
        candidate_vectors=some(data.candidate_vectors, rows),
        target_vectors=some(data.target_vectors, columns),
    )


def audit(
    embeddings: Artifact,
    score: Artifact,
    known_labels: Labels,
    student_path: Path,
    choice: Mapping[str, Any],
    config: Config,
    pairwise: bool,
    look: Look | None = None,
) -> dict[str, Any]:
    """Fidelity per quadrant beside its baselines, and the verdict, JSON-able.

    Quadrant 0 of the labels is what the student and its baselines learned from. Too few labels of
    the quadrants that matter give a verdict that says so. `choice` is what the fit wrote. Of
    several looks at the same audit rows `look` is this one.
    """
    pairs, labels, quadrants = known_labels.pairs, known_labels.scores, known_labels.quadrants
    if (quadrants == 0).sum() < MIN_LABELS or not (quadrants >= 3).any():
        reason = f"{len(labels)} teacher labels are too few to learn from and to audit"
        return {**NOT_AUDITED, "reasons": [reason]}
    data = renumbered(embeddings, score, pairs, labels, config.features, pairwise)
    assert len(data.labels) == len(labels), "a pair with a score has the vectors of both rows"
    training, audited = quadrants == 0, quadrants > 0
    known = training_part(data, training)
    students = {"student": load_student(student_path)}
    students["permuted"] = _permuted(students["student"], known, choice, config)
    for name in dict.fromkeys(("cosine", "linear", *others_of(choice))):
        kind = student_class(name)
        if not issubclass(kind, TrainedStudent) and kind.learns_from(known):  # those are dear
            students[name] = fit_student(
                name, "raw", known, config.student, config.network, config.seed
            )
    asked = data.pairs[audited]
    shares = _shares(embeddings, pairs[training], pairwise)
    found = audit_predictions(
        {
            name: student.predict_pairs(data.candidates, targets_of(data, student), asked)
            for name, student in students.items()
        },
        labels[audited],
        asked,
        quadrants=quadrants[audited].astype(np.int64),
        training_labels=known.labels,
        pairwise=pairwise,
        # of the quadrants with unseen candidates: those are what is selected from
        judged_quadrant=3 if shares["Q3"] > shares["Q4"] else 4,
        student=students["student"].name,
        named=config.student.name != "auto",
        look=look,
        seed=config.seed,
    )
    return {**found.to_dict(), "shares": shares}


def _permuted(
    student: Student, data: TrainingSet, choice: Mapping[str, Any], config: Config
) -> Student:
    """The same kind of student, fitted on answers that were dealt out anew among the candidates.

    So it knows the targets, and of candidates what chance says.
    """
    rows = np.unique(data.pairs[:, 0])[:PERMUTED_CANDIDATES]
    few = data.of_candidates(rows)
    order = np.random.default_rng(config.seed % 2**64).permutation(len(rows))
    dealt = replace(few, candidates=few.candidates[order])
    return fit_student(
        student.name, choice["labels"], dealt, config.student, config.network, config.seed
    )


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
