"""`pairwise_block`: influence of every candidate of a block on every target, as a matrix.

Means of S do not need S: see `means`. The best candidates of each target: see `top`.
"""

from __future__ import annotations

import numba
import numpy as np

from engine.kernels.arrays import FloatArray
from engine.kernels.compiled import compiled
from engine.kernels.threads import kernel_threads
from engine.kernels.tile_loops import ROWS, TILE, pair_tile
from engine.kernels.units import UnitArray, Units

__all__ = ["BAND_TILES", "pairwise_block"]

# Tiles of rows that share a tile of columns: the column tile stays in the first-level cache, the
# rows of a band (1024 rows of 102 units: 420 KB) in the second.
BAND_TILES = 16


def pairwise_block(
    candidates: Units,
    targets: Units,
    *,
    out: FloatArray | None = None,
    threads: int | None = None,
) -> FloatArray:
    """S of all pairs of two sides: (m, N) float32 [c, t], written to `out` if given.

    Cost m N u maxima and additions, u two more than the hidden units. The same bits for any cut
    of either side and any number of threads: sums are exact, and rounded once to float32.
    """
    assert candidates.num_positive == targets.num_positive, "two sides of different networks"
    assert candidates.step == targets.step, "two sides with different steps"
    shape = (candidates.num_rows, targets.num_rows)
    block = np.empty(shape, dtype=np.float32) if out is None else out
    assert block.shape == shape, f"out must be {shape}, got {block.shape}"
    with kernel_threads(threads) as num_threads:
        band = min(BAND_TILES, -(-len(candidates.tiles) // num_threads) or 1)
        _fill(
            candidates.tiles,
            targets.tiles,
            candidates.num_positive,
            np.float32(candidates.step),
            band,
            block,
        )
    return block


@compiled(parallel=True)
def _fill(
    rows: UnitArray,
    columns: UnitArray,
    num_positive: int,
    step: np.float32,
    band: int,
    out: FloatArray,
) -> None:
    m, n = out.shape
    num_tiles = (m + TILE - 1) // TILE
    for number in numba.prange((num_tiles + band - 1) // band):
        sums = np.empty((ROWS, TILE), dtype=np.int32)
        for b in range((n + TILE - 1) // TILE):
            start = b * TILE
            width = min(TILE, n - start)
            for a in range(number * band, min(num_tiles, (number + 1) * band)):
                for next_row in range(0, min(TILE, m - a * TILE), ROWS):
                    first = min(next_row, TILE - ROWS)  # the last block overlaps the one before
                    pair_tile(rows[a], first, columns[b], num_positive, sums)
                    for i in range(next_row - first, min(ROWS, m - a * TILE - first)):
                        row = out[a * TILE + first + i, start : start + width]
                        for j in range(width):
                            row[j] = np.float32(sums[i, j]) * step
