"""The product form: the same bits however it is cut, means and tops of the very matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.errors import EngineError
from engine.kernels import product
from engine.kernels.product import (
    Grid,
    ProductTop,
    largest_factor,
    product_block,
    product_means,
    unit_rows,
)


def factors(count: int, rank: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, rank)).astype(np.float32)


A, B = factors(700, 37, 0), factors(300, 37, 1)
GRID = Grid.of(largest_factor(A), largest_factor(B), 37)


def test_it_is_the_matrix_product() -> None:
    exact = A.astype(float) @ B.astype(float).T
    found = product_block(A, B, GRID)
    assert found.dtype == np.float32
    assert np.abs(found - exact).max() < 2e-6 * np.abs(exact).max()


@pytest.mark.parametrize("rows", [64, 100, 4096])
@pytest.mark.parametrize("threads", [1, 2])
def test_any_cut_and_any_threads_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, rows: int, threads: int
) -> None:
    whole = product_block(A, B, GRID, threads=1)
    means = product_means(A, [B], GRID.candidates, GRID.targets, threads=1)
    monkeypatch.setattr(product, "BLOCK_ROWS", rows)
    assert product_block(A, B, GRID, threads=threads).tobytes() == whole.tobytes()
    parts = [B[:77], B[77:]]
    cut = product_means(A, parts, GRID.candidates, GRID.targets, threads=threads)
    assert cut.tobytes() == means.tobytes()
    one_by_one = np.stack([product_block(A[i : i + 1], B, GRID)[0] for i in range(5)])
    assert one_by_one.tobytes() == whole[:5].tobytes()


def test_sums_are_exact_so_that_their_order_cannot_matter() -> None:
    left = torch.round(torch.from_numpy(A).double() / GRID.candidates)
    right = torch.round(torch.from_numpy(B).double() / GRID.targets)
    turned = torch.randperm(37, generator=torch.Generator().manual_seed(0))
    assert torch.equal(left @ right.T, left[:, turned] @ right[:, turned].T)
    assert float((left.abs() @ right.abs().T).max()) < 2.0**53


@pytest.mark.parametrize("rank", [1, 100, 5000])
def test_the_grid_leaves_room_for_every_sum(rank: int) -> None:
    grid = Grid.of(1.0, 3.0, rank)
    assert rank * (1.0 / grid.candidates) * (3.0 / grid.targets) <= 2.0**53
    assert max(grid.candidates, grid.targets) < 2.0**-16


def test_means_are_those_of_the_matrix_and_of_groups() -> None:
    matrix = product_block(A, B, GRID).astype(float)
    groups = np.arange(len(B)) % 4
    found = product_means(A, [B], GRID.candidates, GRID.targets, groups)
    expected = np.stack([matrix[:, groups == g].mean(axis=1) for g in range(4)], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    over_candidates = product_means(B, [A], GRID.targets, GRID.candidates)
    np.testing.assert_allclose(over_candidates[:, 0], matrix.mean(axis=0), atol=1e-6)
    with pytest.raises(EngineError, match="0 targets"):
        product_means(A, [B[:0]], GRID.candidates, GRID.targets)


def test_many_columns_leave_means_exact() -> None:
    many = np.tile(B, (2000, 1))  # 600,000 columns
    few, all_of = (product_means(A[:50], [x], GRID.candidates, GRID.targets) for x in (B, many))
    np.testing.assert_allclose(few, all_of, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 7, 1000])
def test_the_best_of_all_in_any_order_of_blocks(monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    matrix = product_block(A, B, GRID)
    order = np.lexsort((np.broadcast_to(np.arange(700)[:, None], matrix.shape), -matrix), axis=0)
    monkeypatch.setattr(product, "BLOCK_ROWS", 128)
    for ids in (np.arange(700), np.random.default_rng(3).permutation(700)):
        best = ProductTop(B, GRID, k)
        for some in np.array_split(ids, 3):
            best.offer(A[some], some)
        top = best.top()
        assert top.ids.tolist() == order[:k].T.tolist()
        assert top.influence.tobytes() == np.take_along_axis(matrix, order[:k], 0).T.tobytes()


def test_ties_go_to_the_lower_row_and_negatives_keep_their_order() -> None:
    rows = np.array([[1.0], [-2.0], [1.0], [0.0], [-0.0]], np.float32)
    best = ProductTop(np.ones((1, 1), np.float32), Grid.of(2.0, 1.0, 1), 5)
    best.offer(rows)
    assert best.top().ids.tolist() == [[0, 2, 3, 4, 1]]
    assert best.top().influence.tolist() == [[1.0, 1.0, 0.0, 0.0, -2.0]]


def test_tensors_give_what_arrays_do() -> None:
    a, b = torch.from_numpy(A), torch.from_numpy(B)
    assert product_block(a, b, GRID).tobytes() == product_block(A, B, GRID).tobytes()
    steps = GRID.candidates, GRID.targets
    assert product_means(a, [b], *steps).tobytes() == product_means(A, [B], *steps).tobytes()
    np.testing.assert_allclose(np.asarray(unit_rows(a)), np.asarray(unit_rows(A)), atol=1e-6)


def test_rows_of_zeros_stay_zeros() -> None:
    assert not np.asarray(unit_rows(np.zeros((2, 3), np.float32))).any()
