"""The form of a student whose influence is an inner product: S[c, t] = <A[c], B[t]>.

Both sides have factors, (rows, R). They are rounded once to a grid, multiples of a step that is a
power of two, so coarse that every sum of R products is exact in float64. So S is the same bits for
any order, tile, block, thread count, processor and GPU, as it is for `engine.kernels.units`, and a
plain matrix product computes it, at half the speed of float32. The rounding is some 2^-20 of the
largest factor of a side, and S is rounded once more, to float32.

    Grid             the steps of two sides; `Grid.of` finds them from the largest factors
    product_block    S of all pairs, as a matrix
    product_means    exact means over groups of one side, without the matrix
    ProductTop       the k best candidates of each target, block after block

Factors are numpy arrays or torch tensors, on the CPU or a CUDA device; results are numpy, on the
host.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.kernels.arrays import FloatArray, IndexArray
from engine.kernels.means import columns_by_group
from engine.kernels.threads import kernel_threads
from engine.kernels.top import ID_BITS, ID_MASK, Top

__all__ = [
    "Factors",
    "Grid",
    "ProductTop",
    "in_steps",
    "largest_factor",
    "product_block",
    "product_means",
    "unit_rows",
]

Factors: TypeAlias = NDArray[np.float32] | Tensor

_EXACT_BITS = 53  # of a float64
BLOCK_ROWS = 4096  # rows of either side that are on the grid at a time
_PIECE_BITS = 20  # of a sum of factors that is multiplied at a time


@dataclass(frozen=True)
class Grid:
    """The steps that factors are multiples of: `candidates` and `targets`, powers of two."""

    candidates: float
    targets: float

    @classmethod
    def of(cls, largest_candidate: float, largest_target: float, rank: int) -> Grid:
        """The finest steps for factors up to these sizes, for which R = `rank` products add up."""
        bits = (_EXACT_BITS - 1 - max(0, math.ceil(math.log2(max(rank, 1))))) // 2
        return cls(_step(largest_candidate, bits), _step(largest_target, bits))

    @property
    def product(self) -> float:
        """The step of S."""
        return self.candidates * self.targets


def _step(largest: float, bits: int) -> float:
    return 2.0 ** (math.ceil(math.log2(max(largest, 2.0**-80))) - bits)


def unit_rows(rows: Factors) -> Factors:
    """Rows (n, R) of length 1, float32; rows of zeros stay zeros."""
    if isinstance(rows, Tensor):
        return torch.nn.functional.normalize(rows.float(), dim=1, eps=1e-30)
    lengths = np.sqrt(np.einsum("nf,nf->n", rows, rows, dtype=np.float64))
    unit: FloatArray = (rows / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32)
    return unit


def largest_factor(*factors: Factors) -> float:
    """The largest absolute value of some factors."""
    found = 0.0
    for side in factors:
        for start in range(0, len(side), BLOCK_ROWS):
            some = side[start : start + BLOCK_ROWS]
            if some.shape[1]:
                found = max(found, float(some.max()), -float(some.min()))
    return found


def _blocks(factors: Factors, step: float) -> Iterator[tuple[int, Tensor]]:
    """(first row, whole numbers (m, R) float64): the factors in steps, some rows at a time."""
    for start in range(0, len(factors), BLOCK_ROWS):
        yield start, in_steps(factors[start : start + BLOCK_ROWS], step)


def in_steps(factors: Factors, step: float) -> Tensor:
    """Factors as whole numbers of steps, (n, R) float64."""
    tensor = factors if isinstance(factors, Tensor) else torch.tensor(np.asarray(factors))
    return tensor.to(torch.float64).div_(step).round_()


@torch.no_grad()
def product_block(
    candidates: Factors,
    targets: Factors,
    grid: Grid,
    *,
    out: FloatArray | None = None,
    threads: int | None = None,
) -> FloatArray:
    """S of all pairs: (m, R), (N, R) -> (m, N) float32 [c, t], written to `out` if given.

    Cost m N R multiply-adds in float64; memory beside the result BLOCK_ROWS rows of each side and
    their products.
    """
    shape = (len(candidates), len(targets))
    block = np.empty(shape, dtype=np.float32) if out is None else out
    assert block.shape == shape, f"out must be {shape}, got {block.shape}"
    with kernel_threads(threads) as count:
        torch.set_num_threads(count)
        for column, of_targets in _blocks(targets, grid.targets):
            for row, of_candidates in _blocks(candidates, grid.candidates):
                sums = (of_candidates @ of_targets.T).mul_(grid.product)
                some = block[row : row + len(of_candidates), column : column + len(of_targets)]
                some[:] = sums.to(torch.float32).cpu().numpy()
    return block


@torch.no_grad()
def product_means(
    rows: Factors,
    columns: Sequence[Factors],
    row_step: float,
    column_step: float,
    groups: NDArray[np.integer] | None = None,
    *,
    threads: int | None = None,
) -> FloatArray:
    """Mean of S over the columns, for each row: (m, G) float32, G = 1 without `groups`.

    Either side may be the rows. The columns may come in parts; `groups` (n,) gives the group of
    each as 0 .. G - 1, none of them empty. Cost O((m G + n) R); exact up to two roundings of
    float64, the same bits for any cut and any number of threads. Raises EngineError for no column
    and for an empty group.
    """
    num_columns, rank = sum(len(part) for part in columns), rows.shape[1]
    _, sizes = columns_by_group(num_columns, groups)
    group_of = np.zeros(num_columns, np.int64) if groups is None else np.asarray(groups, np.int64)
    device = rows.device if isinstance(rows, Tensor) else torch.device("cpu")
    sums = torch.zeros((len(sizes), rank), dtype=torch.float64, device=device)
    first = 0
    with kernel_threads(threads) as count:
        torch.set_num_threads(count)
        for part in columns:
            for start, some in _blocks(part, column_step):
                where = group_of[first + start : first + start + len(some)]
                sums.index_add_(0, torch.from_numpy(where).to(device), some)
            first += len(part)
        means = np.empty((len(rows), len(sizes)), dtype=np.float32)
        scale = torch.from_numpy(row_step * column_step / sizes).to(device)
        for start, some in _blocks(rows, row_step):
            total = torch.zeros((len(some), len(sizes)), dtype=torch.float64, device=device)
            rest = sums
            for power in (2 * _PIECE_BITS, _PIECE_BITS, 0):  # pieces whose products are exact
                piece = torch.trunc(rest / 2.0**power)
                rest = rest - piece * 2.0**power
                total += (some @ piece.T) * 2.0**power
            means[start : start + len(some)] = (total * scale).to(torch.float32).cpu().numpy()
    return means


class ProductTop:
    """The k best candidates of each target among all that were offered; memory 16 N k bytes.

    Args: the targets' factors (N, R), the grid, k. Order: influence in float32 descending, then
    candidate id ascending.
    """

    def __init__(self, targets: Factors, grid: Grid, k: int) -> None:
        assert k > 0, "the best 0 of anything"
        self._targets, self._grid, self._k = targets, grid, k
        self._keys: list[Tensor] = [
            torch.empty((len(some), 0), dtype=torch.int64, device=some.device)
            for _, some in _blocks(targets, grid.targets)
        ]
        self._num_offered = 0

    @torch.no_grad()
    def offer(
        self, candidates: Factors, ids: IndexArray | None = None, *, threads: int | None = None
    ) -> None:
        """Offer candidates of these ids (m,), below 2**32, each once; default: those that follow.

        Cost m N R multiply-adds in float64, and a topk of every block. The same bits for any cut
        and order of the candidates and any number of threads.
        """
        if ids is None:
            ids = np.arange(self._num_offered, self._num_offered + len(candidates))
        assert ids.shape == (len(candidates),), "one id for each candidate"
        assert len(ids) == 0 or (ids.min() >= 0 and ids.max() <= ID_MASK), "ids of 32 bits"
        inverted = torch.from_numpy(ID_MASK - ids.astype(np.int64))
        with kernel_threads(threads) as count:
            torch.set_num_threads(count)
            for number, (_, of_targets) in enumerate(_blocks(self._targets, self._grid.targets)):
                for start, of_candidates in _blocks(candidates, self._grid.candidates):
                    sums = (of_targets @ of_candidates.T).mul_(self._grid.product)
                    some = inverted[start : start + len(of_candidates)].to(sums.device)
                    keys = torch.cat((self._keys[number], _sortable(sums, some)), dim=1)
                    most = min(self._k, keys.shape[1])
                    self._keys[number] = torch.topk(keys, most, dim=1).values
        self._num_offered += len(candidates)

    def top(self) -> Top:
        """The best so far: min(k, number offered) for each target."""
        keys = torch.cat(self._keys).cpu().numpy() if self._keys else np.empty((0, 0), np.int64)
        bits = (keys >> ID_BITS).astype(np.int32)
        influence = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)
        return Top(ID_MASK - (keys & ID_MASK), np.ascontiguousarray(influence))


def _sortable(sums: Tensor, inverted_ids: Tensor) -> Tensor:
    """One int64 of value and inverted id that sorts as we want; no two are equal."""
    bits = (sums.to(torch.float32) + 0.0).view(torch.int32)  # no -0.0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return ordered.to(torch.int64).mul_(2**ID_BITS).add_(inverted_ids)
