"""Influence on a target set of sub-tasks, by hand."""

import numpy as np
import pytest

from engine.errors import EngineError
from engine.kernels.aggregation import max_of_group_means

SCORES = np.array([[1.0, 3.0, -1.0], [0.0, 0.0, 5.0]], np.float32)


def test_max_of_group_means_by_hand():
    two = max_of_group_means(SCORES, np.array([7, 7, 2]))
    np.testing.assert_allclose(two, [2.0, 5.0])  # means 2 and -1; 0 and 5
    assert two.dtype == np.float32
    np.testing.assert_allclose(max_of_group_means(SCORES, np.zeros(3, int)), [1.0, 5 / 3])


def test_a_missing_score_is_not_ignored():
    scores = SCORES.copy()
    scores[0, 2] = np.nan
    assert np.isnan(max_of_group_means(scores, np.array([0, 0, 1]))).tolist() == [True, False]


def test_no_target_is_an_error():
    with pytest.raises(EngineError, match="0 targets"):
        max_of_group_means(np.zeros((2, 0), np.float32), np.zeros(0, int))
