"""Which examples are shown: the nearest of the subset, exactly."""

import numpy as np
import pytest

from engine.evaluation.answer import nearest_rows


class Vectors:
    def __init__(self, values):
        self.values = values

    def take(self, rows):
        return self.values[rows]


@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize("size", [3, 4095, 4097, 9000])
def test_nearest_rows_are_those_of_a_full_sort(k, size):
    chooser = np.random.default_rng(size)
    vectors = chooser.integers(-3, 4, (10_000, 4)).astype(np.float32)  # many equal cosines
    queries = chooser.integers(-3, 4, (7, 4)).astype(np.float32)
    rows = np.sort(chooser.choice(10_000, size, replace=False))
    found = nearest_rows(queries, Vectors(vectors), rows, k)
    for query, mine in zip(queries, found, strict=True):
        cosines = vectors[rows] @ query
        expected = sorted(range(size), key=lambda i: (-cosines[i], rows[i]))[:k]
        assert mine.tolist() == rows[expected].tolist()


def test_an_empty_subset_has_no_nearest():
    nothing = nearest_rows(np.ones((2, 3), np.float32), Vectors(np.ones((1, 3))), np.empty(0), 5)
    assert nothing.shape == (2, 0)
