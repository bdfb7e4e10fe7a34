"""The strongest cheap baseline of the audit: ridge regression on [e_c, e_t]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse

from engine.kernels.arrays import DoubleArray as Array
from engine.kernels.arrays import FloatArray, IndexArray

__all__ = ["Ridge"]

# Penalties tried, as multiples of the mean eigenvalue of the Gram matrix.
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
STREAM = 2  # of random numbers: no other part of the audit draws from it


@dataclass(frozen=True)
class Ridge:
    """Ridge regression on [e_c, e_t] with a free intercept."""

    weights: tuple[Array, Array]
    centres: tuple[Array, Array]
    intercept: float
    penalty: float

    @classmethod
    def fit(
        cls,
        candidates: FloatArray,
        targets: FloatArray,
        pairs: IndexArray,
        labels: Array,
        seed: int,
    ) -> Ridge:
        """Fit, with the penalty that serves held-out candidates best."""
        ids = np.unique(pairs[:, 0])
        stream = np.random.SeedSequence([seed % 2**64, STREAM])
        order = np.random.default_rng(stream).permutation(len(ids))
        held_out = np.isin(pairs[:, 0], ids[order[: len(ids) // 5]])
        if not held_out.any():
            return cls._fit_all(candidates, targets, pairs, labels, PENALTIES[-1:])[0]
        tried = cls._fit_all(candidates, targets, pairs[~held_out], labels[~held_out], PENALTIES)
        losses = [
            np.square(model.predict(candidates, targets, pairs[held_out]) - labels[held_out]).sum()
            for model in tried
        ]
        penalty = tried[int(np.argmin(losses))].penalty
        return cls._fit_all(candidates, targets, pairs, labels, [penalty])[0]

    @classmethod
    def _fit_all(
        cls,
        candidates: FloatArray,
        targets: FloatArray,
        pairs: IndexArray,
        labels: Array,
        penalties: Sequence[float],
    ) -> list[Ridge]:
        """One model per penalty; the n x 2 D design matrix is never built.

        Its Gram matrix has the blocks E_c' N_c E_c, E_c' N E_t and E_t' N_t E_t, where N counts the
        pairs of each candidate and target and N_c, N_t are its row and column sums.
        """
        (rows, row_ids), (columns, column_ids) = (
            np.unique(pairs[:, side], return_inverse=True) for side in (0, 1)
        )
        shape = (len(rows), len(columns))
        counts = scipy.sparse.csr_array((np.ones(len(pairs)), (row_ids, column_ids)), shape=shape)
        mean = float(labels.mean())
        sides, centres, sums = [], [], []
        for embeddings, used, ids in ((candidates, rows, row_ids), (targets, columns, column_ids)):
            side = np.asarray(embeddings[used], dtype=np.float64)
            number = np.bincount(ids).astype(np.float64)
            centres.append(number @ side / len(pairs))
            sides.append(side - centres[-1])
            sums.append(sides[-1].T @ np.bincount(ids, labels - mean))
        left, right = sides
        cross = left.T @ (counts @ right)
        gram = np.block(
            [
                [left.T @ (left * np.bincount(row_ids)[:, None]), cross],
                [cross.T, right.T @ (right * np.bincount(column_ids)[:, None])],
            ]
        )
        # The floor keeps the system solvable when all embeddings are equal.
        scale = max(float(np.trace(gram)) / len(gram), 1e-12)
        models = []
        for penalty in penalties:
            system = gram + penalty * scale * np.eye(len(gram))
            solution = scipy.linalg.solve(system, np.concatenate(sums), assume_a="pos")
            weights = (solution[: left.shape[1]], solution[left.shape[1] :])
            models.append(cls(weights, (centres[0], centres[1]), mean, penalty))
        return models

    def predict(self, candidates: FloatArray, targets: FloatArray, pairs: IndexArray) -> Array:
        """Predictions of some pairs, (n,)."""
        total = np.full(len(pairs), self.intercept)
        for side, embeddings in enumerate((candidates, targets)):
            used, ids = np.unique(pairs[:, side], return_inverse=True)
            rows = np.asarray(embeddings[used], dtype=np.float64) - self.centres[side]
            total += (rows @ self.weights[side])[ids]
        return total
