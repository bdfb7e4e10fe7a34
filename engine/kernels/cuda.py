"""The pairwise kernels for embeddings that lie on a CUDA device; results are numpy, on the host.

    pairwise_block_cuda   S of all pairs, as `pairwise.pairwise_block`
    means_cuda            exact means without the matrix, as `means.mean_over`
    top_cuda              the k best candidates of each target, as `top.RunningTop`
    units_on_device       embeddings -> units; pair_sums: units -> sums, what the three stand on

The maths is that of `engine.kernels.units`. Sums of units are exact integers here too, so from the
same units these give the bits of the numba kernels, for any block. Units themselves are rounded
from a float64 product, so that few differ between processors, and those by one step.

Everything also runs on CPU tensors, slowly: that is how it is tested without a device.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.kernels.arrays import FloatArray
from engine.kernels.means import columns_by_group
from engine.kernels.top import ID_BITS, ID_MASK, Top
from engine.kernels.units import FixedPointForm, SideMap

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["means_cuda", "pair_sums", "pairwise_block_cuda", "top_cuda", "units_on_device"]

# Bytes of the sums of a block of pairs. What is made of them takes up to nine times as much.
BLOCK_BYTES = 2**27
# Rows of a matrix product. Always that many, the last ones padded: what a product rounds to may
# depend on its shape, and a row must not depend on how many it came with.
PRODUCT_ROWS = 8192
TOP_TARGETS = 8192  # targets at a time: few, so that a block holds many candidates of each
_SIDE = 64  # rows and columns of a tile of the Triton kernel


@torch.no_grad()
def units_on_device(side: SideMap, embeddings: Tensor) -> Tensor:
    """The units of one side, `form.candidates` or `form.targets`: (n, D) float32 -> (n, u) int32.

    Cost n D u multiply-adds in float64, memory 4 n u bytes on the device of the embeddings.
    A unit of all rows is contiguous, which is how sorts and `pair_sums` read them.
    """
    num_rows, device = len(embeddings), embeddings.device
    weight = torch.from_numpy(side.weight).to(device)
    bias = torch.from_numpy(side.bias).to(device)
    # whole blocks in memory too: their rows then start at addresses that allow wide loads
    padded_rows = -(-num_rows // PRODUCT_ROWS) * PRODUCT_ROWS
    units = torch.empty((len(bias), padded_rows), dtype=torch.int32, device=device)
    block = torch.zeros((PRODUCT_ROWS, weight.shape[1]), device=device, dtype=torch.float64)
    for start in range(0, num_rows, PRODUCT_ROWS):
        some = embeddings[start : start + PRODUCT_ROWS]
        block[: len(some)] = some
        block[len(some) :] = 0
        units[:, start : start + PRODUCT_ROWS] = torch.addmm(bias, weight, block.T).round_()
    return units[:, :num_rows].T


def pairwise_block_cuda(form: FixedPointForm, candidates: Tensor, targets: Tensor) -> FloatArray:
    """S of all pairs: (m, D), (N, D) on a device -> (m, N) float32 [c, t] on the host.

    Cost m N u maxima and additions, and the way of 4 m N bytes to the host. The device holds the
    units of both sides and one block.
    """
    rows = units_on_device(form.candidates, candidates)
    columns = units_on_device(form.targets, targets)
    matrix = np.empty((len(rows), len(columns)), dtype=np.float32)
    size = _block_size(len(columns))
    for start in range(0, len(rows), size):
        sums = pair_sums(rows[start : start + size], columns, form.num_positive)
        out = torch.from_numpy(matrix[start : start + size])
        out.copy_(sums.to(torch.float32).mul_(form.step))
    return matrix


def means_cuda(
    form: FixedPointForm,
    candidates: Tensor,
    targets: Tensor,
    groups: NDArray[np.integer] | None = None,
    over_candidates: bool = False,
) -> FloatArray:
    """Mean influence of each candidate over groups of targets: (m, D), (N, D) -> (m, G) float32.

    `groups` (N,) gives the group of each target as 0 .. G - 1, none of them empty; None is one
    group. `over_candidates` swaps the sides: (N, G) means of each target. Exact up to one rounding
    to float32, without the matrix: cost O((m G + N) u log N). The device holds the units of both
    sides, 8 m G bytes of sums, and a few vectors of one unit.

    Raises EngineError for no target and for an empty group.
    """
    rows = units_on_device(form.candidates, candidates)
    columns = units_on_device(form.targets, targets)
    if over_candidates:
        rows, columns = columns, rows
    by_group, sizes = columns_by_group(len(columns), groups)
    order = torch.from_numpy(by_group).to(columns.device)
    sums = torch.zeros((len(sizes), len(rows)), dtype=torch.int64, device=rows.device)
    for unit in range(rows.shape[1]):
        sign = 1 if unit < form.num_positive else -1
        levels = columns[:, unit][order]
        for group, some in enumerate(torch.split(levels, sizes.tolist())):
            sums[group].add_(_sums_of_maxima(rows[:, unit], some), alpha=sign)
    means = sums.cpu().numpy() / sizes[:, None] * form.step
    return np.ascontiguousarray(means.T, dtype=np.float32)


def top_cuda(form: FixedPointForm, candidates: Tensor, targets: Tensor, k: int) -> Top:
    """The min(k, M) best candidates of each target: (M, D), (N, D) on a device -> Top.

    Cost M N u maxima and additions and a torch.topk of every block; the device holds the units of
    both sides and one block, never M x N. Order: exact sum descending, then id ascending.
    """
    assert k > 0, "the best of no candidates"
    rows = units_on_device(form.targets, targets)
    columns = units_on_device(form.candidates, candidates)
    shape = (len(rows), min(k, len(columns)))
    top = Top(np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.float32))
    size = max(1, min(TOP_TARGETS, BLOCK_BYTES // (8 * k)))
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        keys = _best_keys(some, columns, form.num_positive, k).cpu().numpy()
        sums = (keys >> ID_BITS).astype(np.float32)
        top.ids[start : start + len(keys)] = ID_MASK - (keys & ID_MASK)
        top.influence[start : start + len(keys)] = sums * np.float32(form.step)
    return top


def pair_sums(rows: Tensor, columns: Tensor, num_positive: int) -> Tensor:
    """sum_k +-max(rows[i, k], columns[j, k]): (m, u), (n, u) int32 -> (m, n) int32, one device.

    Units before num_positive are added, the others subtracted; sums wrap around. On CUDA a Triton
    kernel with the sums in registers, for units laid out as `units_on_device` gives them; on CPU
    tensors, and where triton is not installed, u passes of torch, with as much memory again.
    """
    assert rows.shape[1] == columns.shape[1], "two sides of different networks"
    kernel = _triton_kernel() if rows.is_cuda else None
    if kernel is None:
        return _sums_by_torch(rows, columns, num_positive)
    with torch.cuda.device(rows.device):
        return _sums_by_triton(kernel, rows, columns, num_positive)


def _sums_by_torch(rows: Tensor, columns: Tensor, num_positive: int) -> Tensor:
    sums = rows.new_zeros((len(rows), len(columns)))
    larger = torch.empty_like(sums)
    for unit in range(rows.shape[1]):
        torch.maximum(rows[:, unit, None], columns[:, unit], out=larger)
        sums.add_(larger, alpha=1 if unit < num_positive else -1)
    return sums


def _sums_by_triton(kernel: Any, rows: Tensor, columns: Tensor, num_positive: int) -> Tensor:
    assert rows.stride(0) == columns.stride(0) == 1, "a unit of all rows must be contiguous"
    (m, num_units), n = rows.shape, len(columns)
    grid = (-(-m // _SIDE) * -(-n // _SIDE),)
    # rows of whole tiles: every one then starts at an address that allows wide stores
    sums = rows.new_zeros((m, -(-n // _SIDE) * _SIDE))
    strides = rows.stride(1), columns.stride(1), sums.stride(0)
    if sums.numel() > 0:
        kernel[grid](rows, columns, sums, m, n, *strides, num_units, num_positive, _SIDE)
    return sums[:, :n]


@functools.cache
def _triton_kernel() -> Any:
    """The compiled kernel, or None where triton is not installed, as with torch's CPU builds."""
    global tl
    try:
        import triton
        import triton.language as tl
    except ImportError:
        return None
    # nothing to gain from a version of the kernel for each kind of these numbers
    return triton.jit(_tile_sums, do_not_specialize=["m", "num_units", "num_positive"])


