"""cover_again and round_robin: against slow versions, under quotas, costs and partitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse

from engine.artifacts.files import save_array
from engine.selection.kernel_files import KernelFiles
from engine.selection.partitioned import ORDER, measured_ratio
from engine.selection.problem import Problem
from engine.selection.select import select
from tests.oracles import selection as oracle
from tests.selection.kernels import assert_same, random_kernel, with_arrays

COVERING = [
    ("facility_location", {}),
    ("facility_location_mutual_information", {"form": 1, "eta": 0.5}),
    ("facility_location_conditional_gain", {"nu": 0.5}),
]


def sparse_kernel(rows: int, columns: int, seed: int, levels: int | None) -> np.ndarray:
    """Most entries 0, so that some candidates cover nothing and a round ends soon."""
    kernel = random_kernel(rows, columns, seed, levels)
    kernel[np.random.default_rng(seed + 50).random(kernel.shape) < 0.7] = 0
    return kernel


@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize(("objective", "settings"), COVERING)
def test_lazy_equals_naive_in_rounds(
    objective: str, settings: dict[str, Any], levels: int | None
) -> None:
    for seed in range(6):
        kernel = sparse_kernel(9, 9, seed, levels)
        if settings.get("form") != 1:
            kernel = sparse_kernel(5, 60, seed, levels)
        given = with_arrays(objective, settings, kernel)
        limits: dict[str, Any] = {"groups": np.arange(kernel.shape[1]) % 3, "quotas": 12}
        for more in ({}, limits, {"initial_subset": [1, 4]}):
            budget = kernel.shape[1] - 2
            lazy = select(kernel, budget, objective, seed=seed, **given, **more)
            naive = select(kernel, budget, objective, seed=seed, optimizer="naive", **given, **more)
            assert_same(lazy, naive)
            sparse = scipy.sparse.csr_array(kernel)
            assert_same(lazy, select(sparse, budget, objective, seed=seed, **given, **more))


def test_rounds_are_those_of_the_oracle() -> None:
    for seed in range(6):
        kernel = sparse_kernel(4, 16, seed, 4)
        found = select(kernel, 16, seed=seed)
        ranking, gains, rounds = oracle.in_rounds(kernel, 16, seed)
        covered = len(ranking)
        assert found.ranking[:covered].tolist() == ranking
        assert found.gains.tolist() == gains + [0.0] * (16 - covered)
        assert found.rounds.tolist() == rounds + [0] * (16 - covered)
        assert found.zero_gain_from == (covered if covered < 16 else None)
        assert found.objective_value == oracle.facility_location(kernel, ranking)


def test_the_first_round_is_that_of_facility_location_without_rounds() -> None:
    kernel = random_kernel(6, 80, 1)
    plain, again = (select(kernel, 80, zero_gain_tail=tail) for tail in ("stop", "cover_again"))
    first = len(plain.ranking)
    assert first < 80 and again.rounds.max() > 3
    assert again.ranking[:first].tolist() == plain.ranking.tolist()
    assert (again.rounds[:first] == 1).all() and again.rounds[first] == 2
    assert again.objective_value == plain.objective_value


def test_coverage_goes_on_where_one_candidate_is_best_for_all() -> None:
    """Row and column effects alone: without rounds all picks but one are a tail."""
    kernel = np.outer(np.ones(5), np.linspace(1, 2, 30)).astype(np.float32)
    selection = select(kernel, 10)
    assert selection.zero_gain_from is None
    assert selection.rounds.tolist() == list(range(1, 11))
    assert selection.ranking.tolist() == list(range(29, 19, -1))


def test_quotas_that_leave_a_round_empty() -> None:
    """What may still be picked covers nothing: the tail takes over, and no round is counted."""
    kernel = np.zeros((2, 6), dtype=np.float32)
    kernel[:, :3] = 1
    groups = np.array([0, 0, 0, 1, 1, 1])
    selection = select(kernel, 4, groups=groups, quotas={0: 2})
    assert selection.rounds.tolist() == [1, 2, 0, 0] and selection.zero_gain_from == 2
    assert (groups[selection.ranking] == 0).sum() == 2


def test_tokens_in_rounds_keep_to_their_limit() -> None:
    kernel = random_kernel(3, 50, 2)
    costs = np.random.default_rng(0).integers(1, 9, 50)
    for optimizer in ("lazy", "naive"):
        selection = select(kernel, 50, costs=costs, max_cost=60, optimizer=optimizer)
        assert costs[selection.ranking].sum() <= 60
        assert selection.rounds.max() > 1
    assert_same(
        select(kernel, 50, costs=costs, max_cost=60),
        select(kernel, 50, costs=costs, max_cost=60, optimizer="naive"),
    )


def test_stochastic_goes_on_in_rounds_and_loses_little() -> None:
    kernel = random_kernel(20, 400, 3)
    full = select(kernel, 200)
    drawn = select(kernel, 200, optimizer="stochastic", epsilon=0.01, seed=1)
    assert len(set(drawn.ranking.tolist())) == 200 and drawn.rounds.max() > 1
    # a sample covers the rows with more picks, so a budget has fewer rounds of as much
    assert drawn.objective_value > 0.99 * full.objective_value
    assert_same(drawn, select(kernel, 200, optimizer="stochastic", epsilon=0.01, seed=1))


# --- round robin ----------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [None, 2, 4])
def test_round_robin_is_that_of_the_oracle(levels: int | None) -> None:
    for seed in range(8):
        kernel = sparse_kernel(7, 40, seed, levels)
        groups = np.arange(40) % 4
        for quotas in (None, 6):
            limits: dict[str, Any] = {} if quotas is None else {"groups": groups, "quotas": quotas}
            found = select(kernel, 38, "round_robin", seed=seed, zero_gain_tail="stop", **limits)
            ranking, gains, turns = oracle.round_robin(kernel, 38, seed, groups, quotas or 40)
            assert found.ranking.tolist() == ranking
            assert found.gains.tolist() == gains
            assert found.rounds.tolist() == turns
            sparse = scipy.sparse.csr_array(kernel)
            assert_same(
                found,
                select(sparse, 38, "round_robin", seed=seed, zero_gain_tail="stop", **limits),
            )


def test_round_robin_by_hand() -> None:
    kernel = np.array([[9, 8, 7, 0], [9, 0, 1, 0]], dtype=np.float32)
    by_seed = {tuple(select(kernel, 4, "round_robin", seed=s).ranking.tolist()) for s in range(12)}
    # the first row first: it takes 0, the other 2, then 1; or the other one first: 0, 1, 2
    assert by_seed == {(0, 2, 1, 3), (0, 1, 2, 3)}
    selection = select(kernel, 4, "round_robin")
    assert selection.rounds.tolist() == [1, 1, 2, 0] and selection.zero_gain_from == 3


def test_round_robin_gives_every_row_as_many_picks() -> None:
    """Whatever the level of a row: no scaling of one row changes what it takes."""
    kernel = random_kernel(5, 300, 4)
    scaled = kernel * np.array([[1], [100], [0.01], [1], [3]], dtype=np.float32)
    plain, other = (select(k, 100, "round_robin", seed=2) for k in (kernel, scaled))
    assert plain.ranking.tolist() == other.ranking.tolist()
    assert np.bincount(plain.rounds)[1:].tolist() == [5] * 20


def test_round_robin_takes_no_negative_value_and_keeps_to_tokens() -> None:
    kernel = random_kernel(3, 30, 5) - 0.5
    selection = select(kernel, 30, "round_robin", zero_gain_tail="stop")
    assert set(selection.ranking.tolist()) == set(np.flatnonzero((kernel > 0).any(axis=0)).tolist())
    costs = np.arange(30) % 7 + 1
    limited = select(kernel, 30, "round_robin", costs=costs, max_cost=40)
    assert costs[limited.ranking].sum() <= 40


# --- partitions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("max_bytes", [10**9, 0], ids=["greedy again", "merged"])
@pytest.mark.parametrize("objective", ["facility_location", "round_robin"])
def test_partitions_hold_the_candidates_of_a_narrow_target(tmp_path, objective, max_bytes):
    """The best for all targets are neighbours, and many more than one partition's share."""
    rng = np.random.default_rng(0)
    kernel = rng.random((2000, 3), dtype=np.float32) * 0.1
    kernel[:240] += 0.8
    save_array(tmp_path / "kernel.npy", kernel)
    save_array(tmp_path / "means.npy", kernel.mean(axis=1))
    save_array(tmp_path / ORDER, rng.permutation(2000))
    files = KernelFiles("dense", (tmp_path / "kernel.npy",), 3, 2000, 2000, (0.0, 1.0), False)
    problem = Problem(
        objective, 300, tmp_path / "means.npy", files, {}, 0, None, "lazy", epsilon=0.01
    )
    ratio = measured_ratio(problem, tmp_path, 8, max_bytes)
    assert ratio is not None and 0.97 <= ratio <= 1.001
