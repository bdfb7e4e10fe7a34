"""Small teachers whose answers are known everywhere, as training sets of every kind."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.kernels.product import unit_rows
from engine.network.training_set import TrainingSet

DIM, NUM_ASKED, NUM_CANDIDATES, NUM_TARGETS = 24, 60, 200, 30


def problem(kind: str, seed: int = 0) -> tuple[TrainingSet, dict[str, Any]]:
    """What is known of the asked candidates, and of all of them the truth.

    vectors: cosines of smooth vectors; block: the scores alone; pairs: a third of them; rows: one
    score a candidate. The truth has `candidates`, `targets`, `vectors` of the targets, `matrix`.
    """
    rng = np.random.default_rng(seed)
    candidates, targets = (
        np.asarray(unit_rows(rng.normal(size=(n, DIM)).astype(np.float32)))
        for n in (NUM_CANDIDATES, NUM_TARGETS)
    )
    mixing = rng.normal(size=(DIM, 10)).astype(np.float32)
    of_c, of_t = (
        np.asarray(unit_rows(np.tanh(2 * side @ mixing))) for side in (candidates, targets)
    )
    matrix = of_c @ of_t.T + of_c[:, :1]
    truth = {"candidates": candidates, "targets": targets, "vectors": of_t, "matrix": matrix}
    asked = np.arange(NUM_ASKED)
    if kind == "rows":
        truth |= {"targets": None, "matrix": matrix[:, :1]}
        pairs = np.stack([asked, np.zeros_like(asked)], axis=1)
        return TrainingSet(candidates[asked], None, pairs, matrix[asked, 0]), truth
    pairs = np.argwhere(np.ones((NUM_ASKED, NUM_TARGETS), bool))
    if kind == "pairs":
        pairs = pairs[rng.random(len(pairs)) < 1 / 3]
    more: dict[str, Any] = {}
    if kind == "vectors":
        matrix = of_c @ of_t.T
        truth["matrix"] = matrix
        more = {"candidate_vectors": of_c[asked], "target_vectors": of_t}
    labels = matrix[pairs[:, 0], pairs[:, 1]].astype(np.float32)
    return TrainingSet(candidates[asked], targets, pairs, labels, text_dim=DIM, **more), truth
