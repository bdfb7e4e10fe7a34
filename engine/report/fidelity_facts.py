"""The audit as the page shows it: fidelity.json, and predictions against labels where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.artifacts.files import load_array, read_json, read_table
from engine.artifacts.run_directory import Artifact
from engine.report.wording import decimal

__all__ = [
    "PREDICTORS",
    "QUADRANTS",
    "Calibration",
    "judged_scores",
    "one_sentence",
    "read_calibration",
    "read_choice",
    "read_fidelity",
]

# The student first, then what costs nothing, then the contenders that it was chosen from.
PREDICTORS = (
    "student", "mean", "zero", "permuted", "cosine", "linear", "kernel", "vectors",
    "vector_network", "network",
)  # fmt: skip
QUADRANTS = {
    "Q1": "Candidates and targets that the student learned from, in pairs it did not see.",
    "Q2": "Candidates it learned from, with targets it never met.",
    "Q3": "Candidates it never met, with targets it learned from.",
    "Q4": "Neither side was met in training.",
}
NUM_DOTS, NUM_BINS = 600, 8


@dataclass(frozen=True)
class Calibration:
    """Audited pairs of one quadrant: points and bin means (predicted, teacher's label)."""

    points: list[tuple[float, float]]
    bin_means: list[tuple[float, float]]
    num_pairs: int


def read_fidelity(fit: Artifact) -> dict[str, Any]:
    """The audit's file; `quadrants` is empty when there were too few labels for one."""
    found: dict[str, Any] = read_json(fit.path("fidelity"))
    return found


def read_choice(fit: Artifact) -> dict[str, Any]:
    """What was fitted, and how every contender did; without a student, nothing of both."""
    if "choice" not in fit.manifest["parts"]:
        return {"student": None, "labels": "raw", "contenders": []}
    found: dict[str, Any] = read_json(fit.path("choice"))
    return found


def judged_scores(fidelity: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The quadrant that the verdict was read from; None when there were too few labels."""
    judged: Mapping[str, Any] | None = fidelity["quadrants"].get(fidelity["judged_quadrant"])
    return judged


def one_sentence(fidelity: Mapping[str, Any]) -> str:
    """The verdict in one sentence, for the head of the page and the job's last line."""
    if not fidelity["trusted"]:
        reason = fidelity["reasons"][0] if fidelity["reasons"] else "it was not audited"
        return f"Not to be trusted: {reason}."
    if judged_scores(fidelity) is None:
        return f"The teacher's own scores: {fidelity['reasons'][0]}."
    own, means = fidelity["spearman"], fidelity["means"]
    return (
        "Trusted: the student orders candidates that it never saw as the teacher does, and nothing "
        f"cheaper does so significantly better (Spearman within a target {decimal(own)}, of means "
        f"{decimal(means)})."
        if fidelity["pairwise"]
        else "Trusted: the student orders rows that it never saw as the teacher does, and nothing "
        f"cheaper does so significantly better (Spearman {decimal(own)})."
    )


def read_calibration(
    score: Artifact, predict: Artifact, quadrant: str | None
) -> Calibration | None:
    """Labels of a quadrant beside the dense predictions; None where no dense matrix was written.

    Reads the audited entries alone: the matrix is memory-mapped.
    """
    if quadrant is None or "dense" not in predict.manifest["parts"]:
        return None
    columns = ["candidate", "target", "quadrant", "score"]
    table = read_table(score.path("labels"), columns=columns)
    labels = table["score"].to_numpy().astype(np.float64)
    wanted = (table["quadrant"].to_numpy() == int(quadrant[1:])) & np.isfinite(labels)
    if not wanted.any():
        return None
    pairs = np.stack([table["candidate"].to_numpy(), table["target"].to_numpy()], axis=1)[wanted]
    predicted, labels = _entries(predict, pairs), labels[wanted]
    drawn = np.unique(np.linspace(0, len(labels) - 1, min(len(labels), NUM_DOTS)).astype(np.int64))
    bins = np.array_split(np.argsort(predicted, kind="stable"), min(NUM_BINS, len(labels)))
    return Calibration(
        points=list(zip(predicted[drawn].tolist(), labels[drawn].tolist(), strict=True)),
        bin_means=[(float(predicted[b].mean()), float(labels[b].mean())) for b in bins],
        num_pairs=len(labels),
    )


def _entries(predict: Artifact, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Predicted influence of pairs (n, 2) out of the parts of the (M, N) matrix."""
    parts = predict.parts("dense")
    offsets = np.cumsum([0, *(part.rows for part in parts)])
    part_of = np.searchsorted(offsets, pairs[:, 0], side="right") - 1
    out = np.empty(len(pairs))
    for number in np.unique(part_of).tolist():
        path = predict.directory / parts[number].path
        block = load_array(path, mmap_mode="r")
        where = np.flatnonzero(part_of == number)
        out[where] = block[pairs[where, 0] - offsets[number], pairs[where, 1]]
    return out
