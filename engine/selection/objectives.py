"""What a selection is good at: one class per objective, each with one gain oracle.

    facility_location                     covers every row with at least one similar pick
    facility_location_mutual_information  covers what a query asks for
    facility_location_conditional_gain    covers what owned rows leave uncovered
    graph_cut                             similar to the pool, not to one another
    graph_cut_mutual_information          the candidates most similar to a query, each for itself
    top_mean                              the highest mean influence, each for itself
    random                                a seeded draw: the baseline

`engine.selection.round_robin` has one more, the rows in turn. All of the list but the last three
are submodular, and monotone too except graph_cut where it says so. An objective reads a kernel
through `engine.kernels.columns` and never decides an order; that is `greedy`'s. Source:
docs/method.md, Selection; the mutual-information and conditional forms are those of Kothawade et
al. 2022 (PRISM) and of submodlib.
"""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from engine.errors import SettingsError
from engine.kernels.arrays import DoubleArray, FloatArray, IndexArray
from engine.selection.objective import Covering, Objective, make_objective, objective_names

if TYPE_CHECKING:
    from engine.kernels.columns import Columns

__all__ = [
    "FacilityLocation",
    "FacilityLocationConditionalGain",
    "FacilityLocationMutualInformation",
    "GraphCut",
    "GraphCutMutualInformation",
    "Objective",
    "Random",
    "TopMean",
    "make_objective",
    "objective_names",
]


class FacilityLocation(Covering):
    """f(A) = sum_r max(0, max_{c in A} s[r, c]), for s >= 0. Monotone submodular.

    Rows are the targets, or the candidates themselves: a square kernel, whose diagonal must then
    be what a candidate is worth to itself. For a similarity pass its maximum (1 for cosines); a
    diagonal of 0, as neighbour lists without the row itself have it, means that picking a row does
    nothing for that row.

    One gain costs O(R), or the stored entries of the column for a sparse kernel; state R floats.
    Raises SettingsError for a kernel with negative values: rows would start covered.
    """

    name = "facility_location"
    modular: ClassVar[bool] = False
    saturates: ClassVar[bool] = True
    monotone: ClassVar[bool] = True

    def __init__(self, columns: Columns, means: DoubleArray) -> None:
        _refuse_negative(columns, "facility_location")
        self.columns = columns
        self.covered = np.zeros(columns.num_rows, dtype=np.float32)

    def gains(self, candidates: IndexArray) -> DoubleArray:
        return self.columns.excess(candidates, self.covered)

    def add(self, candidate: int) -> None:
        self.columns.cover(candidate, self.covered)


class FacilityLocationMutualInformation(FacilityLocation):
    """What picks tell about a query Q, in one of two forms; s >= 0. Monotone submodular.

        form 2   f(A) = sum_{q in Q} max_{c in A} s[q, c] + eta sum_{c in A} max_{q in Q} s[q, c]
        form 1   f(A) = sum_{r in V} min(max_{c in A} s[r, c], eta max_{q in Q} query[r, q])

    Settings: `form`, 2 by default; `eta` >= 0, how much relevance counts against coverage; `owned`
    and `nu`, as for the conditional gain: coverage then counts where it is above nu times what
    owned rows give, the information that is new beside them.

    Form 2 needs the kernel (Q, M) of the query to the candidates and nothing else. It does not
    saturate while candidates are relevant at all. Form 1 needs the kernel (V, M) of a ground set,
    normally the candidates themselves, and as `query` the similarity of its rows to the query:
    (V, Q) dense or sparse, or (V,) where the best has been taken already. It covers of the pool
    only what is like the query, and stops gaining once that is covered.

    One gain costs what facility_location's costs. Form 1 copies the values of the kernel once.
    Raises SettingsError for negative values, another form, and a query where it is not wanted.
    """

    name = "facility_location_mutual_information"
    covers = "target"

    def __init__(
        self,
        columns: Columns,
        means: DoubleArray,
        form: Literal[1, 2] = 2,
        query: Any = None,
        eta: float = 1.0,
        owned: Any = None,
        nu: float = 1.0,
    ) -> None:
        name = "facility_location_mutual_information"
        if isinstance(form, bool) or form not in (1, 2):
            raise SettingsError(f"{name} has form 1 and 2, got {form!r}")
        if (form == 1) != (query is not None):
            raise SettingsError(
                f"{name} needs `query`, the similarity of the kernel's rows to the query, "
                "in form 1 and only there: form 2 has the query as the rows of the kernel"
            )
        eta, nu = _not_negative(name, "eta", eta), _not_negative(name, "nu", nu)
        _refuse_negative(columns, name)
        self.relevance = np.zeros(columns.num_columns)
        if form == 1:
            columns = columns.capped(eta * _best_per_row("query", query, columns.num_rows))
        else:
            self.relevance = eta * columns.maxima()
        super().__init__(columns, means)
        if owned is not None:
            self.covered = nu * _best_per_row("owned", owned, columns.num_rows)

    def gains(self, candidates: IndexArray) -> DoubleArray:
        return super().gains(candidates) + self.relevance[candidates]


class FacilityLocationConditionalGain(FacilityLocation):
    """f(A) = sum_r max(max_{c in A} s[r, c] - nu max_{p in P} owned[r, p], 0). Monotone submodular.

    What picks add to rows P that are owned already. `owned` is the similarity of the kernel's rows
    to them, >= 0: (R, P) dense or sparse, or (R,) where the best has been taken already; `nu` >= 0
    says how strictly to keep away from them, 1 being facility location given P, 0 without P.

    Facility location whose rows start covered, so it costs the same. Raises SettingsError for
    negative values and an `owned` that does not fit the kernel.
    """

    name = "facility_location_conditional_gain"
    needs_owned = True

    def __init__(self, columns: Columns, means: DoubleArray, owned: Any, nu: float = 1.0) -> None:
        name = "facility_location_conditional_gain"
        nu = _not_negative(name, "nu", nu)
        _refuse_negative(columns, name)
        super().__init__(columns, means)
        self.covered = nu * _best_per_row("owned", owned, columns.num_rows)


