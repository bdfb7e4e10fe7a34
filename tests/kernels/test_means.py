"""Means without the matrix equal the means of the matrix."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from engine.errors import EngineError
from engine.kernels.means import mean_over_candidates, mean_over_targets
from tests.kernels.forms import random_form
from tests.oracles.influence import form_matrix


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (40, 30)])
def test_means_equal_those_of_the_matrix(shape: tuple[int, int], integers: bool) -> None:
    for seed in range(5):
        form = random_form(*shape, hidden=7, seed=seed, integers=integers)
        matrix = form_matrix(form)
        scale = 1e-6 * np.abs(matrix).max() + 1e-12
        means, gained = mean_over_targets(form), mean_over_candidates(form)
        assert means.dtype == np.float32
        np.testing.assert_allclose(means, matrix.mean(axis=1), rtol=0, atol=scale)
        np.testing.assert_allclose(gained, matrix.mean(axis=0), rtol=0, atol=scale)


def test_block_and_thread_equivalence() -> None:
    form = random_form(101, 57, 20)
    whole = mean_over_targets(form, threads=1)
    assert mean_over_targets(form, threads=2).tobytes() == whole.tobytes()
    blocks = [mean_over_targets(form.of_candidates(slice(i, i + 10))) for i in range(0, 101, 10)]
    assert np.concatenate(blocks).tobytes() == whole.tobytes()


def test_no_target_and_nan_are_refused() -> None:
    form = random_form(3, 2, 4)
    with pytest.raises(EngineError, match="0 targets"):
        mean_over_candidates(form.of_candidates(slice(0, 0)))
    units = form.target_units.copy()
    units[0, 0] = np.nan
    with pytest.raises(EngineError, match="NaN or infinite"):
        mean_over_targets(dataclasses.replace(form, target_units=units))