def _tile_sums(
    rows: tl.tensor,
    columns: tl.tensor,
    sums: tl.tensor,
    m: int,
    n: int,
    rows_stride: int,
    columns_stride: int,
    sums_stride: int,
    num_units: int,
    num_positive: int,
    side: tl.constexpr,
) -> None:
    """One side x side tile of the sums, in registers. Compiled by triton, not by Python.

    One axis of programs: the second of a grid ends at 65,535 tiles.
    """
    tiles = tl.cdiv(n, side)
    i = tl.program_id(0) // tiles * side + tl.arange(0, side)
    j = tl.program_id(0) % tiles * side + tl.arange(0, side)
    place = sums + i.to(tl.int64)[:, None] * sums_stride + j[None, :]
    inside = (i < m)[:, None] & (j < n)[None, :]
    # Zeros, but loaded: triton spreads a tile over the threads as its loads are spread. tl.zeros
    # gives a thread 32 rows of one column, and so 33 numbers to load for each unit instead of 12.
    total = tl.load(place, mask=inside)
    for _ in range(num_positive):
        a, b = tl.load(rows + i, mask=i < m), tl.load(columns + j, mask=j < n)
        total += tl.maximum(a[:, None], b[None, :])
        rows += rows_stride  # step by step: a unit times a stride may exceed an int32
        columns += columns_stride
    for _ in range(num_positive, num_units):
        a, b = tl.load(rows + i, mask=i < m), tl.load(columns + j, mask=j < n)
        total -= tl.maximum(a[:, None], b[None, :])
        rows += rows_stride
        columns += columns_stride
    tl.store(place, total, mask=inside)


