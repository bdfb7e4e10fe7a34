"""Influence the slow and obvious way: one pair at a time."""

from __future__ import annotations

import numpy as np
import torch

from engine.kernels.arrays import DoubleArray, FloatArray, IndexArray
from engine.kernels.units import PairwiseForm, Units
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


def layers_matrix(
    on_candidates: DoubleArray,
    on_targets: DoubleArray,
    hidden_bias: DoubleArray,
    output_weight: DoubleArray,
    candidate_main: DoubleArray,
    target_main: DoubleArray,
    constant: float,
    candidates: FloatArray,
    targets: FloatArray,
) -> DoubleArray:
    """S[c, t] of a network with one hidden layer by its definition, in float64."""
    matrix = np.empty((len(candidates), len(targets)))
    for c, e_c in enumerate(candidates.astype(np.float64)):
        for t, e_t in enumerate(targets.astype(np.float64)):
            hidden = np.maximum(on_candidates @ e_c + on_targets @ e_t + hidden_bias, 0)
            main = candidate_main @ e_c + target_main @ e_t
            matrix[c, t] = output_weight @ hidden + main + constant
    return matrix


def form_matrix(form: PairwiseForm, candidates: FloatArray, targets: FloatArray) -> DoubleArray:
    """S[c, t] of a PairwiseForm in float64."""
    matrix = np.empty((len(candidates), len(targets)))
    for c, e_c in enumerate(candidates.astype(np.float64)):
        for t, e_t in enumerate(targets.astype(np.float64)):
            own = form.candidate_weight @ e_c + form.candidate_bias
            other = form.target_weight @ e_t + form.target_bias
            larger = np.maximum(own, other)
            matrix[c, t] = larger[: form.num_positive].sum() - larger[form.num_positive :].sum()
    return matrix


def sums_matrix(candidates: Units, targets: Units) -> IndexArray:
    """S[c, t] of two sides in multiples of their step, in int64: exact, and never wraps around."""
    others = targets.rows().astype(np.int64)
    matrix = np.empty((candidates.num_rows, targets.num_rows), dtype=np.int64)
    for c, own in enumerate(candidates.rows().astype(np.int64)):
        larger = np.maximum(own, others)
        added, subtracted = np.split(larger, [candidates.num_positive], axis=1)
        matrix[c] = added.sum(axis=1) - subtracted.sum(axis=1)
    return matrix


def top_of_matrix(matrix: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """For each column the ids and values of its k best rows; ties to the lower row."""
    ids, values = [], []
    for column in matrix.T:
        best = sorted(range(len(column)), key=lambda row: (-column[row], row))[:k]
        ids.append(best)
        values.append([column[row] for row in best])
    return np.array(ids), np.array(values)
