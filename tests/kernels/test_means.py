"""Means without the matrix are exactly the means of the exact matrix."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from engine.errors import EngineError
from engine.kernels.means import MeanSums, mean_over
from engine.kernels.units import TILE, Units
from tests.kernels.forms import random_sides, units_of
from tests.oracles.influence import sums_matrix


def exact_means(rows: Units, columns: Units, groups: np.ndarray | None = None) -> np.ndarray:
    sums = sums_matrix(rows, columns)
    if groups is None:
        groups = np.zeros(columns.num_rows, int)
    means = [
        sums[:, groups == group].sum(axis=1) / (groups == group).sum()
        for group in range(groups.max() + 1)
    ]
    return (np.stack(means, axis=1) * rows.step).astype(np.float32)


def parts_of(units: Units, size: int) -> list[Units]:
    rows = units.rows()
    return [
        units_of(rows[start : start + size], units.num_positive, units.step)
        for start in range(0, len(rows), size)
    ]


def slab(units: Units, start: int, stop: int) -> Units:
    tiles = np.ascontiguousarray(units.tiles[:, start:stop])
    num_positive = min(max(units.num_positive - start, 0), tiles.shape[1])
    return dataclasses.replace(units, tiles=tiles, num_positive=num_positive)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (40, 30), (130, 65), (64, 200)])
def test_means_are_those_of_the_matrix(shape: tuple[int, int], ties: bool) -> None:
    for num_units, num_positive in ((1, 0), (1, 1), (2, 1), (7, 4), (7, 0), (7, 7)):
        rows, columns = random_sides(*shape, num_units, num_positive, num_units, ties)
        means = mean_over(rows, columns)
        assert means.dtype == np.float32 and means.shape == (shape[0], 1)
        np.testing.assert_array_equal(means, exact_means(rows, columns))
        np.testing.assert_array_equal(mean_over(columns, rows), exact_means(columns, rows))


def test_hand_computed() -> None:
    rows = units_of(np.array([[0, 5], [10, -5]]), num_positive=1, step=0.5)
    columns = units_of(np.array([[-2, 0], [3, 0], [20, 9]]), num_positive=1, step=0.5)
    # sums of the first row: 0 - 5, 3 - 5, 20 - 9; of the second: 10 - 0, 10 - 0, 20 - 9
    expected = np.array([[4.0 / 3], [31.0 / 3]]) * 0.5
    np.testing.assert_array_equal(mean_over(rows, columns), expected.astype(np.float32))
    groups = mean_over(rows, columns, np.array([1, 0, 1]))
    assert groups.tolist() == [[-1.0, 1.5], [5.0, 5.25]]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("num_groups", [1, 2, 5])
def test_groups_of_columns(num_groups: int, ties: bool) -> None:
    rows, columns = random_sides(70, 90, 6, seed=num_groups, ties=ties)
    groups = np.random.default_rng(0).permutation(np.arange(90) ** 2 % 97 % num_groups)
    means = mean_over(rows, columns, groups)
    assert means.shape == (70, num_groups) and means.flags.c_contiguous
    np.testing.assert_array_equal(means, exact_means(rows, columns, groups))
    for dtype in (np.int8, np.int32, np.uint16):
        assert mean_over(rows, columns, groups.astype(dtype)).tobytes() == means.tobytes()
    for group in range(num_groups):
        alone = units_of(columns.rows()[groups == group], columns.num_positive, columns.step)
        assert mean_over(rows, alone)[:, 0].tobytes() == means[:, group].tobytes()


def test_one_column_a_group_is_the_matrix() -> None:
    rows, columns = random_sides(20, 9, 5)
    order = np.random.default_rng(0).permutation(9)
    expected = sums_matrix(rows, columns)[:, np.argsort(order)] * rows.step
    means = mean_over(rows, columns, order)
    np.testing.assert_array_equal(means, expected.astype(np.float32))


def test_sums_beyond_the_range_of_int32() -> None:
    rows = units_of(np.array([[2**31 - 1], [-(2**31) + 1]]), 1)
    columns = units_of(np.full((1000, 1), 2**31 - 2), 1)
    expected = np.array([[2**31 - 1], [2**31 - 2]], np.float32)
    np.testing.assert_array_equal(mean_over(rows, columns), expected)


def test_cut_order_and_thread_equivalence() -> None:
    rows, columns = random_sides(2 * TILE + 3, 157, 20)
    whole = mean_over(rows, columns, threads=1)
    assert mean_over(rows, columns, threads=2).tobytes() == whole.tobytes()
    assert mean_over(rows, columns).tobytes() == whole.tobytes()
    blocks = [
        mean_over(rows.block(start, start + TILE), columns)
        for start in range(0, rows.num_rows, TILE)
    ]
    assert np.concatenate(blocks).tobytes() == whole.tobytes()
    shuffled = np.random.default_rng(0).permutation(columns.rows())
    other = units_of(shuffled, columns.num_positive, columns.step)
    assert mean_over(rows, other).tobytes() == whole.tobytes()


@pytest.mark.parametrize("size", [1, 3, 4, 9, 100])
def test_slabs_of_units_add_up(size: int) -> None:
    rows, columns = random_sides(70, 90, 10, num_positive=4)
    groups = np.arange(90) % 3
    sums = MeanSums(70, 90, groups)
    starts = range(0, 10, size)
    for start in reversed(starts):
        sums.add([slab(rows, start, start + size)], [slab(columns, start, start + size)])
    whole = mean_over(rows, columns, groups)
    assert sums.means(rows.step).tobytes() == whole.tobytes()


@pytest.mark.parametrize("num_groups", [1, 3])
def test_sides_that_come_in_parts(num_groups: int) -> None:
    rows, columns = random_sides(150, 90, 5)
    groups = np.arange(90) * 7 % num_groups
    whole = mean_over(rows, columns, groups)
    for size in (1, 40, TILE, 100):
        sums = MeanSums(150, 90, groups)
        sums.add(parts_of(rows, 3 * size), parts_of(columns, size))
        assert sums.means(rows.step).tobytes() == whole.tobytes()


def test_no_rows() -> None:
    rows, columns = random_sides(3, 4, 5)
    assert mean_over(rows.block(0, 0), columns).shape == (0, 1)
    assert mean_over(rows.block(0, 0), columns, np.array([0, 1, 1, 0])).shape == (0, 2)


def test_no_column_and_an_empty_group_are_refused() -> None:
    rows, columns = random_sides(3, 4, 5)
    with pytest.raises(EngineError, match="0 targets"):
        mean_over(rows, columns.block(0, 0))
    with pytest.raises(EngineError, match="0 targets"):
        MeanSums(3, 0)
    with pytest.raises(EngineError, match="group 1 of the targets is empty"):
        mean_over(rows, columns, np.array([0, 2, 2, 0]))


def test_what_does_not_fit_together_is_refused() -> None:
    rows, columns = random_sides(3, 4, 5)
    with pytest.raises(AssertionError, match="different networks"):
        mean_over(rows, dataclasses.replace(columns, num_positive=1))
    with pytest.raises(AssertionError, match="one group for each column"):
        mean_over(rows, columns, np.array([0, 1, 0]))
