"""`select`: the subset of a candidate pool that is worth training on, from its kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from engine.errors import SettingsError
from engine.kernels.arrays import DoubleArray, IndexArray
from engine.kernels.bound_heap import heap_of
from engine.kernels.columns import Columns, columns_of
from engine.selection.greedy import (
    Picks,
    Search,
    in_rounds,
    lazy_greedy,
    naive_greedy,
    stochastic_greedy,
)
from engine.selection.limits import Limits, Quotas, group_limits, token_costs
from engine.selection.objective import Covering, OwnRanking
from engine.selection.objectives import Objective, make_objective

__all__ = ["Selection", "Tail", "select"]

Tail = Literal["cover_again", "by_mean_influence", "random", "stop"]
Optimizer = Literal["lazy", "naive", "stochastic"]

ZERO_GAIN = 1e-12  # of the first gain: anything smaller is rounding


@dataclass(frozen=True)
class Selection:
    """Which candidates were picked, in order.

    Attributes:
        ranking: (B,) int64, columns of the kernel, first pick first; each at most once. Shorter
            than the budget if quotas or costs allow no more, or under `stop`.
        gains: (B,) float64, what each pick added to the objective, in the kernel's units. Never
            increasing within a round, but for stochastic and for cost budgets; 0 from
            `zero_gain_from` on, or the true negative gains for graph_cut. Of round_robin: what the
            pick is worth to the row whose turn it was.
        zero_gain_from: rank from which no candidate added anything and the order is that of the
            zero-gain policy; None when that never happened. Equal to B under `stop`.
        objective_value: what all picks add to the initial subset, the sum of the gains of the
            first round: rows that are covered again do not count twice. Of round_robin the sum of
            all gains.
        rounds: (B,) int64, the round of each pick, from 1; 0 from `zero_gain_from` on. In one
            round of coverage every row is covered once, in one of round_robin every row has had
            its turn; other objectives have one round.
    """

    ranking: IndexArray
    gains: DoubleArray
    zero_gain_from: int | None
    objective_value: float
    rounds: IndexArray


def select(
    kernel: Any,
    budget: int,
    objective: str = "facility_location",
    *,
    seed: int = 0,
    zero_gain_tail: Tail | None = None,
    mean_influence: ArrayLike | None = None,
    optimizer: Optimizer = "lazy",
    epsilon: float = 0.01,
    initial_subset: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    quotas: Quotas | None = None,
    costs: ArrayLike | None = None,
    max_cost: int | None = None,
    **settings: Any,
) -> Selection:
    """Pick `budget` candidates greedily: kernel (R, M) -> Selection.

    Args:
        kernel: dense float32 or scipy.sparse.csr_array, [r, c] = how well candidate c covers row
            r; absent entries are 0. All but the modular objectives need values >= 0.
        budget: B, the most candidates to pick, 1..M less the initial subset.
        objective: facility_location, facility_location_mutual_information,
            facility_location_conditional_gain, graph_cut, graph_cut_mutual_information,
            round_robin, top_mean or random (see `objectives`).
        seed: of the permutation that breaks ties, of the order of turns and of the samples of
            stochastic; the only randomness.
        zero_gain_tail: how to go on when the best gain is at most 1e-12 of the first one:
            cover_again (forget what is covered and start the next round among those that are
            left; of objectives that cover), by_mean_influence (descending), random, or stop
            (fewer than B picks). Default: cover_again, and by_mean_influence where the objective
            covers nothing or no candidate is left that covers anything.
        mean_influence: (M,) exact means, for top_mean and the tail; only their order matters to
            the tail. Default: the means over the kernel's rows, which for a sparse kernel count
            absent entries as 0.
        optimizer: lazy, naive for the same result slowly, or stochastic for fewer gains asked
            about and a share of the optimum that is less by `epsilon`, in expectation.
        epsilon: of stochastic, between 0 and 1.
        initial_subset: candidates picked already. Gains are what is added to them; they are not
            returned, and count towards neither budget, quotas nor cost.
        groups, quotas: (M,) a whole number or string per candidate, and the most picks of each
            group: one number for all, or a mapping by group, where a group left out is not limited.
        costs, max_cost: (M,) whole numbers >= 1, tokens say, and the most that all picks may cost
            together. Pass budget = M for a cost budget alone.
        settings: of the objective.

    Guarantee for monotone objectives: 1 - 1/e of the best value of any B candidates, 1/2 under
    quotas (see `greedy`). Under a cost budget, where neither B nor quotas bind: (1 - 1/e) / 2, by
    running greedy twice, by gain per cost and by gain, skipping what no longer fits, and keeping
    the better result (Leskovec et al. 2007, CELF).

    Cost of facility_location: one pass over the kernel, then a few columns per pick. Memory: a
    column-major copy of the kernel, R x M x 4 bytes dense (none for a transposed view such as
    `influence.T`), about 8 bytes per entry sparse. One thread; the same bits on every run, and
    for a dense and a sparse kernel with equal entries.

    Raises SettingsError for an unknown name, a budget outside its range, limits that contradict
    the candidates, and a kernel that is not a matrix, holds NaN or infinity, or has negative
    values where they mean nothing.
    """
    if zero_gain_tail is not None:
        _check_choice("zero_gain_tail", zero_gain_tail, get_args(Tail))
    _check_choice("optimizer", optimizer, get_args(Optimizer))
    columns = columns_of(kernel)
    num_candidates = columns.num_columns
    initial = _initial(initial_subset, num_candidates)
    _check_budget(budget, num_candidates, len(initial))
    quota_per_group = group_limits(groups, quotas, num_candidates)
    cost_limit = token_costs(costs, max_cost, num_candidates)
    maximize = _optimizer(optimizer, epsilon, cost_limit is not None)
    means = _means(mean_influence, columns)
    tie_rank = np.random.default_rng(seed).permutation(num_candidates)

    def attempt(prices: DoubleArray | None) -> Selection:
        function = make_objective(objective, columns, means, settings)
        if zero_gain_tail == "cover_again" and not isinstance(function, Covering):
            raise SettingsError(
                f"zero_gain_tail cover_again is of objectives that cover rows, {objective} does "
                "not: leave it out, or use by_mean_influence, random or stop"
            )
        limits = Limits(int(budget), quota_per_group, cost_limit)
        search = _search(function, limits, initial, tie_rank, seed, prices)
        if isinstance(function, OwnRanking):
            picks = function.rank(search)
        elif isinstance(function, Covering) and zero_gain_tail in (None, "cover_again"):
            picks = in_rounds(function, search, maximize)
        else:
            picks = maximize(function, search)
        return _selection(picks, function, search, means, zero_gain_tail)

    by_gain = attempt(None)
    if cost_limit is None:
        return by_gain
    by_gain_per_cost = attempt(cost_limit[0].astype(np.float64))
    return max(by_gain_per_cost, by_gain, key=lambda selection: float(selection.gains.sum()))


def _optimizer(
    name: Optimizer, epsilon: float, has_costs: bool
) -> Callable[[Objective, Search], Picks]:
    if name != "stochastic":
        return lazy_greedy if name == "lazy" else naive_greedy
    if not 0 < epsilon < 1:
        raise SettingsError(f"epsilon must be above 0 and below 1, got {epsilon!r}")
    if has_costs:
        raise SettingsError(
            "optimizer stochastic takes its sample size from a number of rows and cannot keep to "
            "max_cost: use lazy"
        )
    return partial(stochastic_greedy, epsilon=epsilon)


def _search(
    function: Objective,
    limits: Limits,
    initial: IndexArray,
    tie_rank: IndexArray,
    seed: int,
    prices: DoubleArray | None,
) -> Search:
    """The search from the initial subset on; its zero is that of the search from nothing."""
    gains = function.gains(np.arange(len(tie_rank)))
    worth = gains if prices is None else gains / prices
    floor = ZERO_GAIN * max(float(worth.max()), 0.0) if function.saturates else -np.inf
    for candidate in initial.tolist():
        function.add(candidate)
    allowed = np.ones(len(tie_rank), dtype=bool)
    allowed[initial] = False
    order, queue = np.argsort(tie_rank), heap_of(worth, tie_rank)
    return Search(
        limits, order[allowed[order]], queue[allowed[queue]], tie_rank, worth, floor, seed, prices
    )


def _selection(
    picks: Picks, function: Objective, search: Search, means: DoubleArray, policy: Tail | None
) -> Selection:
    """The picks, and after saturation what the zero-gain policy adds to them."""
    ranking = np.array(picks.ranking, dtype=np.int64)
    gains = np.array(picks.gains, dtype=np.float64)
    rounds = np.array(picks.rounds, dtype=np.int64)
    zero_gain_from = len(ranking) if picks.saturated else None
    if picks.saturated and policy != "stop":
        order = search.candidates[~np.isin(search.candidates, ranking)]
        if policy != "random":
            order = order[np.lexsort((search.tie_rank[order], -means[order]))]
        tail = search.limits.fill(order)
        ranking = np.concatenate((ranking, tail))
        gains = np.concatenate((gains, _tail_gains(function, tail)))
        rounds = np.concatenate((rounds, np.zeros(len(tail), dtype=np.int64)))
    value = float(gains[rounds <= 1].sum() if isinstance(function, Covering) else gains.sum())
    return Selection(ranking, gains, zero_gain_from, objective_value=value, rounds=rounds)


def _tail_gains(function: Objective, tail: IndexArray) -> DoubleArray:
    gains = np.zeros(len(tail))
    if not function.monotone:  # below 0, and the objective's value must say so
        for place in range(len(tail)):
            gains[place] = function.gains(tail[place : place + 1])[0]
            function.add(int(tail[place]))
    return gains


def _means(mean_influence: ArrayLike | None, columns: Columns) -> DoubleArray:
    if mean_influence is None:
        return columns.sums() / columns.num_rows
    means = np.asarray(mean_influence, dtype=np.float64)
    if means.shape != (columns.num_columns,) or not np.isfinite(means).all():
        raise SettingsError(
            f"mean_influence must be {columns.num_columns} finite numbers, one per candidate, "
            f"got shape {means.shape}"
        )
    return means


def _initial(initial_subset: ArrayLike | None, num_candidates: int) -> IndexArray:
    if initial_subset is None or np.size(initial_subset) == 0:
        return np.empty(0, dtype=np.int64)
    initial = np.asarray(initial_subset)
    if initial.ndim != 1 or initial.dtype.kind not in "iu":
        raise SettingsError(
            "initial_subset must be a list of column numbers of the kernel, "
            f"got {initial.dtype} of shape {initial.shape}"
        )
    inside = initial.min() >= 0 and initial.max() < num_candidates
    if not inside or len(np.unique(initial)) < len(initial):
        raise SettingsError(
            f"initial_subset must name different candidates in 0..{num_candidates - 1}, "
            f"got {len(initial)} from {initial.min()} to {initial.max()}"
        )
    return initial.astype(np.int64)


def _check_budget(budget: int, num_candidates: int, num_initial: int) -> None:
    if isinstance(budget, bool) or not isinstance(budget, int | np.integer):
        raise SettingsError(f"budget must be a whole number of candidates, got {budget!r}")
    if not 1 <= budget <= num_candidates - num_initial:
        beside = f" less the {num_initial} of the initial subset" if num_initial else ""
        raise SettingsError(
            f"budget must be between 1 and the {num_candidates} candidates{beside}, got {budget}"
        )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SettingsError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
