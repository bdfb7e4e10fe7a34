"""What prediction needs of a network, its inputs checked, and the two forms it computes with.

Network            the protocol: `InfluenceNetwork`, or anything with the same few members
embeddings_of      arrays or tensors of the caller -> finite float32 (n, D)
on_cuda            whether to compute on a CUDA device; cuda_embeddings_of checks those tensors
form_of            the fixed-point form of a network that factorises
network_tiles      S in tiles through the plain forward pass, for networks that do not
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from engine.errors import ModelError, SettingsError
from engine.kernels.arrays import FloatArray, IndexArray
from engine.kernels.units import FixedPointForm, PairwiseForm, squared_lengths

__all__ = [
    "Embeddings",
    "Network",
    "check_finite",
    "cuda_embeddings_of",
    "embeddings_of",
    "form_of",
    "network_tiles",
    "on_cuda",
]

logger = logging.getLogger(__name__)

Embeddings = ArrayLike | Tensor

PAIRS_PER_PASS = 16384  # fixed: the rounding of a forward pass depends on its shape


class Network(Protocol):
    """The members of `engine.InfluenceNetwork` that prediction uses."""

    dim: int

    @property
    def factorises(self) -> bool:
        """Whether `factorise` applies."""

    def factorise(self) -> PairwiseForm:
        """The network as two affine maps and a maximum."""

    def __call__(self, candidates: Tensor, targets: Tensor) -> Tensor:
        """Influence of each pair: (B, D) and (B, D) -> (B,)."""


def embeddings_of(
    embeddings: Embeddings, dim: int, side: str, threads: int | None = None
) -> FloatArray:
    """Embeddings of the caller as a finite float32 array (n, D).

    numpy float32 is passed through without a copy; torch tensors come off their device. `side`
    names them in errors. Raises SettingsError for another shape, ModelError for a row with NaN.
    """
    if isinstance(embeddings, Tensor):
        embeddings = embeddings.detach().float().cpu().numpy()
    array = np.asarray(embeddings, dtype=np.float32)
    _check_shape(array.shape, dim, side)
    finite = np.isfinite(squared_lengths(array, threads=threads))
    check_finite(np.flatnonzero(~finite), len(array), side)
    return array


def on_cuda(network: Network, candidates: Embeddings, targets: Embeddings) -> bool:
    """Whether both sides are CUDA tensors and the network has a form to compute with there."""
    sides = (candidates, targets)
    return network.factorises and all(isinstance(e, Tensor) and e.is_cuda for e in sides)


def cuda_embeddings_of(candidates: Any, targets: Any, dim: int) -> tuple[Tensor, Tensor]:
    """Both sides as finite float32 tensors (n, D) on the device of the candidates.

    Errors as `embeddings_of`.
    """
    sides = []
    for embeddings, side in ((candidates, "candidates"), (targets, "targets")):
        tensor = embeddings.detach().to(candidates.device, torch.float32)
        _check_shape(tuple(tensor.shape), dim, side)
        bad = torch.nonzero(~torch.isfinite(tensor).all(dim=1))[:, 0]
        check_finite(bad.cpu().numpy(), len(tensor), side)
        sides.append(tensor)
    return sides[0], sides[1]


def _check_shape(shape: tuple[int, ...], dim: int, side: str) -> None:
    if len(shape) != 2:
        raise SettingsError(f"{side} must be a matrix (rows, D={dim}), got shape {shape}")
    if shape[1] != dim:
        raise SettingsError(
            f"{side} have D={shape[1]}, the network was fitted with D={dim}: "
            "embed them with the encoder that the network was fitted on"
        )


def check_finite(bad: IndexArray, num_rows: int, side: str) -> None:
    """Raise ModelError when some rows, `bad`, are not finite."""
    if len(bad) > 0:
        raise ModelError(
            f"{side}: row {bad[0]} ({len(bad)} of {num_rows} rows) holds NaN or "
            "infinity: embed those rows again, or leave them out"
        )


def form_of(network: Network, norm: float) -> FixedPointForm:
    """The form of a network that factorises, for embeddings up to this norm."""
    logger.info("the network factorises: a maximum and an addition per hidden unit and pair")
    return network.factorise().fixed_point(norm)


@torch.no_grad()
def network_tiles(
    network: Network, candidates: FloatArray, targets: FloatArray
) -> Iterator[tuple[int, FloatArray]]:
    """Yield (first candidate, S of a few candidates with all targets (m, N)), in order.

    Cost one forward pass per pair. The tiles are a function of N alone; rounding may depend on
    torch's thread count.
    """
    logger.info("the network does not factorise: one plain forward pass per pair, in tiles")
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
