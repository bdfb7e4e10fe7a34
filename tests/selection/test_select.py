"""select: lazy = naive = the oracle, dense = sparse, tails, ties, bounds and errors."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from engine.errors import SettingsError
from engine.selection.objectives import objective_names
from engine.selection.select import select
from tests.oracles import selection as oracle
from tests.selection.kernels import assert_same, random_kernel, symmetric_kernel, with_arrays


def test_hand_computed() -> None:
    kernel = np.array([[3, 2, 0], [0, 2, 0], [0, 2, 5]], dtype=np.float32)
    # column sums 3, 6, 5: pick 1; then 0 adds 3 - 2 = 1 and 2 adds 5 - 2 = 3
    selection = select(kernel, 3)
    assert selection.ranking.tolist() == [1, 2, 0]
    assert selection.gains.tolist() == [6, 3, 1]
    assert selection.objective_value == 10 == oracle.facility_location(kernel, range(3))
    assert selection.zero_gain_from is None
    assert (selection.ranking.dtype, selection.gains.dtype) == (np.int64, np.float64)


@pytest.mark.parametrize("levels", [2, 3, 50])
def test_greedy_equals_the_oracle_with_massive_ties(levels: int) -> None:
    for seed in range(8):
        kernel = random_kernel(6, 12, seed, levels)
        value = partial(oracle.facility_location, kernel)
        ranking, gains = oracle.greedy(value, 12, 12, seed)
        for optimizer in ("lazy", "naive"):
            selection = select(kernel, 12, seed=seed, optimizer=optimizer, zero_gain_tail="random")
            assert selection.gains.tolist() == gains
            # the oracle breaks ties among gains of 0 by the permutation too, as `random` does
            assert selection.ranking.tolist() == ranking


@pytest.mark.parametrize("levels", [None, 2, 4])
@pytest.mark.parametrize("shape", [(1, 30), (40, 25), (200, 300)])
def test_lazy_equals_naive(shape: tuple[int, int], levels: int | None) -> None:
    for seed in range(4):
        kernel = random_kernel(*shape, seed, levels)
        lazy = select(kernel, shape[1], seed=seed)
        assert_same(lazy, select(kernel, shape[1], seed=seed, optimizer="naive"))


@pytest.mark.parametrize("objective", objective_names())
def test_sparse_equals_dense(objective: str) -> None:
    for levels in (None, 3):
        kernel = random_kernel(80, 80, 5, levels)
        kernel[kernel < (0.7 if levels is None else 2)] = 0
        settings = with_arrays(objective, {}, kernel)
        sparse = select(scipy.sparse.csr_array(kernel), 80, objective, **settings)
        assert_same(select(kernel, 80, objective, **settings), sparse)
        assert_same(select(torch.tensor(kernel), 80, objective, **settings), sparse)


def test_duplicate_entries_of_a_sparse_kernel_add_up() -> None:
    entries = (np.ones(3, dtype=np.float32), np.array([0, 0, 1]), np.array([0, 3]))
    assert select(scipy.sparse.csr_array(entries, shape=(1, 2)), 1).gains.tolist() == [2]


def test_sparse_kernel_is_not_changed() -> None:
    kernel = scipy.sparse.csr_array(random_kernel(5, 6, 0))
    before = kernel.copy()
    select(kernel, 3)
    assert (kernel != before).nnz == 0


def test_layout_and_type_do_not_matter() -> None:
    kernel = random_kernel(20, 30, 1)
    expected = select(kernel, 10)
    read_only = kernel.copy()
    read_only.flags.writeable = False
    for same in (np.asfortranarray(kernel), kernel.astype(np.float64), read_only):
        assert_same(select(same, 10), expected)


@pytest.mark.parametrize("objective", objective_names())
def test_ranking_is_a_permutation_prefix_and_gains_fall_within_a_round(objective: str) -> None:
    for seed in range(5):
        kernel = symmetric_kernel(40, seed)
        settings = with_arrays(objective, {}, kernel)
        full = select(kernel, 40, objective, seed=seed, **settings)
        assert sorted(full.ranking.tolist()) == list(range(40))
        if objective != "round_robin":  # a turn's gains are of different rows
            for number in np.unique(full.rounds):
                assert (np.diff(full.gains[full.rounds == number]) <= 0).all()
        some = select(kernel, 11, objective, seed=seed, **settings)
        assert some.ranking.tolist() == full.ranking[:11].tolist()
        assert some.gains.tolist() == full.gains[:11].tolist()


def test_greedy_bound() -> None:
    for seed in range(10):
        kernel = random_kernel(6, 8, seed) ** 4
        for budget in (1, 2, 3, 5):
            selection = select(kernel, budget)
            best = oracle.optimum(partial(oracle.facility_location, kernel), 8, budget)
            assert (1 - 1 / math.e) * best <= selection.objective_value <= best * (1 + 1e-12)
            value = oracle.facility_location(kernel, selection.ranking)
            assert selection.objective_value == pytest.approx(value, rel=1e-12)


def test_top_mean() -> None:
    kernel = random_kernel(30, 40, 2) - 0.5
    selection = select(kernel, 40, "top_mean")
    means = kernel.mean(axis=0, dtype=np.float64)
    assert selection.ranking.tolist() == np.argsort(-means).tolist()
    np.testing.assert_allclose(selection.gains, means[selection.ranking], atol=1e-7)
    assert selection.zero_gain_from is None
    given = np.arange(40.0)
    assert select(kernel, 3, "top_mean", mean_influence=given).ranking.tolist() == [39, 38, 37]


def test_random_depends_on_the_seed_alone() -> None:
    a = select(random_kernel(3, 100, 0), 100, "random", seed=4)
    b = select(random_kernel(9, 100, 1), 100, "random", seed=4)
    assert a.ranking.tolist() == b.ranking.tolist()
    assert a.ranking.tolist() != select(random_kernel(3, 100, 0), 100, "random").ranking.tolist()
    assert a.objective_value == 0 and not a.gains.any()


def test_ties_follow_the_seed_and_not_the_index() -> None:
    kernel = np.ones((4, 50), dtype=np.float32)
    for objective in ("facility_location", "top_mean"):
        firsts = {int(select(kernel, 1, objective, seed=s).ranking[0]) for s in range(20)}
        assert len(firsts) > 10
        assert_same(select(kernel, 9, objective, seed=3), select(kernel, 9, objective, seed=3))


def saturating_kernel() -> np.ndarray:
    """Two rows, covered in full by candidates 3 and 5; the others add nothing after them."""
    kernel = random_kernel(2, 20, 0) * 0.5
    kernel[:, [3, 5]] = [[1, 0], [0, 1]]
    return kernel


def test_tail_stop() -> None:
    selection = select(saturating_kernel(), 10, zero_gain_tail="stop")
    assert set(selection.ranking.tolist()) >= {3, 5}
    assert len(selection.ranking) == len(selection.gains) == selection.zero_gain_from < 10
    assert (selection.gains > 0).all()


def test_tail_by_mean_influence() -> None:
    kernel = saturating_kernel()
    selection = select(kernel, 20, zero_gain_tail="by_mean_influence")
    start = selection.zero_gain_from
    assert start is not None
    assert selection.objective_value == pytest.approx(2) and not selection.gains[start:].any()
    means = kernel.mean(axis=0)[selection.ranking[start:]]
    assert (np.diff(means) <= 0).all()
    given = np.arange(20.0)
    tail = select(kernel, 20, zero_gain_tail="by_mean_influence", mean_influence=given).ranking[
        start:
    ]
    assert (np.diff(tail) < 0).all()


def test_tail_random() -> None:
    kernel = saturating_kernel()
    tails = [select(kernel, 20, seed=s, zero_gain_tail="random").ranking[4:] for s in (0, 0, 1)]
    assert tails[0].tolist() == tails[1].tolist() != tails[2].tolist()


def test_gains_of_rounding_size_count_as_zero() -> None:
    kernel = np.array([[1, 1 + 2**-22, 0], [0, 0, 1e-13]], dtype=np.float32)
    selection = select(kernel, 3, zero_gain_tail="by_mean_influence")
    assert selection.ranking[0] == 1 and selection.zero_gain_from == 1
    # in the next round the first row is there to be covered again, the last one never
    assert select(kernel, 3).rounds.tolist() == [1, 2, 0]


def test_kernel_of_zeros_is_all_tail() -> None:
    for kernel in (np.zeros((3, 5), np.float32), scipy.sparse.csr_array((3, 5), dtype=np.float32)):
        selection = select(kernel, 4)
        assert selection.zero_gain_from == 0 and len(selection.ranking) == 4
        assert len(select(kernel, 4, zero_gain_tail="stop").ranking) == 0


@pytest.mark.parametrize("sparse", [False, True])
def test_a_kernel_that_cannot_be_used_is_refused(sparse: bool) -> None:
    def refused(kernel: np.ndarray, message: str) -> None:
        with pytest.raises(SettingsError, match=message):
            select(scipy.sparse.csr_array(kernel) if sparse else kernel, 1)

    kernel = random_kernel(4, 5, 0)
    for value in (np.nan, np.inf, -np.inf):
        bad = kernel.copy()
        bad[1, 2] = value
        refused(bad, "NaN or infinity")
    bad = kernel.copy()
    bad[1, 2] = -0.25
    refused(bad, r"values >= 0, its minimum is -0\.25")
    refused(np.zeros((0, 5), dtype=np.float32), r"got shape \(0, 5\)")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": 0}, "between 1 and the 5 candidates, got 0"),
        ({"budget": 6}, "between 1 and the 5 candidates, got 6"),
        ({"budget": 0.3}, "whole number"),
        ({"budget": True}, "whole number"),
        ({"objective": "facility"}, "unknown objective 'facility'; known: facility_location"),
        ({"eta": 1.0}, "facility_location has no setting 'eta'; it has: none"),
        ({"zero_gain_tail": "go on"}, "zero_gain_tail must be one of cover_again, by_mean"),
        (
            {"objective": "top_mean", "zero_gain_tail": "cover_again"},
            "cover_again is of objectives that cover rows, top_mean does not",
        ),
        ({"optimizer": "eager"}, "optimizer must be one of lazy, naive, stochastic"),
        ({"mean_influence": np.zeros(4)}, "5 finite numbers, one per candidate"),
        ({"kernel": np.zeros(5)}, r"got shape \(5,\)"),
        ({"kernel": np.array([["a"]])}, "real numbers"),
    ],
)
def test_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        select(**{"kernel": random_kernel(4, 5, 0), "budget": 2, **settings})
