"""select within limits: initial subset, quotas, costs; and the stochastic optimizer."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from engine.errors import SettingsError
from engine.selection.select import Selection, select
from tests.oracles import selection as oracle
from tests.selection.kernels import (
    SUBMODULAR,
    assert_same,
    random_kernel,
    symmetric_kernel,
    with_arrays,
)


def groups_and_costs(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 3, size), rng.integers(1, 9, size)


def lazy_and_naive(kernel: Any, budget: int, **settings: Any) -> Selection:
    lazy = select(kernel, budget, **settings)
    assert_same(lazy, select(kernel, budget, optimizer="naive", **settings))
    return lazy


@pytest.mark.parametrize("levels", [2, 4])
def test_initial_subset_equals_the_oracle(levels: int) -> None:
    for seed in range(6):
        kernel = random_kernel(8, 10, seed, levels)
        value = partial(oracle.facility_location, kernel)
        ranking, gains = oracle.greedy(value, 10, 8, seed, start=[3, 7])
        selection = lazy_and_naive(
            kernel, 8, seed=seed, initial_subset=[3, 7], zero_gain_tail="random"
        )
        assert selection.ranking.tolist() == ranking and selection.gains.tolist() == gains


def test_selection_goes_on_from_its_own_prefix() -> None:
    kernel = random_kernel(50, 40, 0)
    full = select(kernel, 20)
    rest = select(kernel, 12, initial_subset=full.ranking[:8])
    assert rest.ranking.tolist() == full.ranking[8:].tolist()
    assert rest.gains.tolist() == full.gains[8:].tolist()


def test_zero_is_that_of_the_search_from_nothing() -> None:
    """An initial subset that covers everything leaves gains of rounding size: all of them tail."""
    kernel = np.array([[1, 1 + 2**-22, 0], [0, 0, 1e-13]], dtype=np.float32)
    assert lazy_and_naive(kernel, 2, initial_subset=[1]).zero_gain_from == 0


@pytest.mark.parametrize("levels", [2, 4])
def test_quotas_equal_the_oracle(levels: int) -> None:
    for seed in range(6):
        kernel = random_kernel(8, 10, seed, levels)
        groups, _ = groups_and_costs(10, seed)
        ranking, gains = oracle.greedy(
            partial(oracle.facility_location, kernel),
            10,
            7,
            seed,
            allowed=oracle.within(groups, 2),
        )
        names = np.array(["gsm8k", "code", "chat"])[groups]
        for given in (groups, names, names.tolist(), names.astype(object)):
            selection = lazy_and_naive(
                kernel, 7, seed=seed, groups=given, quotas=2, zero_gain_tail="random"
            )
            assert selection.ranking.tolist() == ranking and selection.gains.tolist() == gains


def test_quotas_by_name() -> None:
    kernel = random_kernel(30, 20, 0)
    names = np.array(["a", "b"] * 10)
    selection = lazy_and_naive(kernel, 20, groups=names, quotas={"a": 3})
    picked = names[selection.ranking]
    assert (picked == "a").sum() == 3 and (picked == "b").sum() == 10
    none = lazy_and_naive(kernel, 10, objective="top_mean", groups=names, quotas={"b": 0})
    assert set(names[none.ranking]) == {"a"} and len(none.ranking) == 10


def test_share_of_the_optimum_under_quotas() -> None:
    for seed in range(8):
        kernel = random_kernel(6, 9, seed) ** 4
        groups, _ = groups_and_costs(9, seed)
        value, allowed = partial(oracle.facility_location, kernel), oracle.within(groups, 1)
        selection = lazy_and_naive(kernel, 3, seed=seed, groups=groups, quotas=1)
        assert selection.objective_value >= 0.5 * oracle.optimum(value, 9, 3, allowed)


def test_costs_equal_the_better_of_two_greedy_runs() -> None:
    winners = set()
    for seed in range(20):
        kernel = random_kernel(8, 9, seed, 4)
        _, costs = groups_and_costs(9, seed)
        value = partial(oracle.facility_location, kernel)
        allowed = oracle.within(range(9), 1, costs, 14)
        runs = [
            oracle.greedy(value, 9, 9, seed, allowed=allowed, prices=prices)
            for prices in (costs, None)
        ]
        ranking, gains = max(runs, key=lambda run: sum(run[1]))
        winners.add(runs.index((ranking, gains)))
        selection = lazy_and_naive(
            kernel, 9, seed=seed, costs=costs, max_cost=14, zero_gain_tail="random"
        )
        assert selection.ranking.tolist() == ranking and selection.gains.tolist() == gains
        assert costs[selection.ranking].sum() <= 14
        best = oracle.optimum(value, 9, 9, allowed)
        assert selection.objective_value >= 0.5 * (1 - 1 / math.e) * best
    assert winners == {0, 1}


def test_tail_and_limits() -> None:
    """The tail too keeps to quotas and costs, skipping what does not fit."""
    kernel = np.zeros((2, 6), dtype=np.float32)
    kernel[:, 0] = 1
    given = {"mean_influence": np.arange(6.0), "groups": [0, 0, 0, 1, 1, 1], "quotas": 2}
    selection = lazy_and_naive(kernel, 6, **given)
    assert selection.ranking.tolist() == [0, 5, 4, 2] and selection.zero_gain_from == 1
    costly = lazy_and_naive(kernel, 6, **given, costs=[1, 1, 1, 1, 1, 9], max_cost=3)
    assert costly.ranking.tolist() == [0, 4, 3]
    assert lazy_and_naive(kernel, 6, **given, zero_gain_tail="stop").ranking.tolist() == [0]


@pytest.mark.parametrize(("objective", "settings"), SUBMODULAR)
@pytest.mark.parametrize("levels", [None, 3])
def test_lazy_equals_naive_and_sparse_equals_dense_with_all_limits(
    objective: str, settings: dict[str, Any], levels: int | None
) -> None:
    for seed in range(3):
        kernel = symmetric_kernel(100, seed, levels)
        groups, costs = groups_and_costs(100, seed)
        given = {
            **with_arrays(objective, settings, kernel),
            "initial_subset": [5, 50],
            "groups": groups,
            "quotas": {0: 20, 2: 1},
            "costs": costs,
            "max_cost": 150,
            "seed": seed,
        }
        selection = lazy_and_naive(kernel, 60, objective=objective, **given)
        sparse = lazy_and_naive(scipy.sparse.csr_array(kernel), 60, objective=objective, **given)
        assert_same(selection, sparse)
        assert not {5, 50} & set(selection.ranking.tolist())
        assert (groups[selection.ranking] == 2).sum() <= 1
        assert costs[selection.ranking].sum() <= 150


def test_stochastic_is_seeded_and_near_greedy() -> None:
    kernel = random_kernel(200, 400, 0) ** 4
    lazy = select(kernel, 40)
    values = []
    for seed in range(5):
        selection = select(kernel, 40, optimizer="stochastic", seed=seed)
        assert_same(selection, select(kernel, 40, optimizer="stochastic", seed=seed))
        assert len(set(selection.ranking.tolist())) == 40
        value = oracle.facility_location(kernel, selection.ranking)
        assert selection.objective_value == pytest.approx(value, rel=1e-9)
        values.append(selection.objective_value)
    assert len(set(values)) == 5
    assert 0.95 * lazy.objective_value < np.mean(values) < lazy.objective_value


def test_stochastic_with_a_sample_of_everything_is_greedy() -> None:
    for levels in (None, 2):
        kernel = random_kernel(40, 30, 0, levels)
        tiny = {"optimizer": "stochastic", "epsilon": 1e-30}
        assert_same(select(kernel, 30, **tiny), select(kernel, 30))
        limits = {"groups": [0, 1, 2] * 10, "quotas": 4, "initial_subset": [2, 3]}
        assert_same(select(kernel, 28, **limits, **tiny), select(kernel, 28, **limits))


def test_stochastic_finds_the_last_gain() -> None:
    """Samples with nothing to gain do not end the search: one candidate of 500 covers the row."""
    kernel = np.zeros((1, 500), dtype=np.float32)
    kernel[0, 123] = 1
    selection = select(kernel, 400, optimizer="stochastic", epsilon=0.5)
    assert selection.ranking[0] == 123 and selection.zero_gain_from == 1
    assert len(set(selection.ranking.tolist())) == 400


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"initial_subset": [0, 5]}, r"different candidates in 0\.\.4, got 2 from 0 to 5"),
        ({"initial_subset": [-1]}, "different candidates"),
        ({"initial_subset": [1, 1]}, "different candidates"),
        ({"initial_subset": [0.5]}, "list of column numbers"),
        ({"initial_subset": [0, 1, 2, 3]}, "5 candidates less the 4 of the initial subset, got 2"),
        ({"groups": [0] * 5}, "groups .* and quotas go together"),
        ({"quotas": 3}, "groups .* and quotas go together"),
        ({"groups": [0] * 4, "quotas": 1}, r"5 whole numbers or strings.* shape \(4,\)"),
        ({"groups": [0.5] * 5, "quotas": 1}, "5 whole numbers or strings"),
        ({"groups": list("aabbb"), "quotas": {"c": 1}}, "group 'c', which no candidate has"),
        ({"groups": list("aabbb"), "quotas": {"a": -1}}, ">= 0, got -1 for 'a'"),
        ({"groups": list("aabbb"), "quotas": 0.5}, "whole number >= 0, got 0.5"),
        ({"costs": [1] * 5}, "costs .* and max_cost go together"),
        ({"max_cost": 5}, "costs .* and max_cost go together"),
        ({"costs": [1, 1, 1, 1, 0], "max_cost": 5}, "5 whole numbers >= 1"),
        ({"costs": [1.5] * 5, "max_cost": 5}, "5 whole numbers >= 1"),
        ({"costs": [3] * 5, "max_cost": 2}, "at least 3, the cost of the cheapest"),
        ({"costs": [3] * 5, "max_cost": 7.5}, "max_cost must be a whole number"),
        ({"optimizer": "stochastic", "costs": [1] * 5, "max_cost": 3}, "use lazy"),
        ({"optimizer": "stochastic", "epsilon": 1}, "epsilon must be above 0 and below 1, got 1"),
    ],
)
def test_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        select(**{"kernel": random_kernel(4, 5, 0), "budget": 2, **settings})
