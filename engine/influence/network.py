"""What prediction needs of a network, its inputs checked, and the two forms it computes with.

Network            the protocol: `InfluenceNetwork`, or anything with the same few members
embeddings_of      arrays or tensors of the caller -> finite float32 (n, D)
form_of            the PairwiseForm of a network that factorises, else None
network_tiles      S in tiles through the plain forward pass, for networks that do not
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from engine.errors import ModelError, SettingsError
from engine.kernels.arrays import FloatArray
from engine.kernels.pairwise import PairwiseForm

__all__ = ["Embeddings", "Network", "embeddings_of", "form_of", "network_tiles"]

logger = logging.getLogger(__name__)

Embeddings = ArrayLike | Tensor

PAIRS_PER_PASS = 16384  # fixed: the rounding of a forward pass depends on its shape


class Network(Protocol):
    """The members of `engine.InfluenceNetwork` that prediction uses."""

    dim: int

    @property
    def factorises(self) -> bool:
        """Whether `factorise` applies."""

    def factorise(self, candidates: FloatArray, targets: FloatArray) -> PairwiseForm:
        """(M, D) and (N, D) -> PairwiseForm."""

    def __call__(self, candidates: Tensor, targets: Tensor) -> Tensor:
        """Influence of each pair: (B, D) and (B, D) -> (B,)."""


def embeddings_of(embeddings: Embeddings, dim: int, side: str) -> FloatArray:
    """Embeddings of the caller as a finite float32 array (n, D).

    numpy float32 is passed through without a copy; torch tensors come off their device. `side`
    names them in errors. Raises SettingsError for another shape, ModelError for a row with NaN.
    """
    if isinstance(embeddings, Tensor):
        embeddings = embeddings.detach().float().cpu().numpy()
    array = np.asarray(embeddings, dtype=np.float32)
    if array.ndim != 2:
        raise SettingsError(f"{side} must be a matrix (rows, D={dim}), got shape {array.shape}")
    if array.shape[1] != dim:
        raise SettingsError(
            f"{side} have D={array.shape[1]}, the network was fitted with D={dim}: "
            "embed them with the encoder that the network was fitted on"
        )
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad) > 0:
        raise ModelError(
            f"{side}: row {bad[0]} ({len(bad)} of {len(array)} rows) holds NaN or "
            "infinity: embed those rows again, or leave them out"
        )
    return array


def form_of(network: Network, candidates: FloatArray, targets: FloatArray) -> PairwiseForm | None:
    """The factorised form, or None for a network without one; the log says which is used.

    Runs on one torch thread, so that no result depends on how many there are.
    """
    if not network.factorises:
        logger.info("the network does not factorise: one plain forward pass per pair, in tiles")
        return None
    logger.info("the network factorises: about 2 operations per hidden unit and pair")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return network.factorise(candidates, targets)
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def network_tiles(
    network: Network, candidates: FloatArray, targets: FloatArray
) -> Iterator[tuple[int, FloatArray]]:
    """Yield (first candidate, S of a few candidates with all targets (m, N)), in order.

    Cost one forward pass per pair. The tiles are a function of N alone; rounding may depend on
    torch's thread count.
    """
    e_c, e_t = torch.tensor(candidates), torch.tensor(targets)
    rows = max(1, PAIRS_PER_PASS // max(1, len(e_t)))
    for first in range(0, len(e_c), rows):
        some = e_c[first : first + rows]
        tile = torch.empty(len(some), len(e_t))
        for start in range(0, len(e_t), PAIRS_PER_PASS):
            columns = e_t[start : start + PAIRS_PER_PASS]
            pairs = network(
                some.repeat_interleave(len(columns), dim=0), columns.repeat(len(some), 1)
            )
            tile[:, start : start + PAIRS_PER_PASS] = pairs.view(len(some), len(columns))
        yield first, tile.numpy()
