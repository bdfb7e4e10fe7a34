"""`select`: the subset of a candidate pool that is worth training on, from its kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from engine.errors import SettingsError
from engine.kernels.arrays import DoubleArray, IndexArray
from engine.kernels.columns import Columns, columns_of
from engine.selection.greedy import lazy_greedy, naive_greedy
from engine.selection.objectives import make_objective

__all__ = ["Selection", "Tail", "select"]

Tail = Literal["by_mean_influence", "random", "stop"]
Optimizer = Literal["lazy", "naive"]

ZERO_GAIN = 1e-12  # of the first gain: anything smaller is rounding

_OPTIMIZERS = {"lazy": lazy_greedy, "naive": naive_greedy}


@dataclass(frozen=True)
class Selection:
    """Which candidates were picked, in order.

    Attributes:
        ranking: (B,) int64, columns of the kernel, first pick first; each at most once.
        gains: (B,) float64, what each pick added to the objective, in the kernel's units; never
            increasing, 0 from `zero_gain_from` on.
        zero_gain_from: rank from which no candidate added anything and the order is that of the
            zero-gain policy; None when that never happened. Equal to B under `stop`.
        objective_value: the objective of all picks, the sum of the gains.
    """

    ranking: IndexArray
    gains: DoubleArray
    zero_gain_from: int | None
    objective_value: float


def select(
    kernel: Any,
    budget: int,
    objective: str = "facility_location",
    *,
    seed: int = 0,
    zero_gain_tail: Tail = "by_mean_influence",
    mean_influence: ArrayLike | None = None,
    optimizer: Optimizer = "lazy",
    **settings: Any,
) -> Selection:
    """Pick `budget` candidates greedily: kernel (R, M) -> Selection.

    Args:
        kernel: dense float32 or scipy.sparse.csr_array, [r, c] = how well candidate c covers row
            r; absent entries are 0. facility_location needs values >= 0.
        budget: B, number of candidates, 1..M.
        objective: facility_location, top_mean or random (see `objectives`).
        seed: of the permutation that breaks ties; the only randomness.
        zero_gain_tail: how to go on when the best gain is at most 1e-12 of the first one:
            by_mean_influence (descending), random, or stop (fewer than B picks).
        mean_influence: (M,) exact means, for top_mean and the tail; only their order matters to
            the tail. Default: the means over the kernel's rows, which for a sparse kernel count
            absent entries as 0.
        optimizer: lazy, or naive for the same result slowly.
        settings: of the objective.

    Cost of facility_location: one pass over the kernel, then a few columns per pick. Memory: a
    column-major copy of the kernel, R x M x 4 bytes dense (none for a transposed view such as
    `influence.T`), about 8 bytes per entry sparse. One thread; the same bits on every run, and
    for a dense and a sparse kernel with equal entries.

    Raises SettingsError for an unknown name, a budget outside 1..M, and a kernel that is not a
    matrix, holds NaN or infinity, or has negative values where they mean nothing.
    """
    _check_choice("zero_gain_tail", zero_gain_tail, get_args(Tail))
    _check_choice("optimizer", optimizer, get_args(Optimizer))
    columns = columns_of(kernel)
    _check_budget(budget, columns.num_columns)
    means = _means(mean_influence, columns)
    function = make_objective(objective, columns, means, settings)
    tie_rank = np.random.default_rng(seed).permutation(columns.num_columns)
    tolerance = ZERO_GAIN if function.saturates else None
    ranking, gains = _OPTIMIZERS[optimizer](function, int(budget), tie_rank, tolerance)
    zero_gain_from = len(ranking) if len(ranking) < budget else None
    if zero_gain_from is not None and zero_gain_tail != "stop":
        tail = _tail(means, ranking, tie_rank, zero_gain_tail)[: budget - len(ranking)]
        ranking = np.concatenate((ranking, tail))
        gains = np.concatenate((gains, np.zeros(len(tail))))
    return Selection(ranking, gains, zero_gain_from, objective_value=float(gains.sum()))


def _tail(
    means: DoubleArray, ranking: IndexArray, tie_rank: IndexArray, policy: Tail
) -> IndexArray:
    """All candidates that are not in the ranking, in the order of the policy."""
    if policy == "by_mean_influence":
        order = np.lexsort((tie_rank, -means))
    else:
        order = np.argsort(tie_rank)
    unpicked = np.ones(len(tie_rank), dtype=bool)
    unpicked[ranking] = False
    return order[unpicked[order]]


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


def _check_budget(budget: int, num_candidates: int) -> None:
    if isinstance(budget, bool) or not isinstance(budget, int | np.integer):
        raise SettingsError(f"budget must be a whole number of candidates, got {budget!r}")
    if not 1 <= budget <= num_candidates:
        raise SettingsError(
            f"budget must be between 1 and the {num_candidates} candidates, got {budget}"
        )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SettingsError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
