"""What is selected from what: paths and small values that any worker can solve the problem from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.artifacts.files import file_sha256, load_array
from engine.kernels.arrays import DoubleArray, FloatArray, IndexArray
from engine.selection.kernel_files import KernelFiles
from engine.selection.limits import Limits, Quotas, group_limits, token_costs
from engine.selection.select import Optimizer, Selection, Tail, select

__all__ = ["Problem"]

# What of a monotone objective's value is coverage, so that gains can be read off its rows.
_COVERING = ("facility_location", "facility_location_conditional_gain")
_INFORMATION = "facility_location_mutual_information"


@dataclass(frozen=True)
class Problem:
    """A selection from M candidates.

    Attributes:
        objective: its name; top_mean and random read the means alone and have no kernel.
        means: file of the candidates' mean influence (M,).
        kernel: None for those two.
        owned: file with the best that owned rows do for each row of the kernel (R,), scaled.
        relevance: file with the relevance of each row of the kernel to the targets (R,), scaled.
        settings: further ones of the objective.
        groups: file with the group of each candidate (M,), and `quotas` of the groups.
        costs: file with the tokens of each candidate (M,), and `max_cost` of all picks.
    """

    objective: str
    budget: int
    means: Path
    kernel: KernelFiles | None
    settings: dict[str, Any]
    seed: int
    zero_gain_tail: Tail | None
    optimizer: Optimizer
    epsilon: float
    owned: Path | None = None
    relevance: Path | None = None
    groups: Path | None = None
    quotas: Quotas | None = None
    costs: Path | None = None
    max_cost: int | None = None

    @property
    def num_candidates(self) -> int:
        """M."""
        return len(_loaded(self.means))

    @property
    def kernel_gib(self) -> float:
        """Memory that the kernel of all candidates takes."""
        return 0.0 if self.kernel is None else self.kernel.num_bytes() / 2**30

    def recipe(self) -> list[Any]:
        """All that a solution depends on beside the artifacts, JSON-able; names parts of it."""
        files = [self.owned, self.relevance, self.groups, self.costs]
        if self.kernel is not None and self.kernel.penalty is not None:
            files.append(self.kernel.penalty)
        contents = [None if path is None else file_sha256(path) for path in files]
        kernel = self.kernel
        shape = None if kernel is None else [kernel.kind, *kernel.scaling, kernel.fills_diagonal]
        quotas = self.quotas if isinstance(self.quotas, int | None) else sorted(self.quotas.items())
        limits = [self.budget, quotas, self.max_cost]
        how = [self.seed, self.zero_gain_tail, self.optimizer, self.epsilon]
        return [self.objective, sorted(self.settings.items()), limits, how, contents, shape]

    def solve(
        self, columns: IndexArray | None = None, budget: int | None = None, cost_share: float = 1.0
    ) -> Selection:
        """Select from some candidates, ascending, or from all; the ranking has their numbers.

        `budget` in place of the problem's, and a share of the cost that all picks may have.
        Memory: the kernel of those candidates.
        """
        means = _loaded(self.means)
        chosen = np.arange(len(means)) if columns is None else columns
        kernel = means[None, chosen] if self.kernel is None else self.kernel.load(columns)
        settings = dict(self.settings)
        if self.owned is not None:
            settings["owned"] = _loaded(self.owned)
        if self.relevance is not None:
            settings["query"] = _loaded(self.relevance)
        selection = select(
            kernel,
            min(budget or self.budget, len(chosen)),
            self.objective,
            seed=self.seed,
            zero_gain_tail=self.zero_gain_tail,
            mean_influence=means[chosen],
            optimizer=self.optimizer,
            epsilon=self.epsilon,
            **self._limits(chosen, cost_share),
            **settings,
        )
        return replace(selection, ranking=chosen[selection.ranking])

    def by_turns(self, kernel: FloatArray) -> IndexArray:
        """What round robin picks of all candidates by another kernel (N, M), in these limits."""
        limits = self._limits(np.arange(self.num_candidates), 1.0)
        how: dict[str, Any] = {"seed": self.seed, "zero_gain_tail": "stop", **limits}
        return select(kernel, self.budget, "round_robin", **how).ranking

    def _limits(self, chosen: IndexArray, cost_share: float) -> dict[str, Any]:
        """Quotas and costs of some candidates, as `select` takes them."""
        limits: dict[str, Any] = {}
        if self.groups is not None:
            groups = _loaded(self.groups)[chosen]
            assert self.quotas is not None, "groups come with quotas"
            limits = {"groups": groups, "quotas": _present(self.quotas, groups)}
        if self.costs is not None:
            costs = _loaded(self.costs)[chosen]
            assert self.max_cost is not None, "costs come with a limit"
            limits |= {
                "costs": costs,
                "max_cost": max(int(self.max_cost * cost_share), int(costs.min())),
            }
        return limits

    def merged(
        self, rows: IndexArray, gains: DoubleArray, rounds: IndexArray, budget: int
    ) -> IndexArray:
        """Of these candidates those of the earliest rounds, and in these of the highest gains, as
        many as the limits allow.
        """
        count = self.num_candidates
        groups = None if self.groups is None else _loaded(self.groups)
        costs = None if self.costs is None else _loaded(self.costs)
        limits = Limits(
            budget,
            group_limits(groups, self.quotas, count),
            token_costs(costs, self.max_cost, count),
        )
        tie_rank = np.random.default_rng(self.seed).permutation(count)
        tail_last = np.where(rounds == 0, np.iinfo(np.int64).max, rounds)
        return limits.fill(rows[np.lexsort((tie_rank[rows], -gains, tail_last))])

    def coverage(self, picks: IndexArray) -> tuple[IndexArray, FloatArray]:
        """Which pick covers each row best, -1 for none, and how well: (R,), (R,)."""
        assert self.kernel is not None, f"{self.objective} covers nothing"
        return self.kernel.best(picks)

    def value(self, covered: FloatArray, picks: IndexArray) -> float | None:
        """The objective of picks that cover the rows so; None where it is not that of coverage."""
        if self.objective not in (*_COVERING, _INFORMATION):
            return None
        start, caps = self._start(), self._caps()
        capped = covered if caps is None else np.minimum(covered, caps)
        value = float(np.maximum(capped - start, 0).sum(dtype=np.float64))
        return value + float(self._relevance()[picks].sum())

    def picks_per_row(self, num_picks: int) -> int | None:
        """How many picks each row has, where several is what the objective is after; else None."""
        if self.kernel is None or self.objective not in (*_COVERING, "round_robin"):
            return None
        per_row = max(1, num_picks // self.kernel.num_rows)
        return None if per_row == 1 and self.objective != "round_robin" else per_row

    def depth(self, picks: IndexArray, per_row: int) -> float:
        """Sum over the rows of the kernel of their so many best picks. Memory: their columns."""
        assert self.kernel is not None, f"{self.objective} covers nothing"
        kernel = self.kernel.load(np.sort(picks))
        dense = kernel if isinstance(kernel, np.ndarray) else kernel.toarray()
        per_row = min(per_row, dense.shape[1])
        best = np.partition(dense, dense.shape[1] - per_row, axis=1)[:, -per_row:]
        return float(best.sum(dtype=np.float64))

    def gains_left(self, covered: FloatArray) -> DoubleArray | None:
        """What each candidate would still add to picks that cover the rows so: (M,).

        None for objectives whose gains are not those of coverage. Reads the kernel once.
        """
        if self.kernel is None or self.objective not in (*_COVERING, _INFORMATION):
            return None
        caps = self._caps()
        covered = np.maximum(covered, self._start())
        covered = covered if caps is None else np.minimum(covered, caps)
        return self.kernel.excess(covered, caps) + self._relevance()

    def _start(self) -> FloatArray:
        """How well the rows are covered before anything is picked: (R,) or (1,)."""
        if self.owned is None:
            return np.zeros(1, dtype=np.float32)
        nu: FloatArray = np.float32(self.settings.get("nu", 1.0)) * _loaded(self.owned)
        return nu

    def _caps(self) -> FloatArray | None:
        """How well each row can be covered at most: (R,); None without a bound."""
        if self.relevance is None:
            return None
        eta: FloatArray = np.float32(self.settings.get("eta", 1.0)) * _loaded(self.relevance)
        return eta

    def _relevance(self) -> DoubleArray:
        """What each candidate adds whatever else was picked: (M,)."""
        if self.objective != _INFORMATION or self.relevance is not None or self.kernel is None:
            return np.zeros(self.num_candidates)
        return float(self.settings.get("eta", 1.0)) * self.kernel.maxima().astype(np.float64)


def _loaded(path: Path) -> NDArray[Any]:
    values: NDArray[Any] = load_array(path)
    return values


def _present(quotas: Quotas, groups: NDArray[Any]) -> Quotas:
    """The quotas of groups that some candidate has: a part of the candidates may miss some."""
    if isinstance(quotas, int):
        return quotas
    found = set(groups.tolist())
    return {name: quota for name, quota in quotas.items() if name in found}
