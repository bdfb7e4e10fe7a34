"""The innermost loops equal maxima and sums of integers modulo 2**32, and a matrix product."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from engine.kernels import tile_loops as module
from engine.kernels.tile_loops import ROWS, TILE, pair_tile, product_tile, register_block

LEAST, MOST = -(2**31), 2**31 - 1


@numba.njit
def call(
    rows: np.ndarray, first: int, columns: np.ndarray, num_positive: int, out: np.ndarray
) -> None:
    pair_tile(rows, first, columns, num_positive, out)


def assert_right(rows: np.ndarray, columns: np.ndarray, num_positive: int) -> None:
    larger = np.maximum(rows.astype(np.int64)[:, :, None], columns.astype(np.int64)[:, None, :])
    expected = larger[:num_positive].sum(axis=0) - larger[num_positive:].sum(axis=0)
    for first in (*range(0, TILE - ROWS, ROWS), TILE - ROWS):
        around = np.full((3 * ROWS, TILE), 77, dtype=np.int32)
        call(rows, first, columns, num_positive, around[ROWS : 2 * ROWS])
        sums = around[ROWS : 2 * ROWS].astype(np.int64)
        np.testing.assert_array_equal(sums % 2**32, expected[first : first + ROWS] % 2**32)
        assert (around[:ROWS] == 77).all() and (around[2 * ROWS :] == 77).all()


@pytest.mark.parametrize("num_units", [1, 2, 3, 8, 102])
def test_equals_maxima_and_sums(num_units: int) -> None:
    rng = np.random.default_rng(num_units)
    for largest in (1, 1000, MOST):
        rows, columns = rng.integers(-largest, largest, (2, num_units, TILE), np.int32, True)
        for num_positive in {0, 1, num_units // 2, num_units - 1, num_units}:
            assert_right(rows, columns, num_positive)


@pytest.mark.parametrize("num_positive", [0, 3, 5])
def test_values_at_the_ends_of_the_range(num_positive: int) -> None:
    rng = np.random.default_rng(0)
    ends = np.array([LEAST, LEAST + 1, -1, 0, 1, MOST - 1, MOST], dtype=np.int32)
    rows, columns = rng.choice(ends, (2, 5, TILE))
    assert_right(rows, columns, num_positive)


def test_an_absent_side_leaves_the_other() -> None:
    rows = np.full((1, TILE), LEAST, dtype=np.int32)
    columns = np.random.default_rng(0).integers(LEAST, MOST, (1, TILE), np.int32, True)
    out = np.empty((ROWS, TILE), dtype=np.int32)
    call(rows, 0, columns, 1, out)
    np.testing.assert_array_equal(out, np.repeat(columns, ROWS, axis=0))
    call(columns, ROWS, rows, 1, out)
    expected = columns[0, ROWS : 2 * ROWS]
    np.testing.assert_array_equal(out, np.repeat(expected[:, None], TILE, axis=1))


PROCESSORS = [{"avx512f": True, "avx2": True}, {"avx2": True}, {"neon": True}, {}]


@pytest.mark.parametrize("features", PROCESSORS)
def test_the_same_for_the_registers_of_other_processors(
    features: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    vector_bytes, block_rows = register_block(features)
    monkeypatch.setattr(module, "_VECTOR_BYTES", vector_bytes)
    monkeypatch.setattr(module, "ROWS", block_rows)

    @numba.njit
    def compiled_anew(
        rows: np.ndarray, first: int, columns: np.ndarray, num_positive: int, out: np.ndarray
    ) -> None:
        pair_tile(rows, first, columns, num_positive, out)

    rows, columns = np.random.default_rng(0).integers(-1000, 1000, (2, 9, TILE), np.int32)
    larger = np.maximum(rows[:, :, None], columns[:, None, :])
    expected = larger[:4].sum(axis=0) - larger[4:].sum(axis=0)
    for first in (0, 1, TILE - block_rows):
        out = np.empty((block_rows, TILE), dtype=np.int32)
        compiled_anew(rows, first, columns, 4, out)
        np.testing.assert_array_equal(out, expected[first : first + block_rows])


@numba.njit
def call_product(rows: np.ndarray, first: int, columns: np.ndarray, out: np.ndarray) -> None:
    product_tile(rows, first, columns, out)


@pytest.mark.parametrize("dim", [1, 7, 384])
def test_products(dim: int) -> None:
    rng = np.random.default_rng(dim)
    rows, columns = rng.standard_normal((dim, 3 * ROWS)), rng.standard_normal((dim, TILE))
    for first in (0, 1, 2 * ROWS):
        out = np.empty((ROWS, TILE))
        call_product(rows, first, columns, out)
        expected = rows.T[first : first + ROWS] @ columns
        np.testing.assert_allclose(out, expected, rtol=0, atol=1e-13 * dim)


def test_a_product_is_fused_and_in_order() -> None:
    tiny = 2.0**-60  # lost if the product were rounded before it is added
    rows = np.full((2, ROWS), 1.0 + 2.0**-30)
    columns = np.full((2, TILE), 1.0 + 2.0**-30)
    columns[0] = -(1.0 + 2.0**-29) / (1.0 + 2.0**-30)
    rows[0] = 1.0 + 2.0**-30
    out = np.empty((ROWS, TILE))
    call_product(rows, 0, columns, out)
    first = float(rows[0, 0]) * float(columns[0, 0])
    assert first == -(1.0 + 2.0**-29)
    np.testing.assert_array_equal(out, tiny)
