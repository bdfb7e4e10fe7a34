"""The two maps of a network: the right S, never out of range, and each row on its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import EngineError
from engine.kernels.pairwise import pairwise_block
from engine.kernels.units import TILE, FixedPointForm, norm_bound, take_units
from tests.kernels.forms import (
    ABSENT,
    Layers,
    integer_layers,
    integer_rows,
    normalised,
    random_layers,
    random_sides,
    unit_rows,
    units_of,
)
from tests.oracles.influence import form_matrix, layers_matrix, sums_matrix

UNIT = norm_bound(unit_rows(1, 1))
MOST_OFF = 0.5001  # steps that a unit may be off: it is rounded to the nearest
SIGNS = {
    "both": [1.0, -2.0, 0.5, -0.1],
    "positive": [1.0, 2.0, 3.0, 0.1],
    "negative": [-1.0, -2.0, -3.0, -0.1],
    "some zero": [0.0, 2.0, 0.0, -1.0],
    "zero": [0.0, 0.0, 0.0, 0.0],
    "one": [-1.0],
    "no hidden unit": [],
}


def with_weights(weights: list[float]) -> Layers:
    return random_layers(len(weights), 6)._replace(output_weight=np.array(weights))


def predicted(form: FixedPointForm, e_c: np.ndarray, e_t: np.ndarray) -> np.ndarray:
    return pairwise_block(form.of_candidates(e_c), form.of_targets(e_t))


def sides(form: FixedPointForm, embeddings: np.ndarray) -> Iterator[np.ndarray]:
    yield form.of_candidates(embeddings).rows()
    yield form.of_targets(embeddings).rows()


def assert_close(matrix: np.ndarray, expected: np.ndarray) -> None:
    """Equal up to a little of the largest influence."""
    atol = 2e-6 * np.abs(expected).max()
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=atol)


def assert_exact_but_for_steps(
    layers: Layers, norm: float, e_c: np.ndarray, e_t: np.ndarray
) -> None:
    """Each unit is off by half a step at most, so S by half a step a unit; and S is in range."""
    form = layers.form().fixed_point(norm)
    sums = sums_matrix(form.of_candidates(e_c), form.of_targets(e_t))
    assert np.abs(sums).max() < 2**31
    error = np.abs(sums - layers_matrix(*layers, e_c, e_t) / form.step)
    assert error.max() <= MOST_OFF * len(form.candidates.bias)


@pytest.mark.parametrize("signs", SIGNS)
def test_the_form_equals_the_network(signs: str) -> None:
    layers = with_weights(SIGNS[signs])
    e_c, e_t = unit_rows(7, 6, seed=1), unit_rows(5, 6, seed=2)
    expected = layers_matrix(*layers, e_c, e_t)
    np.testing.assert_allclose(form_matrix(layers.form(), e_c, e_t), expected, rtol=0, atol=1e-14)
    assert_close(predicted(layers.form().fixed_point(UNIT), e_c, e_t), expected)


@pytest.mark.parametrize("signs", SIGNS)
def test_a_unit_of_weight_zero_costs_nothing(signs: str) -> None:
    form = with_weights(SIGNS[signs]).form()
    assert len(form.candidate_bias) == len(form.target_bias) == 2 + np.count_nonzero(SIGNS[signs])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", Layers._fields)
def test_weights_that_are_not_finite_are_refused(part: str, value: float) -> None:
    layers = random_layers(3, 4)
    bad = np.array(getattr(layers, part))
    bad.reshape(-1)[-1] = value
    with pytest.raises(EngineError, match="NaN or infinite"):
        layers._replace(**{part: bad}).form()


@pytest.mark.parametrize("seed", range(5))
def test_a_network_of_small_integers_is_exact(seed: int) -> None:
    layers = integer_layers(20, 9, seed)
    e_c, e_t = integer_rows(70, 9, seed + 10), integer_rows(66, 9, seed + 20)
    form = layers.form().fixed_point(norm_bound(e_c, e_t))
    assert np.array_equal(predicted(form, e_c, e_t), layers_matrix(*layers, e_c, e_t))


@pytest.mark.parametrize("length", [1.0, 1e4])
@pytest.mark.parametrize(("hidden", "dim"), [(0, 5), (1, 1), (5, 2), (100, 32), (100, 384)])
def test_accuracy(hidden: int, dim: int, length: float) -> None:
    for seed in range(3):
        layers = random_layers(hidden, dim, seed)
        e_c = np.float32(length) * unit_rows(30, dim, seed + 10)
        e_t = np.float32(length) * unit_rows(20, dim, seed + 20)
        form = layers.form().fixed_point(norm_bound(e_c, e_t))
        assert_close(predicted(form, e_c, e_t), layers_matrix(*layers, e_c, e_t))


@pytest.mark.parametrize("length", [1e4, 1.0, 1e-6, 0.0])
@pytest.mark.parametrize(("hidden", "dim"), [(0, 5), (1, 1), (5, 2), (100, 32)])
def test_the_error_is_a_number_of_steps(hidden: int, dim: int, length: float) -> None:
    for seed in range(3):
        e_c = np.float32(length) * unit_rows(30, dim, seed + 10)
        e_t = np.float32(length) * unit_rows(20, dim, seed + 20)
        layers = random_layers(hidden, dim, seed)
        assert_exact_but_for_steps(layers, norm_bound(e_c, e_t), e_c, e_t)


def test_embeddings_of_many_lengths() -> None:
    lengths = np.geomspace(1e-3, 1e3, 40, dtype=np.float32)[:, None]
    e_c, e_t = lengths * unit_rows(40, 16, seed=1), lengths * unit_rows(40, 16, seed=2)
    assert_exact_but_for_steps(random_layers(50, 16), norm_bound(e_c, e_t), e_c, e_t)


def test_units_are_rounded_to_the_nearest() -> None:
    embeddings, form = unit_rows(100, 12), random_layers(30, 12).form()
    fixed = form.fixed_point(UNIT)
    for rows, weight, bias in zip(
        sides(fixed, embeddings),
        (form.candidate_weight, form.target_weight),
        (form.candidate_bias, form.target_bias),
        strict=True,
    ):
        exact = (embeddings.astype(np.float64) @ weight.T + bias) / fixed.step
        error = np.abs(rows - np.maximum(exact, ABSENT))
        assert 0.49 < error.max() <= MOST_OFF


@pytest.mark.parametrize("length", [1.0, 1e4])
@pytest.mark.parametrize("seed", range(8))
def test_embeddings_along_the_weights_stay_in_range(seed: int, length: float) -> None:
    layers = random_layers(1 + 3 * seed, 1 + seed**2, seed)
    along = (layers.on_candidates, layers.on_targets, layers.candidate_main, layers.target_main)
    directions = np.float32(length) * normalised(np.vstack(along))
    embeddings = np.concatenate((directions, -directions))
    assert_exact_but_for_steps(layers, norm_bound(embeddings), embeddings, embeddings)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("hidden", "dim"), [(1, 1), (10, 1000), (300, 100)])
def test_the_largest_possible_influence_fits(hidden: int, dim: int, sign: int) -> None:
    """All weights along one direction, and so large that the step is only just wide enough."""
    direction = unit_rows(1, dim, seed=3)
    longest = (UNIT * direction).astype(np.float32)
    nothing, weights = np.zeros(dim), np.full(hidden, float(sign))
    used = []
    for largest in (0.9899, 0.9901, 1.0, 1.015):
        size = largest * 2.0**-10 / (2 * hidden * UNIT)
        weight = np.repeat(size * direction.astype(np.float64), hidden, axis=0)
        layers = Layers(weight, weight, np.zeros(hidden), weights, nothing, nothing, 0.0)
        form = layers.form().fixed_point(UNIT)
        sums = sums_matrix(form.of_candidates(longest), form.of_targets(longest))
        assert sums.item() * sign * form.step == pytest.approx(largest * 2.0**-10, rel=1e-6)
        assert_close(predicted(form, longest, longest), sums * form.step)
        used.append(sums.item() * sign / 2**31)
    assert max(used) < 1
    assert used[0] > 0.98 and min(used) > 0.49  # and no wider than it must be


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e20])
def test_weights_of_any_size(scale: float) -> None:
    layers = random_layers(5, 4)
    layers = Layers(*layers[:3], *(scale * part for part in layers[3:]))
    e_c, e_t = unit_rows(6, 4, seed=1), unit_rows(5, 4, seed=2)
    matrix = predicted(layers.form().fixed_point(UNIT), e_c, e_t)
    assert_close(matrix, layers_matrix(*layers, e_c, e_t))


def test_norm_bound_is_the_same_for_all_normalised_rows() -> None:
    for dim in (1, 2, 12, 384, 1024):
        for seed in range(5):
            assert norm_bound(unit_rows(20, dim, seed)) == UNIT
    assert UNIT == 1.001


@pytest.mark.parametrize("length", [1e-6, 0.3, 0.999, 1.002, 7.0, 1e4, 1e25])
def test_norm_bound_is_a_bound_and_not_a_loose_one(length: float) -> None:
    rows = np.float32(length) * unit_rows(10, 8)
    assert length <= norm_bound(rows) < 2.003 * length


def test_norm_bound_is_that_of_the_longest_row() -> None:
    rows = unit_rows(5000, 3)
    rows[-1] *= 100
    bound = norm_bound(rows)
    assert 100 <= bound <= 200.3
    assert norm_bound(rows[:10], rows[-1:]) == norm_bound(rows[-1:], rows[:10]) == bound
    assert norm_bound(rows[:0], rows[:10]) == UNIT
    assert 0 < norm_bound(np.zeros((3, 4), np.float32)) == norm_bound(rows[:0]) < 1e-6


@pytest.mark.parametrize(("hidden", "dim"), [(1, 3), (5, 384), (100, 12)])
def test_a_row_does_not_depend_on_the_others(hidden: int, dim: int) -> None:
    form = random_layers(hidden, dim).form().fixed_point(UNIT)
    embeddings = unit_rows(2100, dim, seed=1)
    order = np.random.default_rng(2).permutation(len(embeddings))
    wholes, shuffled = sides(form, embeddings), sides(form, embeddings[order])
    for side, (whole, other) in enumerate(zip(wholes, shuffled, strict=True)):
        assert whole.shape == (2100, len(form.candidates.bias))
        assert np.array_equal(other, whole[order])
        for start in (0, 1, 1000):
            for size in (1, 2, 63, 64, 65, 1023, 1024, 1025):
                some = slice(start, start + size)
                assert np.array_equal([*sides(form, embeddings[some])][side], whole[some])


def test_a_row_does_not_depend_on_its_position() -> None:
    for hidden, dim in ((1, 1), (5, 12), (30, 100)):
        form = random_layers(hidden, dim).form().fixed_point(UNIT)
        for rows in sides(form, np.repeat(unit_rows(1, dim), 1100, axis=0)):
            assert (rows == rows[0]).all()


def form_with_a_row_on_the_edge(hidden: int, dim: int, row: np.ndarray) -> FixedPointForm:
    """The units of this candidate lie half way between two numbers, but for the last bits.

    So a sum in another order, as a library's product may take, rounds some to the other one.
    """
    layers = random_layers(hidden, dim)
    step = layers.form().fixed_point(UNIT).step
    size = np.abs(layers.output_weight) / step
    units = size * (layers.on_candidates @ row.astype(np.float64) + layers.hidden_bias)
    to_the_edge = (np.floor(units) + 0.5 - units) / size
    layers = layers._replace(hidden_bias=layers.hidden_bias + to_the_edge)
    form = layers.form().fixed_point(UNIT)
    assert form.step == step
    return form


@pytest.mark.parametrize(("hidden", "dim"), [(5, 33), (30, 12), (100, 384)])
def test_a_row_on_the_edge_does_not_depend_on_its_position(hidden: int, dim: int) -> None:
    row = unit_rows(1, dim, seed=5)
    form = form_with_a_row_on_the_edge(hidden, dim, row[0])
    alone = form.of_candidates(row).rows()
    for size in (2, 63, 65, 1023, 1024, 1025, 1100):
        rows = form.of_candidates(np.repeat(row, size, axis=0)).rows()
        differ = (rows != alone).any(axis=1)
        assert not differ.any(), f"positions {np.flatnonzero(differ)} of {size} rows"


def test_memory_layout_equivalence(tmp_path: Path) -> None:
    form = random_layers(30, 20).form().fixed_point(UNIT)
    embeddings = unit_rows(1100, 20, seed=1)
    read_only = embeddings.copy()
    read_only.flags.writeable = False
    mapped = np.memmap(tmp_path / "rows", np.float32, "w+", shape=embeddings.shape)
    mapped[:] = embeddings
    mapped.flush()
    layouts = {
        "read-only": read_only,
        "Fortran order": np.asfortranarray(embeddings),
        "strided rows": np.repeat(embeddings, 2, axis=0)[::2],
        "strided columns": np.repeat(embeddings, 2, axis=1)[:, ::2],
        "backwards": embeddings[::-1].copy()[::-1],
        "memory-mapped": np.memmap(tmp_path / "rows", np.float32, "r", shape=embeddings.shape),
        "float64": embeddings.astype(np.float64),
    }
    expected = [*sides(form, embeddings)]
    for name, layout in layouts.items():
        for rows, whole in zip(sides(form, layout), expected, strict=True):
            assert np.array_equal(rows, whole), name
        assert norm_bound(layout) == norm_bound(embeddings), name


def test_thread_equivalence() -> None:
    row = unit_rows(1, 64, seed=5)
    form = form_with_a_row_on_the_edge(100, 64, row[0])
    embeddings = unit_rows(2500, 64, seed=1)
    embeddings[::50] = row
    before, results = torch.get_num_threads(), []
    try:
        for torch_threads in (1, 2, 3):
            torch.set_num_threads(torch_threads)
            for threads in (1, 2, None):
                results.append(form.of_candidates(embeddings, threads=threads).tiles.tobytes())
            results.append(form.of_candidates(embeddings).tiles.tobytes())
            assert torch.get_num_threads() == torch_threads
    finally:
        torch.set_num_threads(before)
    assert all(result == results[0] for result in results)


def test_no_rows() -> None:
    form = random_layers(3, 4).form().fixed_point(norm_bound())
    for units in (form.of_candidates(unit_rows(0, 4)), form.of_targets(unit_rows(0, 4))):
        assert units.num_rows == 0
        assert units.rows().shape == (0, 5) and units.column(2).shape == (0,)


@pytest.mark.parametrize("num_rows", [1, 64, 130])
def test_units_by_row_by_column_and_by_block(num_rows: int) -> None:
    units = random_sides(num_rows, 1, num_units=5)[0]
    rows = units.rows()
    assert rows.shape == (num_rows, 5) and rows.dtype == np.int32 and rows.flags.c_contiguous
    for row in range(num_rows):
        assert rows[row].tolist() == units.tiles[row // TILE, :, row % TILE].tolist()
    for unit in range(5):
        assert units.column(unit).tolist() == rows[:, unit].tolist()
    for start in range(0, num_rows, TILE):
        for stop in {start, start + TILE, start + 2 * TILE, num_rows, num_rows + 7}:
            if stop % TILE and stop < num_rows:
                continue
            block = units.block(start, stop)
            assert (block.num_positive, block.step) == (units.num_positive, units.step)
            assert block.num_rows == len(rows[start:stop])
            assert np.array_equal(block.rows(), rows[start:stop])
            assert np.shares_memory(block.tiles, units.tiles) or start == stop


def test_a_block_that_cuts_a_tile_is_refused() -> None:
    units = random_sides(130, 1, num_units=3)[0]
    with pytest.raises(AssertionError, match="starts with a tile, got row 3"):
        units.block(3, 64)
    with pytest.raises(AssertionError, match="ends with a tile, got 65"):
        units.block(0, 65)


@pytest.mark.parametrize("signs", SIGNS)
def test_sums_over_slabs_of_every_size_equal_the_whole(signs: str) -> None:
    weights = np.sign(SIGNS[signs])
    layers = integer_layers(len(weights), 4)._replace(output_weight=weights)
    e_c, e_t = integer_rows(9, 4, seed=1), integer_rows(8, 4, seed=2)
    form = layers.form().fixed_point(norm_bound(e_c, e_t))
    whole = layers_matrix(*layers, e_c, e_t) / form.step
    for size in range(1, len(form.candidates.bias) + 2):
        slabs = [(slab.of_candidates(e_c), slab.of_targets(e_t)) for slab in form.slabs(size)]
        assert len(slabs) == -(-len(form.candidates.bias) // size)
        for slab, _ in slabs:
            assert slab.step == form.step and 0 <= slab.num_positive <= slab.tiles.shape[1]
        assert np.array_equal(sum(sums_matrix(*slab) for slab in slabs), whole)


@pytest.mark.parametrize(("hidden", "dim"), [(1, 7), (100, 12), (257, 33)])
def test_slabs_hold_the_very_units_of_the_whole(hidden: int, dim: int) -> None:
    form = random_layers(hidden, dim).form().fixed_point(UNIT)
    embeddings = unit_rows(70, dim, seed=1)
    wholes = [*sides(form, embeddings)]
    for size in (500, 64, 33, 32, 7, 5, 3, 2, 1):
        slabs = [[*sides(slab, embeddings)] for slab in form.slabs(size)]
        for whole, parts in zip(wholes, zip(*slabs, strict=True), strict=True):
            assert np.array_equal(np.concatenate(parts, axis=1), whole), f"slabs of {size}"


def test_slabs_hold_the_very_units_of_a_row_on_the_edge() -> None:
    for hidden, dim in ((33, 12), (100, 384), (257, 33)):
        row = unit_rows(1, dim, seed=5)
        form = form_with_a_row_on_the_edge(hidden, dim, row[0])
        whole = form.of_candidates(row).rows()
        for size in (64, 34, 32, 7, 3, 1):
            parts = [slab.of_candidates(row).rows() for slab in form.slabs(size)]
            differ = np.concatenate(parts, axis=1) != whole
            assert not differ.any(), f"slabs of {size}: units {np.flatnonzero(differ)}"


def test_rows_taken_from_parts() -> None:
    whole = random_sides(200, 1, num_units=5)[0]
    rows = whole.rows()
    parts = [
        units_of(rows[start:stop], whole.num_positive, whole.step)
        for start, stop in ((0, 70), (70, 70), (70, 134), (134, 200))
    ]
    for wanted in ([199], [70, 69, 133, 134, 0], [5] * 65, [], np.arange(200)[::-1]):
        taken = take_units(parts, np.array(wanted, dtype=np.int64))
        assert (taken.num_positive, taken.step) == (whole.num_positive, whole.step)
        assert np.array_equal(taken.rows(), rows[np.array(wanted, dtype=np.int64)])


def test_what_one_side_has_alone_lies_above_the_other() -> None:
    form = random_layers(4, 3).form().fixed_point(UNIT)
    candidates, targets = sides(form, unit_rows(10, 3))
    for own, other in ((candidates, targets), (targets, candidates)):
        absent = (own == ABSENT).all(axis=0)
        assert absent.sum() == 1 and (own[:, ~absent] != ABSENT).all()
        assert (other[:, absent] > ABSENT).all()