class GraphCut(Objective):
    """f(A) = sum_{r in V, c in A} s[r, c] - lambda sum_{a, b in A} s[a, b], for s >= 0, square.

    The second sum is over ordered pairs and holds a = b, as in submodlib. Setting: `trade_off`,
    the lambda, >= 0. Submodular always. Monotone for a symmetric kernel and lambda <= 0.5; beyond,
    a candidate may cost more than it brings: greedy stops there, promises no share of the optimum,
    and what the zero-gain policy adds lowers the objective and is reported with its negative
    gains. `zero_gain_tail="stop"` leaves it out.

    One gain costs O(1), one pick O(M), or the stored entries of its row and column; state M
    doubles, and the transposed kernel where it is not symmetric. Raises SettingsError for a kernel
    that is not square and for negative values.
    """

    name = "graph_cut"
    covers = "self"
    modular: ClassVar[bool] = False
    saturates: ClassVar[bool] = True
    monotone: ClassVar[bool] = False

    def __init__(self, columns: Columns, means: DoubleArray, trade_off: float = 0.5) -> None:
        self.trade_off = _not_negative("graph_cut", "trade_off", trade_off)
        if columns.num_rows != columns.num_columns:
            raise SettingsError(
                "graph_cut needs a square kernel (candidates, candidates), "
                f"got shape ({columns.num_rows}, {columns.num_columns})"
            )
        _refuse_negative(columns, "graph_cut")
        self.columns, self.transposed = columns, columns.transposed()
        self.representation = columns.sums()
        self.redundancy = columns.diagonal()  # of c: s[c, c] + sum_{a in A} s[a, c] + s[c, a]

    def gains(self, candidates: IndexArray) -> DoubleArray:
        return self.representation[candidates] - self.trade_off * self.redundancy[candidates]

    def add(self, candidate: int) -> None:
        self.columns.add_to(candidate, self.redundancy)
        self.transposed.add_to(candidate, self.redundancy)


class GraphCutMutualInformation(Objective):
    """f(A) = 2 lambda sum_{q in Q, c in A} s[q, c], for the kernel (Q, M) of a query; any sign.

    Modular: the candidates most similar to the query, each for itself. Setting: `trade_off`, the
    lambda, >= 0, which scales the gains and changes no ranking; 0.5, the default, gives the plain
    sum that submodlib computes.
    """

    name = "graph_cut_mutual_information"
    covers = "target"
    modular: ClassVar[bool] = True
    saturates: ClassVar[bool] = False
    monotone: ClassVar[bool] = False

    def __init__(self, columns: Columns, means: DoubleArray, trade_off: float = 0.5) -> None:
        trade_off = _not_negative("graph_cut_mutual_information", "trade_off", trade_off)
        self.similarity = 2 * trade_off * columns.sums()

    def gains(self, candidates: IndexArray) -> DoubleArray:
        return self.similarity[candidates]

    def add(self, candidate: int) -> None:
        pass


class TopMean(Objective):
    """f(A) = sum over A of the candidate's mean influence; any sign."""

    name = "top_mean"
    reads_kernel = False
    modular: ClassVar[bool] = True
    saturates: ClassVar[bool] = False
    monotone: ClassVar[bool] = False

    def __init__(self, columns: Columns, means: DoubleArray) -> None:
        self.means = means

    def gains(self, candidates: IndexArray) -> DoubleArray:
        return self.means[candidates]

    def add(self, candidate: int) -> None:
        pass


class Random(Objective):
    """f(A) = 0: every candidate ties, so the seeded permutation that breaks ties is the ranking."""

    name = "random"
    reads_kernel = False
    modular: ClassVar[bool] = True
    saturates: ClassVar[bool] = False
    monotone: ClassVar[bool] = True

    def __init__(self, columns: Columns, means: DoubleArray) -> None:
        pass

    def gains(self, candidates: IndexArray) -> DoubleArray:
        return np.zeros(len(candidates))

    def add(self, candidate: int) -> None:
        pass


def _best_per_row(name: str, similarity: Any, num_rows: int) -> FloatArray:
    """max over the second axis of (R, K), or (R,) as it is: (R,) float32, checked to be >= 0."""
    from engine.kernels.columns import columns_of

    if getattr(similarity, "ndim", None) == 1 or isinstance(similarity, list | tuple):
        array = np.asarray(similarity)
        similarity = array[:, None] if array.ndim == 1 else array
    try:
        others = columns_of(similarity)
    except SettingsError as error:
        raise SettingsError(f"{name}: {error}") from error
    if others.num_rows != num_rows or others.minimum < 0:
        raise SettingsError(
            f"{name} must hold values >= 0 for the {num_rows} rows of the kernel, "
            f"got {others.num_rows} rows with minimum {others.minimum:g}"
        )
    best = np.zeros(num_rows, dtype=np.float32)
    for column in range(others.num_columns):
        others.cover(column, best)
    return best


def _not_negative(name: str, setting: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < np.inf:
        raise SettingsError(f"{setting} of {name} must be a number >= 0, got {value!r}")
    return float(value)


def _refuse_negative(columns: Columns, name: str) -> None:
    if columns.minimum < 0:
        raise SettingsError(
            f"{name} needs a kernel with values >= 0, its minimum is {columns.minimum:g}: "
            "scale influence first (selection.scaling: minmax, clip0 or quantile)"
        )
