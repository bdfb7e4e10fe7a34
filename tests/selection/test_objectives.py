"""Each objective: its value and greedy are those of the definition, its bound holds, its errors."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from engine.errors import SettingsError
from engine.selection.select import select
from tests.oracles import selection as oracle
from tests.selection.kernels import (
    SUBMODULAR,
    assert_same,
    random_kernel,
    symmetric_kernel,
    with_arrays,
)

FLMI = "facility_location_mutual_information"
FLCG = "facility_location_conditional_gain"


def value_of(objective: str, kernel: np.ndarray, settings: dict[str, Any]) -> oracle.Value:
    """The oracle's set function for the same settings."""
    if objective == FLMI and settings["form"] == 1:
        return partial(oracle.mutual_information_1, kernel, settings["query"], settings["eta"])
    if objective == FLMI:
        return partial(oracle.mutual_information_2, kernel, settings["eta"])
    if objective == FLCG:
        return partial(oracle.conditional_gain, kernel, settings["owned"], settings["nu"])
    if objective == "graph_cut":
        return partial(oracle.graph_cut, kernel, settings["trade_off"])
    return partial(oracle.facility_location, kernel)


@pytest.mark.parametrize(("objective", "settings"), SUBMODULAR)
def test_greedy_equals_the_oracle_with_massive_ties(
    objective: str, settings: dict[str, Any]
) -> None:
    for seed in range(4):
        kernel = symmetric_kernel(9, seed, levels=4)  # small integers: every sum is exact
        given = with_arrays(objective, settings, kernel)
        ranking, gains = oracle.greedy(value_of(objective, kernel, given), 9, 9, seed)
        for optimizer in ("lazy", "naive"):
            selection = select(
                kernel,
                9,
                objective,
                seed=seed,
                optimizer=optimizer,
                zero_gain_tail="random",
                **given,
            )
            assert selection.ranking.tolist() == ranking
            assert selection.gains.tolist() == gains


@pytest.mark.parametrize(("objective", "settings"), SUBMODULAR)
def test_value_and_share_of_the_optimum(objective: str, settings: dict[str, Any]) -> None:
    for seed in range(4):
        kernel = symmetric_kernel(9, seed) ** 4
        given = with_arrays(objective, settings, kernel)
        value = value_of(objective, kernel, given)
        for budget in (1, 3, 5):
            selection = select(kernel, budget, objective, seed=seed, **given)
            best = oracle.optimum(value, 9, budget)
            assert selection.objective_value == pytest.approx(value(selection.ranking), rel=1e-6)
            assert (1 - 1 / math.e) * best <= selection.objective_value * (1 + 1e-6)
            assert selection.objective_value <= best * (1 + 1e-6)


@pytest.mark.parametrize(("objective", "settings"), SUBMODULAR)
@pytest.mark.parametrize("levels", [None, 2, 4])
def test_lazy_equals_naive_and_sparse_equals_dense(
    objective: str, settings: dict[str, Any], levels: int | None
) -> None:
    for seed in range(3):
        kernel = random_kernel(120, 120, seed, levels)  # not symmetric
        kernel[kernel < (0.6 if levels is None else 1)] = 0
        given = with_arrays(objective, settings, kernel)
        lazy = select(kernel, 120, objective, seed=seed, **given)
        assert_same(lazy, select(kernel, 120, objective, seed=seed, optimizer="naive", **given))
        given = {
            name: scipy.sparse.csr_array(value) if isinstance(value, np.ndarray) else value
            for name, value in given.items()
        }
        assert_same(
            lazy, select(scipy.sparse.csr_array(kernel), 120, objective, seed=seed, **given)
        )


def test_mutual_information_hand_computed() -> None:
    kernel = np.array([[3, 2, 0], [0, 2, 4]], dtype=np.float32)
    # form 2, eta 1: 3 + 3, 4 + 2, 4 + 4: pick 2; then 0 adds 3 + 3 and 1 adds 2 + 2 (row 0)
    selection = select(kernel, 3, FLMI)
    assert (selection.ranking.tolist(), selection.gains.tolist()) == ([2, 0, 1], [8, 6, 2])
    # form 1, eta 0.5: row 0 counts up to 1, row 1 up to 3
    query = np.array([[2, 0], [6, 1]], dtype=np.float32)
    selection = select(kernel, 2, FLMI, form=1, query=query, eta=0.5, zero_gain_tail="stop")
    assert selection.gains.tolist() == [3, 1] and selection.ranking[1] in (0, 1, 2)
    assert_same(
        select(kernel, 3, FLMI, form=1, query=query),
        select(kernel, 3, FLMI, form=1, query=query.max(axis=1)),
    )


