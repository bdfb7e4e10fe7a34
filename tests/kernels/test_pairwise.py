"""The pairwise kernel: right, and the same bits for any cut of either side and thread count."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from engine.kernels.pairwise import BAND_TILES, pairwise_block
from engine.kernels.tile_loops import ROWS, TILE
from engine.kernels.units import Units, norm_bound
from tests.kernels.forms import Layers, random_layers, random_sides, unit_rows, units_of
from tests.oracles.influence import layers_matrix, sums_matrix


def exact_block(candidates: Units, targets: Units) -> np.ndarray:
    sums = sums_matrix(candidates, targets)
    return (sums.astype(np.float32) * candidates.step).astype(np.float32)


def some_rows(units: Units, start: int, stop: int) -> Units:
    return units_of(units.rows()[start:stop], units.num_positive, units.step)


@pytest.mark.parametrize("num_units", [1, 2, 5, 102])
@pytest.mark.parametrize(
    "shape", [(1, 1), (7, 3), (TILE, TILE), (ROWS + 1, TILE + 1), (2 * TILE + 3, 2 * TILE - 1)]
)
def test_block_equals_pair_by_pair(shape: tuple[int, int], num_units: int) -> None:
    for num_positive in {0, 1, num_units // 2, num_units}:
        sides = random_sides(*shape, num_units, num_positive, seed=num_units)
        block = pairwise_block(*sides)
        assert block.dtype == np.float32 and block.flags.c_contiguous
        np.testing.assert_array_equal(block, exact_block(*sides))


def test_hand_computed() -> None:
    layers = Layers(
        on_candidates=np.array([[1.0], [-1.0]]),
        on_targets=np.array([[2.0], [3.0]]),
        hidden_bias=np.array([0.0, 1.0]),
        output_weight=np.array([2.0, -1.0]),
        candidate_main=np.array([10.0]),
        target_main=np.array([100.0]),
        constant=0.5,
    )
    e_c, e_t = np.array([[1.0]], np.float32), np.array([[1.0], [-2.0]], np.float32)
    form = layers.form().fixed_point(norm_bound(e_c, e_t))
    block = pairwise_block(form.of_candidates(e_c), form.of_targets(e_t))
    # 2 relu(1 + 2) - relu(-1 + 3 + 1) + 10 + 100 + 0.5
    # 2 relu(1 - 4) - relu(-1 - 6 + 1) + 10 - 200 + 0.5
    assert block.tolist() == [[113.5, -189.5]]


def test_equals_the_network_over_several_tiles() -> None:
    layers = random_layers(13, 8)
    e_c, e_t = unit_rows(3 * TILE + 5, 8, seed=1), unit_rows(TILE + 30, 8, seed=2)
    form = layers.form().fixed_point(norm_bound(e_c, e_t))
    expected = layers_matrix(*layers, e_c, e_t)
    block = pairwise_block(form.of_candidates(e_c), form.of_targets(e_t))
    np.testing.assert_allclose(block, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("size", [1, ROWS + 1, TILE - 1, TILE, 50])
def test_a_cut_of_either_side_changes_nothing(size: int) -> None:
    candidates, targets = random_sides(TILE + 5, TILE + 9, 13)
    whole = pairwise_block(candidates, targets)
    for start in range(0, candidates.num_rows, size):
        block = pairwise_block(some_rows(candidates, start, start + size), targets)
        assert block.tobytes() == whole[start : start + size].tobytes()
    for start in range(0, targets.num_rows, size):
        block = pairwise_block(candidates, some_rows(targets, start, start + size))
        assert block.tobytes() == whole[:, start : start + size].tobytes()


def test_blocks_of_tiles_make_up_the_whole() -> None:
    candidates, targets = random_sides(3 * TILE + 5, 2 * TILE + 9, 13)
    whole = pairwise_block(candidates, targets)
    pieces = np.zeros_like(whole)
    for row in range(0, candidates.num_rows, 2 * TILE):
        for column in range(0, targets.num_rows, TILE):
            some = candidates.block(row, row + 2 * TILE), targets.block(column, column + TILE)
            pieces[row : row + 2 * TILE, column : column + TILE] = pairwise_block(*some)
    assert pieces.tobytes() == whole.tobytes()


def test_transposed_roles_give_the_transposed_matrix() -> None:
    candidates, targets = random_sides(TILE + 9, 2 * TILE + 30, 7)
    block = pairwise_block(candidates, targets)
    assert pairwise_block(targets, candidates).T.tobytes() == block.tobytes()


def test_thread_and_band_equivalence() -> None:
    candidates, targets = random_sides((BAND_TILES + 1) * TILE + 3, TILE + 3, 3)
    one = pairwise_block(candidates, targets, threads=1)
    np.testing.assert_array_equal(one, exact_block(candidates, targets))
    assert pairwise_block(candidates, targets, threads=2).tobytes() == one.tobytes()
    assert pairwise_block(candidates, targets).tobytes() == one.tobytes()


def test_out_may_be_part_of_a_larger_matrix() -> None:
    candidates, targets = random_sides(70, 75, 5)
    larger = np.full((100, 90), 7, dtype=np.float32)
    part = larger[10:80, 5:80]
    assert pairwise_block(candidates, targets, out=part) is part
    np.testing.assert_array_equal(part, pairwise_block(candidates, targets))
    part[:] = 7
    assert (larger == 7).all()


def test_units_may_be_memory_mapped(tmp_path: Path) -> None:
    candidates, targets = random_sides(70, 75, 5)
    mapped = []
    for name, units in (("candidates", candidates), ("targets", targets)):
        np.save(tmp_path / f"{name}.npy", units.tiles)
        tiles = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
        mapped.append(dataclasses.replace(units, tiles=tiles))
    np.testing.assert_array_equal(pairwise_block(*mapped), pairwise_block(candidates, targets))


def test_empty_sides() -> None:
    candidates, targets = random_sides(3, 4, 5)
    none = candidates.block(0, 0)
    assert pairwise_block(none, targets).shape == (0, 4)
    assert pairwise_block(candidates, none).shape == (3, 0)
    assert pairwise_block(none, none).shape == (0, 0)


def test_what_does_not_fit_together_is_refused() -> None:
    candidates, targets = random_sides(3, 4, 5)
    with pytest.raises(AssertionError, match="different networks"):
        pairwise_block(candidates, dataclasses.replace(targets, num_positive=1))
    with pytest.raises(AssertionError, match="different steps"):
        pairwise_block(candidates, dataclasses.replace(targets, step=2.0))
    with pytest.raises(AssertionError, match=r"out must be \(3, 4\), got \(4, 3\)"):
        pairwise_block(candidates, targets, out=np.empty((4, 3), np.float32))
