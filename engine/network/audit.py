"""The audit of a fitted network: labels that it never learned from, in the form of the manifest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.artifact_rows import VectorParts, target_side
from engine.config import NetworkConfig
from engine.kernels.arrays import FloatArray
from engine.network.fidelity import fidelity
from engine.network.fit import fit_network
from engine.network.influence_network import InfluenceNetwork
from engine.network.training_set import MIN_LABELS, TrainingSet
from engine.network.verdict import verdict
from engine.run_directory import Artifact, read_table

__all__ = ["NOT_AUDITED", "Labels", "audit", "labels_of", "predictions", "renumbered"]

# The permuted-label baseline learns from no more labels than this: it is there to fail.
PERMUTED_LABELS = 20_000
NOT_AUDITED: dict[str, Any] = {
    "trusted": False,
    "remarks": [],
    "judged_quadrant": None,
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
    embeddings: Artifact, pairs: NDArray[np.int64], labels: FloatArray, pairwise: bool
) -> TrainingSet:
    """The labelled rows' embeddings once each, and the pairs renumbered to them."""
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


def audit(
    embeddings: Artifact,
    known_labels: Labels,
    network_path: Path,
    pairwise: bool,
    settings: NetworkConfig,
    seed: int,
) -> dict[str, Any]:
    """Fidelity per quadrant beside its baselines, and the verdict, JSON-able.

    Quadrant 0 of the labels is what the network and its baselines learned from. Too few labels of
    the quadrants that matter give a verdict that says so.
    """
    pairs, labels, quadrants = known_labels.pairs, known_labels.scores, known_labels.quadrants
    training, audited = quadrants == 0, quadrants > 0
    needed = {3, 4} if pairwise else {4}
    if training.sum() < MIN_LABELS or needed - set(quadrants.tolist()):
        reason = f"{len(labels)} teacher labels are too few to learn from and to audit"
        return {**NOT_AUDITED, "reasons": [reason]}
    data = renumbered(embeddings, pairs, labels, pairwise)
    known = replace(data, pairs=data.pairs[training], labels=labels[training])
    measured = fidelity(
        predictions=predictions(InfluenceNetwork.load(network_path), data, data.pairs[audited]),
        labels=labels[audited],
        quadrants=quadrants[audited].astype(np.int64),
        pairs=data.pairs[audited],
        candidates=data.candidates,
        targets=data.targets,
        training_pairs=known.pairs,
        training_labels=known.labels,
        permuted=predictions(_permuted(known, settings, seed), data, data.pairs[audited]),
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
    return {**vars(judged), **summary, "shares": shares, **measured.to_dict()}


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
def predictions(
    network: InfluenceNetwork, data: TrainingSet, pairs: NDArray[np.int64]
) -> FloatArray:
    """What a network says of pairs (n, 2) of rows of the training set: (n,)."""
    pieces = []
    for start in range(0, len(pairs), 4096):
        c, t = pairs[start : start + 4096].T
        e_c = torch.from_numpy(data.candidates[c])
        e_t = None if data.targets is None else torch.from_numpy(data.targets[t])
        pieces.append(network(e_c, e_t))
    predictions: FloatArray = torch.cat(pieces).numpy()
    return predictions
