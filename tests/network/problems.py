"""Small made-up teachers for the network tests."""

from __future__ import annotations

import numpy as np

from engine.network.training_set import TrainingSet


def planted(
    num_candidates: int = 150,
    num_targets: int = 40,
    dim: int = 16,
    per_candidate: int = 20,
    noise: float = 0.1,
    seed: int = 0,
) -> tuple[TrainingSet, np.ndarray]:
    """Labels of low rank in the embeddings: (training pairs, the teacher's full matrix).

    The first two thirds of both sides are in the training pairs, the rest is unseen.
    """
    rng = np.random.default_rng(seed)
    candidates, targets = (
        rng.normal(size=(rows, dim)).astype(np.float32) for rows in (num_candidates, num_targets)
    )
    left, right = rng.normal(size=(2, dim, 1)) / np.sqrt(dim)
    slope = rng.normal(size=dim) / np.sqrt(dim)
    scores = np.tanh(candidates @ left) @ np.tanh(targets @ right).T + (candidates @ slope)[:, None]
    scores = 5.0 + 0.1 * (scores + noise * rng.normal(size=scores.shape))
    seen_c, seen_t = num_candidates * 2 // 3, num_targets * 2 // 3
    pairs = np.concatenate(
        [[(c, t) for t in rng.permutation(seen_t)[:per_candidate]] for c in range(seen_c)]
    )
    labels = scores[pairs[:, 0], pairs[:, 1]].astype(np.float32)
    return TrainingSet(candidates, targets, pairs.astype(np.int64), labels), scores


def unseen_block(scores: np.ndarray) -> np.ndarray:
    """All pairs of quadrant 4 of `planted`, (n, 2)."""
    first = [size * 2 // 3 for size in scores.shape]
    rows, columns = (np.arange(f, s) for f, s in zip(first, scores.shape, strict=True))
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
