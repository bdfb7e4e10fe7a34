"""What the engine's predictor replaces: the network over all pairs as one would write it in torch.

`per_pair_loop` is the published way; the others are what one would try next. All return the
matrix (M, N); `benchmarks/pairwise.py` times them beside ours.
"""

from __future__ import annotations

import copy
import time
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.network.influence_network import InfluenceNetwork

__all__ = [
    "ConcatenationNetwork",
    "best_broadcast_tile",
    "concatenation",
    "per_pair_loop",
    "torch_broadcast",
]

CONCATENATED_PAIRS = 16384  # of a batch
BROADCAST_TILES = ((1, 2048), (8, 256), (16, 256), (32, 256), (64, 256))  # the best one is taken

Matrix = NDArray[np.float32]


class ConcatenationNetwork(nn.Module):
    """The network as it is published: layers on [e_c ; 0 ; e_t], label scaling folded in."""

    def __init__(self, network: InfluenceNetwork) -> None:
        super().__init__()
        assert network.main is not None
        dim, scale = network.dim, network.label_std
        self.hidden, last = copy.deepcopy(network.layers)
        with torch.no_grad():
            last.weight.mul_(scale)
            last.bias.mul_(scale).add_(network.label_mean)
            main, separator = network.main.weight * scale, torch.zeros(1, 1)
            main = torch.cat((main[:, :dim], separator, main[:, dim:]), dim=1)
        self.last = last
        self.main = nn.Parameter(main)

    def forward(self, inputs: Tensor) -> Tensor:
        linear = nn.functional.linear(inputs, self.main)
        found: Tensor = self.last(torch.relu(self.hidden(inputs))) + linear
        return found


@torch.inference_mode()
def per_pair_loop(network: ConcatenationNetwork, candidates: Matrix, targets: Matrix) -> Matrix:
    """The published way: one Python step and one call of the network per pair."""
    e_c, e_t, separator = torch.from_numpy(candidates), torch.from_numpy(targets), torch.zeros(1)
    matrix = np.empty((len(e_c), len(e_t)), dtype=np.float32)
    for row, candidate in enumerate(e_c):
        for column, target in enumerate(e_t):
            matrix[row, column] = network(torch.cat((candidate, separator, target))).item()
    return matrix


@torch.inference_mode()
def concatenation(network: ConcatenationNetwork, candidates: Matrix, targets: Matrix) -> Matrix:
    """The same in batches of about CONCATENATED_PAIRS, into one input buffer."""
    e_c, e_t = torch.from_numpy(candidates), torch.from_numpy(targets)
    dim, num_targets = e_c.shape[1], len(e_t)
    rows = min(len(e_c), max(1, CONCATENATED_PAIRS // num_targets))
    inputs = torch.zeros(rows, num_targets, 2 * dim + 1)
    inputs[:, :, dim + 1 :] = e_t  # the same in every batch
    matrix = torch.empty(len(e_c), num_targets)
    for start in range(0, len(e_c), rows):
        some = e_c[start : start + rows]
        inputs[: len(some), :, :dim] = some[:, None]
        matrix[start : start + rows] = network(inputs[: len(some)])[..., 0]
    return matrix.numpy()


@torch.inference_mode()
def torch_broadcast(
    network: InfluenceNetwork, candidates: Matrix, targets: Matrix, tile: tuple[int, int]
) -> Matrix:
    """relu(P[:, None] + Q[None]) @ w in tiles, in one buffer; P and Q are made here too."""
    hidden, last = (cast(nn.Linear, layer) for layer in network.layers)
    assert network.main is not None
    dim, scale = network.dim, network.label_std
    e_c, e_t = torch.from_numpy(candidates), torch.from_numpy(targets)
    p = nn.functional.linear(e_c, hidden.weight[:, :dim], hidden.bias)
    q = nn.functional.linear(e_t, hidden.weight[:, dim + 1 :])
    w, main = last.weight[0] * scale, network.main.weight[0] * scale
    of_candidates = e_c @ main[:dim] + last.bias * scale + network.label_mean
    of_targets = e_t @ main[dim:]
    matrix = torch.empty(len(e_c), len(e_t))
    buffer = torch.empty(*tile, len(w))
    for i in range(0, len(e_c), tile[0]):
        rows = slice(i, i + tile[0])
        for j in range(0, len(e_t), tile[1]):
            columns = slice(j, j + tile[1])
            some_p, some_q = p[rows, None], q[None, columns]
            sums = buffer[: len(some_p), : some_q.shape[1]]
            torch.add(some_p, some_q, out=sums).relu_()
            linear = of_candidates[rows, None] + of_targets[None, columns]
            torch.add(sums @ w, linear, out=matrix[rows, columns])
    return matrix.numpy()


def best_broadcast_tile(
    network: InfluenceNetwork, candidates: Matrix, targets: Matrix
) -> tuple[int, int]:
    """The fastest of BROADCAST_TILES on this machine, each tried three times on a few rows."""
    torch.set_num_threads(1)
    seconds = {}
    for tile in BROADCAST_TILES:
        times = []
        for _ in range(3):
            start = time.process_time()
            torch_broadcast(network, candidates[:1024], targets[:2048], tile)
            times.append(time.process_time() - start)
        seconds[tile] = min(times)
    return min(seconds, key=lambda tile: seconds[tile])
