"""The pairwise kernel: right, and the same bits for any block and thread count."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from engine.errors import EngineError
from engine.kernels.pairwise import ROWS, TILE, PairwiseForm, pairwise_block
from tests.kernels.forms import random_form
from tests.oracles.influence import form_matrix


@pytest.mark.parametrize("hidden", [1, 3, 4, 5, 100])
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (33, 41)])
def test_block_equals_pair_by_pair(shape: tuple[int, int], hidden: int) -> None:
    form = random_form(*shape, hidden, seed=hidden)
    expected = form_matrix(form)
    block = pairwise_block(form)
    assert block.dtype == np.float32 and block.flags.c_contiguous
    np.testing.assert_allclose(block, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_hand_computed() -> None:
    form = PairwiseForm(
        candidate_units=np.array([[1, -1]], dtype=np.float32),
        target_units=np.array([[2, 3], [-4, 0]], dtype=np.float32),
        weights=np.array([2, -1], dtype=np.float32),
        candidate_bias=np.array([10], dtype=np.float32),
        target_bias=np.array([0, 100], dtype=np.float32),
    )
    # 2 relu(1 + 2) - relu(-1 + 3) + 10 = 14;  2 relu(-3) - relu(-1) + 110 = 110
    assert pairwise_block(form).tolist() == [[14, 110]]


def test_block_and_tile_equivalence() -> None:
    form = random_form(3 * ROWS + 5, TILE + 300, 13)
    whole = pairwise_block(form)
    for size in (1, 7, ROWS, 64):
        rows = range(0, len(whole), size)
        blocks = [pairwise_block(form, slice(start, start + size)) for start in rows]
        assert np.concatenate(blocks).tobytes() == whole.tobytes()
    for columns in (1, 100, TILE + 1):
        fewer = dataclasses.replace(
            form, target_units=form.target_units[:columns], target_bias=form.target_bias[:columns]
        )
        assert np.array_equal(pairwise_block(fewer), whole[:, :columns])


def test_thread_equivalence() -> None:
    form = random_form(200, 700, 100)
    one = pairwise_block(form, threads=1)
    assert pairwise_block(form, threads=2).tobytes() == one.tobytes()
    assert pairwise_block(form).tobytes() == one.tobytes()


def test_equal_whether_the_input_is_strided_or_read_only() -> None:
    form = random_form(20, 30, 8)
    fortran = dataclasses.replace(
        form,
        candidate_units=np.asfortranarray(form.candidate_units),
        target_units=np.repeat(form.target_units, 2, axis=0)[::2],
    )
    fortran.candidate_units.flags.writeable = False
    assert np.array_equal(pairwise_block(fortran), pairwise_block(form))


def test_weights_of_zero_and_of_one_sign() -> None:
    for weights in ([0, 0, 0], [1, 2, 0], [-1, 0, -3]):
        form = dataclasses.replace(
            random_form(5, 6, 3), weights=np.array(weights, dtype=np.float32)
        )
        np.testing.assert_allclose(pairwise_block(form), form_matrix(form), atol=1e-5)


def test_empty_sides() -> None:
    form = random_form(3, 4, 5)
    assert pairwise_block(form, slice(0, 0)).shape == (0, 4)
    assert pairwise_block(form.swapped(), slice(0, 0)).shape == (0, 3)


@pytest.mark.parametrize("side", ["candidate_units", "target_units", "weights", "target_bias"])
def test_values_that_are_not_finite_are_refused(side: str) -> None:
    form = random_form(5, 6, 3)
    bad = getattr(form, side).copy()
    bad.reshape(-1)[-1] = np.nan
    with pytest.raises(EngineError, match="NaN or infinite"):
        pairwise_block(dataclasses.replace(form, **{side: bad}))
