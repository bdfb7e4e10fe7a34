"""The form of a network that every pairwise kernel computes with: two affine maps and a maximum.

The first layer of the InfluenceNetwork splits over its two inputs, and w relu(p + q) is
+-(max(|w| p, -|w| q) + |w| q), whose last term is linear in the target (docs/method.md, All pairs).
So with C = E_c W_c' + b_c and T = E_t W_t' + b_t, a vector of u units for each row,

    S[c, t] = sum_k sign_k max(C[c, k], T[t, k])

and a pair costs a maximum and an addition per unit. What is linear in one side alone (main
effects, constants) is one more unit a side, below which the other side stays.

Units are fixed-point numbers, int32 in multiples of a step that is a power of two. The step comes
from the weights and a bound of the embeddings' length, so that no |S| can leave the range: with
embeddings of unit length it is some 2^-31 of the largest S that the weights allow, finer than what
float32 sums of the same terms lose. In return every sum is exact: S is the same bits for
any order, tile, block, thread count and processor, and means are those of the very matrix.

    PairwiseForm   the two maps, float64; `InfluenceNetwork.factorise` returns one
    FixedPointForm the same with its step: embeddings -> Units
    Units          one side's units, in tiles
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import EngineError
from engine.kernels.arrays import DoubleArray, FloatArray, IndexArray
from engine.kernels.compiled import compiled
from engine.kernels.threads import kernel_threads
from engine.kernels.tile_loops import ROWS, TILE, product_tile

__all__ = [
    "TILE",
    "FixedPointForm",
    "PairwiseForm",
    "SideMap",
    "UnitArray",
    "Units",
    "norm_bound",
    "squared_lengths",
    "take_units",
]

UnitArray = NDArray[np.int32]

_BELOW_ALL = -(2.0**31)  # the least int32: a unit that holds it leaves the other side's as it is
_LARGEST = 0.99 * 2.0**31  # the rest is for rounding


@dataclass(frozen=True)
class PairwiseForm:
    """S[c, t] = sum_k sign_k max(C[c, k], T[t, k]), with C and T affine in the embeddings.

    Attributes:
        candidate_weight: W_c, (u, D) float64.
        candidate_bias: b_c, (u,) float64; -inf where the unit belongs to the targets alone.
        target_weight: W_t, (u, D) float64.
        target_bias: b_t, (u,) float64; -inf where the unit belongs to the candidates alone.
        num_positive: units before this one are added, the others subtracted.
    """

    candidate_weight: DoubleArray
    candidate_bias: DoubleArray
    target_weight: DoubleArray
    target_bias: DoubleArray
    num_positive: int

    @classmethod
    def of_layers(
        cls,
        on_candidates: DoubleArray,
        on_targets: DoubleArray,
        hidden_bias: DoubleArray,
        output_weight: DoubleArray,
        candidate_main: DoubleArray,
        target_main: DoubleArray,
        constant: float,
    ) -> PairwiseForm:
        """Of S = m_c e_c + m_t e_t + constant + sum_k w_k relu(a_k e_c + b_k e_t + c_k).

        m_c = `candidate_main` (D,), m_t = `target_main` (D,), a = `on_candidates` (h, D),
        b = `on_targets` (h, D), c = `hidden_bias` (h,), w = `output_weight` (h,). Raises
        EngineError for weights that are not finite: the fit has diverged.
        """
        parts = (on_candidates, on_targets, hidden_bias, output_weight, candidate_main, target_main)
        if not (all(np.isfinite(part).all() for part in parts) and math.isfinite(constant)):
            raise EngineError(
                "a weight of the network is NaN or infinite: its fit diverged; fit it again "
                "with a lower learning rate"
            )
        size = np.abs(output_weight)[:, None]
        own = np.concatenate((size * on_candidates, candidate_main[None]))
        other = np.concatenate(
            (-size * on_targets, (target_main + output_weight @ on_targets)[None])
        )
        own_bias = np.append(size[:, 0] * hidden_bias, constant)
        positive, negative = np.flatnonzero(output_weight > 0), np.flatnonzero(output_weight < 0)
        last = len(output_weight)  # the row of what is linear
        absent = np.full(1, last)
        return cls(
            candidate_weight=np.concatenate(
                (own[positive], own[absent], 0 * own[absent], own[negative])
            ),
            candidate_bias=np.concatenate(
                (own_bias[positive], own_bias[absent], [-np.inf], own_bias[negative])
            ),
            target_weight=np.concatenate(
                (other[positive], 0 * other[absent], other[absent], other[negative])
            ),
            target_bias=np.concatenate(
                (np.zeros(len(positive)), [-np.inf, 0.0], np.zeros(len(negative)))
            ),
            num_positive=len(positive) + 2,
        )

    def fixed_point(self, norm: float) -> FixedPointForm:
        """The form for embeddings no longer than `norm` (see `norm_bound`)."""
        bounds = [
            np.where(np.isfinite(bias), norm * np.linalg.norm(weight, axis=1) + np.abs(bias), 0.0)
            for weight, bias in (
                (self.candidate_weight, self.candidate_bias),
                (self.target_weight, self.target_bias),
            )
        ]
        largest = float(np.maximum(*bounds).sum())
        step = 2.0 ** math.ceil(math.log2(max(largest, 2.0**-80) / _LARGEST))
        return FixedPointForm(
            candidates=SideMap.of(self.candidate_weight, self.candidate_bias, step),
            targets=SideMap.of(self.target_weight, self.target_bias, step),
            num_positive=self.num_positive,
            step=step,
        )


@dataclass(frozen=True)
class SideMap:
    """Embeddings -> units of one side, as multiples of the step: weight (u, D), bias (u, 1)."""

    weight: DoubleArray
    bias: DoubleArray

    @classmethod
    def of(cls, weight: DoubleArray, bias: DoubleArray, step: float) -> SideMap:
        return cls(weight / step, np.maximum(bias / step, _BELOW_ALL)[:, None])


@dataclass(frozen=True)
class FixedPointForm:
    """A PairwiseForm with its step: `of_candidates` and `of_targets` give the units of a side."""

    candidates: SideMap
    targets: SideMap
    num_positive: int
    step: float

    def of_candidates(self, embeddings: FloatArray, *, threads: int | None = None) -> Units:
        """(m, D) -> Units of the candidate side; see `of_targets`."""
        return self._units(self.candidates, embeddings, threads)

    def of_targets(self, embeddings: FloatArray, *, threads: int | None = None) -> Units:
        """(n, D) -> Units of the target side. Cost n D u multiply-adds; no row depends on another.

        Embeddings must be finite and no longer than the norm that the form was made for.
        """
        return self._units(self.targets, embeddings, threads)

    def slabs(self, size: int) -> Iterator[FixedPointForm]:
        """The form cut into `size` units each, for sums over units that save memory."""
        for start in range(0, len(self.candidates.bias), size):
            some = slice(start, start + size)
            yield replace(
                self,
                candidates=SideMap(self.candidates.weight[some], self.candidates.bias[some]),
                targets=SideMap(self.targets.weight[some], self.targets.bias[some]),
                num_positive=min(max(self.num_positive - start, 0), size),
            )

    def _units(self, side: SideMap, embeddings: FloatArray, threads: int | None) -> Units:
        num_rows, num_units = len(embeddings), len(side.bias)
        tiles = _empty_tiles(num_rows, num_units)
        padding = np.zeros((-num_units % ROWS, side.weight.shape[1]))
        weight = np.ascontiguousarray(np.concatenate((side.weight, padding)).T)
        with kernel_threads(threads):
            _fill_units(np.asarray(embeddings, np.float32), weight, side.bias, tiles)
        return Units(tiles, num_rows, self.num_positive, self.step)


@dataclass(frozen=True)
class Units:
    """The units of the rows of one side.

    Attributes:
        tiles: (ceil(n / TILE), u, TILE) int32 [tile, unit, row of the tile], contiguous, may be
            memory-mapped; in multiples of `step`. Rows of the last tile beyond n hold anything.
        num_rows: n.
        num_positive: units before this one are added, the others subtracted.
        step: of one unit of S, a power of two.
    """

    tiles: UnitArray
    num_rows: int
    num_positive: int
    step: float

    def block(self, start: int, stop: int) -> Units:
        """Rows start..stop; a view. Both must be multiples of TILE, or stop the number of rows."""
        stop = min(stop, self.num_rows)
        assert start % TILE == 0, f"a block starts with a tile, got row {start}"
        assert stop % TILE == 0 or stop == self.num_rows, f"a block ends with a tile, got {stop}"
        return replace(
            self, tiles=self.tiles[start // TILE : -(-stop // TILE)], num_rows=max(stop - start, 0)
        )

    def column(self, unit: int) -> UnitArray:
        """One unit of every row, (n,) int32; not to be written to."""
        return self.tiles[:, unit].reshape(-1)[: self.num_rows]

    def rows(self) -> UnitArray:
        """(n, u) int32, contiguous; not to be written to."""
        by_row = self.tiles.transpose(0, 2, 1).reshape(-1, self.tiles.shape[1])
        return np.ascontiguousarray(by_row[: self.num_rows])


def norm_bound(*embeddings: FloatArray | Tensor, threads: int | None = None) -> float:
    """A bound of the length of all rows of some (n, D): a power of two, and 0.1 % above it.

    Embeddings of unit length, rounding included, have the bound 1.001 whichever rows they are, so
    the form of a network does not depend on them.
    """
    longest = 0.0
    for side in embeddings:
        if isinstance(side, Tensor):
            squares = torch.linalg.vector_norm(side, dim=1, dtype=torch.float64).square()
            longest = max(longest, float(squares.max())) if len(side) > 0 else longest
        else:
            squared = squared_lengths(side, threads=threads)
            longest = max(longest, float(squared.max(initial=0.0)))
    return 1.001 * 2.0 ** math.ceil(math.log2(max(math.sqrt(longest) / 1.001, 2.0**-40)))


def squared_lengths(embeddings: FloatArray, *, threads: int | None = None) -> DoubleArray:
    """Squared length of each row of (n, D), (n,) float64; not finite where a number is not."""
    squared = np.empty(len(embeddings))
    with kernel_threads(threads):
        _fill_squared_lengths(embeddings, squared)
    return squared


@compiled(parallel=True)
def _fill_squared_lengths(embeddings: FloatArray, squared: DoubleArray) -> None:
    n, dim = embeddings.shape
    for i in numba.prange(n):
        a = b = c = d = 0.0  # four chains of additions side by side
        for k in range(0, dim - dim % 4, 4):
            a += np.float64(embeddings[i, k]) ** 2
            b += np.float64(embeddings[i, k + 1]) ** 2
            c += np.float64(embeddings[i, k + 2]) ** 2
            d += np.float64(embeddings[i, k + 3]) ** 2
        for k in range(dim - dim % 4, dim):
            a += np.float64(embeddings[i, k]) ** 2
        squared[i] = a + b + c + d


def _empty_tiles(num_rows: int, num_units: int) -> UnitArray:
    """Tiles that start with a cache line, as those of a file do: no vector then crosses one."""
    shape = (-(-num_rows // TILE), num_units, TILE)
    size = math.prod(shape)
    memory = np.empty(size + 16, dtype=np.int32)
    start = -(memory.ctypes.data // 4) % 16
    return memory[start : start + size].reshape(shape)


def take_units(parts: Sequence[Units], rows: IndexArray) -> Units:
    """Rows of one side whose units come in parts, numbered through; in the given order, a copy."""
    tiles = _empty_tiles(len(rows), parts[0].tiles.shape[1])
    tiles[-1:] = 0
    starts = np.cumsum([0, *(part.num_rows for part in parts)])
    part_of = np.searchsorted(starts, rows, side="right") - 1
    for number in np.unique(part_of):
        places = np.flatnonzero(part_of == number)
        _gather(parts[number].tiles, rows[places] - starts[number], places, tiles)
    return replace(parts[0], tiles=tiles, num_rows=len(rows))


@compiled(parallel=True)
def _fill_units(
    embeddings: FloatArray, weight: DoubleArray, bias: DoubleArray, tiles: UnitArray
) -> None:
    """tiles = round(weight' embeddings + bias), weight (D, u) with u padded to whole blocks."""
    n, dim = embeddings.shape
    num_units = bias.shape[0]
    for tile in numba.prange(tiles.shape[0]):
        columns = np.zeros((dim, TILE))  # the tile's rows in float64, those beyond n as zeros
        for row in range(min(TILE, n - tile * TILE)):
            for d in range(dim):
                columns[d, row] = embeddings[tile * TILE + row, d]
        products = np.empty((ROWS, TILE))
        for first in range(0, num_units, ROWS):
            product_tile(weight, first, columns, products)
            for i in range(min(ROWS, num_units - first)):
                for row in range(TILE):
                    unit = np.rint(products[i, row] + bias[first + i, 0])
                    tiles[tile, first + i, row] = np.int32(unit)


@compiled()
def _gather(tiles: UnitArray, rows: IndexArray, places: IndexArray, out: UnitArray) -> None:
    for i in range(rows.shape[0]):
        tile, row = rows[i] // TILE, rows[i] % TILE
        for unit in range(tiles.shape[1]):
            out[places[i] // TILE, unit, places[i] % TILE] = tiles[tile, unit, row]