def test_conditional_gain_is_facility_location_after_the_owned_rows() -> None:
    kernel, owned = symmetric_kernel(30, 0), [4, 9, 11]
    given = select(kernel, 10, FLCG, owned=kernel[:, owned])
    after = select(kernel, 10, initial_subset=owned)
    picked = [c for c in given.ranking.tolist() if c not in owned]
    assert picked == given.ranking.tolist() == after.ranking.tolist()
    assert given.gains.tolist() == after.gains.tolist()
    nothing = select(kernel, 10, FLCG, owned=kernel[:, owned], nu=0)
    assert_same(nothing, select(kernel, 10))
    assert_same(given, select(kernel, 10, FLCG, owned=kernel[:, owned].max(axis=1).tolist()))


@pytest.mark.parametrize("trade_off", [0.5, 2.0])
def test_graph_cut_that_is_not_monotone(trade_off: float) -> None:
    for seed in range(5):
        kernel = random_kernel(12, 12, seed)  # not symmetric
        value = partial(oracle.graph_cut, kernel, trade_off)
        full = select(kernel, 12, "graph_cut", trade_off=trade_off, seed=seed)
        assert sorted(full.ranking.tolist()) == list(range(12))
        assert full.objective_value == pytest.approx(value(range(12)), rel=1e-6)
        stopped = select(
            kernel, 12, "graph_cut", trade_off=trade_off, seed=seed, zero_gain_tail="stop"
        )
        assert (stopped.gains > 0).all()
        assert stopped.objective_value == pytest.approx(value(stopped.ranking), rel=1e-6)
        start = full.zero_gain_from
        assert (start is None) == (len(stopped.ranking) == 12)
        if start is not None:
            assert full.ranking[:start].tolist() == stopped.ranking.tolist()
            assert (full.gains[start:] < 0).all()
        if trade_off == 2.0:
            assert start is not None and full.objective_value < stopped.objective_value


def test_graph_cut_mutual_information() -> None:
    kernel = random_kernel(4, 30, 1) - 0.5
    selection = select(kernel, 7, "graph_cut_mutual_information", trade_off=0.3)
    value = oracle.graph_cut_mutual_information(kernel, 0.3, selection.ranking)
    assert selection.objective_value == pytest.approx(value, rel=1e-6)
    assert selection.ranking.tolist() == select(kernel, 7, "top_mean").ranking.tolist()


@pytest.mark.parametrize(
    ("objective", "settings", "message"),
    [
        (FLMI, {"form": 3}, "has form 1 and 2, got 3"),
        (FLMI, {"form": 1}, "needs `query`.* in form 1 and only there"),
        (FLMI, {"query": np.ones(4)}, "in form 1 and only there"),
        (FLMI, {"eta": -1}, "eta of facility_location_mutual_information must be a number >= 0"),
        (FLMI, {"form": 1, "query": np.ones(5)}, "4 rows of the kernel, got 5 rows"),
        (FLMI, {"form": 1, "query": -np.ones((4, 2))}, "got 4 rows with minimum -1"),
        (FLMI, {"form": 1, "query": np.full((4, 2), np.nan)}, "query: .*NaN or infinity"),
        (FLCG, {}, "facility_location_conditional_gain needs the setting 'owned'"),
        (FLCG, {"owned": np.ones(4), "nu": "1"}, "nu of .* must be a number >= 0, got '1'"),
        (FLCG, {"owned": np.zeros((4, 0))}, r"owned: .*got shape \(4, 0\)"),
        (FLCG, {"owned": np.ones(4), "eta": 1}, "has no setting 'eta'; it has: owned, nu"),
        ("graph_cut", {}, r"square kernel .* got shape \(4, 5\)"),
        ("graph_cut", {"trade_off": np.nan}, "trade_off of graph_cut must be a number >= 0"),
        ("graph_cut_mutual_information", {"trade_off": True}, "must be a number >= 0, got True"),
    ],
)
def test_errors(objective: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        select(random_kernel(4, 5, 0), 2, objective, **settings)


@pytest.mark.parametrize(("objective", "settings"), SUBMODULAR)
def test_negative_kernels_are_refused(objective: str, settings: dict[str, Any]) -> None:
    kernel = symmetric_kernel(5, 0)
    given = with_arrays(objective, settings, kernel)
    with pytest.raises(SettingsError, match=f"^{objective} needs a kernel with values >= 0"):
        select(kernel - 0.5, 2, objective, **given)
