"""The streamed top k equals sorting the exact sums, ties included, however the blocks are cut."""

from __future__ import annotations

import dataclasses
from functools import reduce

import numpy as np
import pytest

from engine.kernels.pairwise import BAND_TILES, pairwise_block
from engine.kernels.tile_loops import ROWS, TILE
from engine.kernels.top import RunningTop, Top, merge_top, top_of_block
from engine.kernels.units import Units
from tests.kernels.forms import random_sides, units_of
from tests.oracles.influence import sums_matrix, top_of_matrix


def assert_same(a: Top, b: Top) -> None:
    assert a.ids.tolist() == b.ids.tolist()
    assert a.influence.tobytes() == b.influence.tobytes()
    assert (a.ids.dtype, a.influence.dtype) == (np.int64, np.float32)


def exact_top(candidates: Units, targets: Units, k: int) -> Top:
    ids, sums = top_of_matrix(sums_matrix(candidates, targets), k)
    return Top(ids, sums.astype(np.float32) * np.float32(targets.step))


def top_of(candidates: Units, targets: Units, k: int, threads: int | None = None) -> Top:
    best = RunningTop(targets, k)
    best.offer(candidates, threads=threads)
    return best.top()


def in_pieces(units: Units, size: int) -> list[Units]:
    rows = units.rows()
    return [
        units_of(rows[start : start + size], units.num_positive, units.step)
        for start in range(0, len(rows), size)
    ]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("k", [1, 2, 7, 60, 99])
def test_top_equals_the_sorted_sums(k: int, ties: bool) -> None:
    for num_units, num_positive in ((1, 1), (2, 1), (5, 3), (5, 0)):
        sides = random_sides(60, ROWS + 7, num_units, num_positive, ties=ties)
        top = top_of(*sides, k)
        assert top.ids.shape == (ROWS + 7, min(k, 60))
        assert_same(top, exact_top(*sides, k))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("k", [1, 7, 60, 99])
def test_top_of_a_block_equals_the_sorted_matrix(k: int, ties: bool) -> None:
    matrix = pairwise_block(*random_sides(60, 20, 3, ties=ties))
    ids, values = top_of_matrix(matrix, k)
    assert_same(top_of_block(matrix, k), Top(ids, values))
    assert_same(top_of_block(matrix, k, first_id=5), Top(ids + 5, values))


def test_many_equal_candidates() -> None:
    """Only the lowest ids are kept, and in order, when nearly everything ties."""
    rows = np.zeros((3 * TILE, 1), dtype=int)
    rows[[100, 150, 190]] = 1
    candidates, targets = units_of(rows, 1), units_of(np.full((2, 1), -5), 1)
    top = top_of(candidates, targets, 6)
    assert top.ids.tolist() == [[100, 150, 190, 0, 1, 2]] * 2
    assert top.influence.tolist() == [[1, 1, 1, 0, 0, 0]] * 2


def test_influence_is_compared_before_it_is_rounded() -> None:
    sums = np.array([[2**30], [2**30 + 2], [2**30 + 1], [2**30 + 2]])
    top = top_of(units_of(sums, 1), units_of(np.array([[0]]), 1), 3)
    assert top.ids.tolist() == [[1, 3, 2]]
    assert top.influence.tolist() == [[2.0**30] * 3]


def test_negative_and_extreme_sums() -> None:
    sums = np.array([[-(2**31) + 1], [2**31 - 1], [-7], [-(2**31) + 1]])
    top = top_of(units_of(sums, 1), units_of(np.array([[-(2**31)]]), 1), 5)
    assert top.ids.tolist() == [[1, 2, 0, 3]]


@pytest.mark.parametrize("ties", [False, True])
def test_several_tiles_and_threads(ties: bool) -> None:
    sides = random_sides(2 * TILE + 30, 3 * TILE + 5, 3, ties=ties)
    expected = exact_top(*sides, 50)
    for threads in (1, 2, None):
        assert_same(top_of(*sides, 50, threads), expected)


