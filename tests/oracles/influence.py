"""Influence the slow and obvious way: one forward pass per pair."""

from __future__ import annotations

import numpy as np
import torch

from engine.kernels.pairwise import FloatArray, PairwiseForm
from engine.network.influence_network import InfluenceNetwork


def influence_matrix(
    network: InfluenceNetwork, candidates: FloatArray, targets: FloatArray
) -> np.ndarray:
    """S[c, t] by the network's own forward pass, pair after pair."""
    matrix = np.empty((len(candidates), len(targets)))
    with torch.no_grad():
        for c, e_c in enumerate(torch.tensor(candidates)):
            for t, e_t in enumerate(torch.tensor(targets)):
                matrix[c, t] = network(e_c[None], e_t[None]).item()
    return matrix


def form_matrix(form: PairwiseForm) -> np.ndarray:
    """S[c, t] of a PairwiseForm in float64, pair after pair."""
    matrix = np.empty((len(form.candidate_units), len(form.target_units)))
    for c, p in enumerate(form.candidate_units.astype(np.float64)):
        for t, q in enumerate(form.target_units.astype(np.float64)):
            hidden = np.maximum(p + q, 0)
            matrix[c, t] = hidden @ form.weights + form.candidate_bias[c] + form.target_bias[t]
    return matrix


def top_of_matrix(matrix: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """For each column the ids and values of its k best rows; ties to the lower row."""
    ids, values = [], []
    for column in matrix.T:
        best = sorted(range(len(column)), key=lambda row: (-column[row], row))[:k]
        ids.append(best)
        values.append([column[row] for row in best])
    return np.array(ids), np.array(values)
