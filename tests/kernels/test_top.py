"""The streamed top k equals sorting the matrix, ties included, however the blocks are cut."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest

from engine.kernels.pairwise import ROWS, TILE, pairwise_block
from engine.kernels.top import Top, merge_top, top_of_block, top_of_form
from tests.kernels.forms import random_form
from tests.oracles.influence import top_of_matrix


def assert_same(a: Top, b: Top) -> None:
    assert a.ids.tolist() == b.ids.tolist()
    assert a.influence.tobytes() == b.influence.tobytes()
    assert (a.ids.dtype, a.influence.dtype) == (np.int64, np.float32)


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("k", [1, 2, 7, 60, 99])
def test_top_equals_sorted_matrix(k: int, integers: bool) -> None:
    form = random_form(60, ROWS + 7, hidden=2, integers=integers)
    matrix = pairwise_block(form)
    ids, values = top_of_matrix(matrix, k)
    for top in (top_of_form(form, k), top_of_block(matrix, k)):
        assert top.ids.tolist() == ids.tolist()
        assert top.influence.tolist() == values.tolist()


def test_top_over_several_tiles_and_threads() -> None:
    form = random_form(2 * TILE + 100, 40, hidden=3, integers=True)
    top = top_of_form(form, 50, threads=1)
    assert_same(top, top_of_form(form, 50, threads=2))
    assert_same(top, top_of_block(pairwise_block(form), 50))


@pytest.mark.parametrize("size", [1, 7, 50])
def test_merge_equivalence(size: int) -> None:
    form = random_form(90, 20, hidden=2, integers=True)
    tops = [
        top_of_form(form.of_candidates(slice(start, start + size)), 10, first_id=start)
        for start in range(0, 90, size)
    ]
    whole = top_of_form(form, 10)
    assert_same(reduce(lambda a, b: merge_top(a, b, 10), tops), whole)
    shuffled = [tops[i] for i in np.random.default_rng(0).permutation(len(tops))]
    assert_same(reduce(lambda a, b: merge_top(a, b, 10), shuffled), whole)


def test_no_candidates() -> None:
    top = top_of_form(random_form(4, 3, 2).of_candidates(slice(0, 0)), 5)
    assert top.ids.shape == top.influence.shape == (3, 0)