def test_several_bands_of_targets() -> None:
    sides = random_sides(TILE + 3, (BAND_TILES + 1) * TILE + 3, 3, ties=True)
    assert_same(top_of(*sides, 4, threads=1), exact_top(*sides, 4))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("size", [1, 7, TILE, 70])
def test_any_cut_of_the_candidates(size: int, ties: bool) -> None:
    candidates, targets = random_sides(TILE + 30, 20, 3, ties=ties)
    for k in (1, 10):
        best = RunningTop(targets, k)
        for piece in in_pieces(candidates, size):
            best.offer(piece)
        assert_same(best.top(), top_of(candidates, targets, k))


def test_the_top_so_far() -> None:
    candidates, targets = random_sides(90, 5, 3, ties=True)
    best = RunningTop(targets, 8)
    assert best.top().ids.shape == (5, 0)
    rows, offered = candidates.rows(), 0
    for size in (3, 0, 2, 60, 25):
        piece = rows[offered : offered + size]
        best.offer(units_of(piece, candidates.num_positive, candidates.step))
        offered += size
        so_far = units_of(rows[:offered], candidates.num_positive, candidates.step)
        assert_same(best.top(), exact_top(so_far, targets, 8))


@pytest.mark.parametrize("k", [1, 5, 70])
def test_candidates_from_worst_to_best_and_back(k: int) -> None:
    """When each is better than all before it, each is kept for a while."""
    sums = np.arange(-500, 500)[:, None]
    targets = units_of(np.full((3, 1), -1000), 1)
    for order in (slice(None), slice(None, None, -1)):
        candidates = units_of(sums[order], 1)
        assert_same(top_of(candidates, targets, k), exact_top(candidates, targets, k))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("size", [1, 7, 50, 150])
def test_candidates_in_any_order_with_their_ids(size: int, ties: bool) -> None:
    candidates, targets = random_sides(150, 20, 3, ties=ties)
    order = np.random.default_rng(size).permutation(150)
    shuffled = units_of(candidates.rows()[order], candidates.num_positive, candidates.step)
    for k in (1, 10):
        best = RunningTop(targets, k)
        for number, piece in enumerate(in_pieces(shuffled, size)):
            best.offer(piece, order[number * size : (number + 1) * size])
        assert_same(best.top(), top_of(candidates, targets, k))


def test_the_largest_ids() -> None:
    targets = units_of(np.array([[-5]]), 1)
    best = RunningTop(targets, 3)
    best.offer(units_of(np.array([[1], [1], [-3], [1]]), 1), np.array([2**32 - 1, 7, 0, 2**31]))
    assert best.top().ids.tolist() == [[7, 2**31, 2**32 - 1]]


@pytest.mark.parametrize("size", [1, 7, 50])
def test_merge_equivalence(size: int) -> None:
    candidates, targets = random_sides(90, 20, 2, ties=True)
    tops = []
    for number, piece in enumerate(in_pieces(candidates, size)):
        tops.append(top_of_block(pairwise_block(piece, targets), 10, first_id=number * size))
    whole = top_of(candidates, targets, 10)
    assert_same(reduce(lambda a, b: merge_top(a, b, 10), tops), whole)
    shuffled = [tops[i] for i in np.random.default_rng(0).permutation(len(tops))]
    assert_same(reduce(lambda a, b: merge_top(a, b, 10), shuffled), whole)


def test_empty_sides() -> None:
    candidates, targets = random_sides(4, 3, 2)
    top = top_of(candidates.block(0, 0), targets, 5)
    assert top.ids.shape == top.influence.shape == (3, 0)
    top = top_of(candidates, targets.block(0, 0), 2)
    assert top.ids.shape == top.influence.shape == (0, 2)


def test_what_does_not_fit_together_is_refused() -> None:
    candidates, targets = random_sides(3, 4, 5)
    with pytest.raises(AssertionError, match="different networks"):
        top_of(candidates, dataclasses.replace(targets, num_positive=1), 1)
    with pytest.raises(AssertionError, match="different steps"):
        top_of(candidates, dataclasses.replace(targets, step=2.0), 1)
    with pytest.raises(AssertionError, match="the best 0"):
        RunningTop(targets, 0)