def _sums_of_maxima(values: Tensor, levels: Tensor) -> Tensor:
    """[i] = sum_j max(values[i], levels[j]), (m,) and (n,) int32 -> (m,) int64."""
    ascending = torch.sort(levels).values
    below = torch.nn.functional.pad(torch.cumsum(ascending, dim=0, dtype=torch.int64), (1, 0))
    # so many levels count as the value, the others as themselves; one that equals it as either
    low = torch.searchsorted(ascending, values)
    return below[-1] - below[low] + low * values


def _best_keys(rows: Tensor, columns: Tensor, num_positive: int, k: int) -> Tensor:
    """(n, min(k, M)) int64, descending: of each row's best columns the sum, then the id inverted.

    One integer of both, so that a plain topk has the order of `top`: no two keys are equal.
    """
    best = rows.new_empty((len(rows), 0), dtype=torch.int64)
    size = _block_size(len(rows))
    for start in range(0, len(columns), size):
        sums = pair_sums(rows, columns[start : start + size], num_positive)
        inverted = ID_MASK - torch.arange(start, start + sums.shape[1], device=rows.device)
        keys = torch.cat((best, sums.to(torch.int64).mul_(2**ID_BITS).add_(inverted)), dim=1)
        best = torch.topk(keys, min(k, keys.shape[1]), dim=1).values
    return best


def _block_size(width: int) -> int:
    """How many rows of so many int32 sums make a block: whole tiles, one at least."""
    return max(1, BLOCK_BYTES // (4 * max(1, width)) // _SIDE) * _SIDE
