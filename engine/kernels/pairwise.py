"""The factorised form of the InfluenceNetwork, which every fast predictor computes with.

The first layer splits exactly, W1 [e_c ; 0 ; e_t] + b = (A e_c + b) + (B e_t), so all pairs of M
candidates and N targets need M + N matrix-vector products, and then about 2 h flops a pair:

    S[c, t] = candidate_bias[c] + target_bias[t] + sum_k weights[k] * relu(P[c, k] + Q[t, k])

What is here, and when to use which:
    PairwiseForm      P, Q and the rest: what `InfluenceNetwork.factorise` returns
    pairwise_block    S itself, for a block of candidates (O(m N h))
    FoldedForm, fold  the same numbers arranged for one max and one add per hidden unit: for the
                      other kernels of this package (`top`), which run `pair_row` on them
Means of S do not need S: see `means`. The best candidates of each target: see `top`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numba
import numpy as np

from engine.errors import EngineError
from engine.kernels.arrays import FloatArray
from engine.kernels.compiled import compiled
from engine.kernels.threads import kernel_threads

__all__ = ["FloatArray", "FoldedForm", "PairwiseForm", "fold", "pair_row", "pairwise_block"]

UNROLL = 4  # hidden units per pass over a row: fewer loads and stores of the running sums
TILE = 512  # columns per tile: TILE x h floats stay in the second-level cache
ROWS = 32  # rows that share a tile before the next tile is loaded


@dataclass(frozen=True)
class PairwiseForm:
    """All that is needed to compute S[c, t] for M candidates and N targets.

    Attributes:
        candidate_units: P, (M, h) float32.
        target_units: Q, (N, h) float32.
        weights: output weight of each hidden unit, (h,) float32; the label scale is folded in.
        candidate_bias: additive term of each candidate, (M,) float32 (main effect).
        target_bias: additive term of each target, (N,) float32 (main effect and all constants).
    """

    candidate_units: FloatArray
    target_units: FloatArray
    weights: FloatArray
    candidate_bias: FloatArray
    target_bias: FloatArray

    def of_candidates(self, rows: slice) -> PairwiseForm:
        """The form of a block of candidates with all targets; views, nothing is copied."""
        return replace(
            self,
            candidate_units=self.candidate_units[rows],
            candidate_bias=self.candidate_bias[rows],
        )

    def swapped(self) -> PairwiseForm:
        """The form of the transposed matrix: candidates and targets change places."""
        return PairwiseForm(
            candidate_units=self.target_units,
            target_units=self.candidate_units,
            weights=self.weights,
            candidate_bias=self.target_bias,
            target_bias=self.candidate_bias,
        )


@dataclass(frozen=True)
class FoldedForm:
    """A PairwiseForm with |weights| folded in, its units ordered by the sign of their weight.

    w relu(p + q) = +-(max(|w| p, -|w| q) + |w| q), and the sum of the last term over the units is
    a constant of the target. h' is h padded with zero units, so that the units of either sign
    are a multiple of UNROLL.

    Attributes:
        candidates: |w| P, (M, h') float32.
        targets: -|w| Q, (N, h') float32.
        num_positive: units before this one are added, the others subtracted.
        candidate_bias: (M,) float32.
        target_bias: (N,) float32, with the constant of each target.
    """

    candidates: FloatArray
    targets: FloatArray
    num_positive: int
    candidate_bias: FloatArray
    target_bias: FloatArray


def pairwise_block(
    form: PairwiseForm, candidates: slice = slice(None), *, threads: int | None = None
) -> FloatArray:
    """S of a block of candidates with all targets: (m, N) float32 [c, t].

    Cost m N h max-and-adds. The same bits for any block and any number of threads: the units of
    a pair are summed in one fixed order. Raises EngineError for units that are not finite.
    """
    folded = fold(form.of_candidates(candidates))
    columns = np.ascontiguousarray(folded.targets.T)
    block = np.empty((len(folded.candidates), len(folded.targets)), dtype=np.float32)
    with kernel_threads(threads):
        _fill(
            folded.candidates,
            columns,
            folded.num_positive,
            folded.candidate_bias,
            folded.target_bias,
            block,
        )
    return block


def fold(form: PairwiseForm) -> FoldedForm:
    """Arrange a form for one max and one add per unit; copies, cost (M + N) h.

    Raises EngineError for values that are not finite: a maximum would swallow a NaN.
    """
    signs = np.sign(form.weights)
    _check_finite("output weight", form.weights[:, None])
    with np.errstate(over="ignore", invalid="ignore"):  # told as an error below
        candidates = _by_sign(form.candidate_units * np.abs(form.weights), signs)
        targets = -_by_sign(form.target_units * np.abs(form.weights), signs)
    _check_finite("candidate", candidates, form.candidate_bias)
    _check_finite("target", targets, form.target_bias)
    num_positive = _padded(int((signs > 0).sum()))
    constant = form.target_bias.astype(np.float64)
    for unit in range(targets.shape[1]):  # one by one: the same order for any number of targets
        if unit < num_positive:
            constant -= targets[:, unit]
        else:
            constant += targets[:, unit]
    return FoldedForm(
        candidates=candidates,
        targets=targets,
        num_positive=num_positive,
        candidate_bias=form.candidate_bias.astype(np.float32),
        target_bias=constant.astype(np.float32),
    )


@compiled()
def pair_row(
    units: FloatArray,
    columns: FloatArray,
    num_positive: int,
    bias: np.float32,
    column_bias: FloatArray,
    start: int,
    row: FloatArray,
) -> None:
    """One row of S against columns start .. start + n, into `row` (n,); see FoldedForm.

    `units` (h',) is a row of one side, `columns` (h', N) the transposed rows of the other; the
    result is the same bits whichever side is which. Compiled; called from compiled code.
    """
    n = row.shape[0]
    stop = start + n
    for t in range(n):
        row[t] = np.float32(0.0)
    for k in range(0, units.shape[0], UNROLL):
        p0, p1, p2, p3 = units[k], units[k + 1], units[k + 2], units[k + 3]
        c0, c1 = columns[k, start:stop], columns[k + 1, start:stop]
        c2, c3 = columns[k + 2, start:stop], columns[k + 3, start:stop]
        # `a if a > b else b` is one machine instruction; max() would mind NaN, which fold excludes
        if k < num_positive:
            for t in range(n):
                a = (p0 if p0 > c0[t] else c0[t]) + (p1 if p1 > c1[t] else c1[t])
                b = (p2 if p2 > c2[t] else c2[t]) + (p3 if p3 > c3[t] else c3[t])
                row[t] += a + b
        else:
            for t in range(n):
                a = (p0 if p0 > c0[t] else c0[t]) + (p1 if p1 > c1[t] else c1[t])
                b = (p2 if p2 > c2[t] else c2[t]) + (p3 if p3 > c3[t] else c3[t])
                row[t] -= a + b
    for t in range(n):
        row[t] += bias + column_bias[start + t]


@compiled(parallel=True)
def _fill(
    rows: FloatArray,
    columns: FloatArray,
    num_positive: int,
    row_bias: FloatArray,
    column_bias: FloatArray,
    out: FloatArray,
) -> None:
    m, n = out.shape
    for block in numba.prange((m + ROWS - 1) // ROWS):
        for start in range(0, n, TILE):
            stop = min(n, start + TILE)
            for r in range(block * ROWS, min(m, (block + 1) * ROWS)):
                row = out[r, start:stop]
                pair_row(rows[r], columns, num_positive, row_bias[r], column_bias, start, row)


def _by_sign(units: FloatArray, signs: FloatArray) -> FloatArray:
    """Units of positive weight, then of negative, both padded with zeros: (n, h) -> (n, h')."""
    positive, negative = np.flatnonzero(signs > 0), np.flatnonzero(signs < 0)
    start = _padded(len(positive))
    arranged = np.zeros((len(units), start + _padded(len(negative))), dtype=np.float32)
    arranged[:, : len(positive)] = units[:, positive]
    arranged[:, start : start + len(negative)] = units[:, negative]
    return arranged


def _padded(count: int) -> int:
    return -(-count // UNROLL) * UNROLL


def _check_finite(what: str, values: FloatArray, bias: FloatArray | None = None) -> None:
    finite = np.isfinite(values).all(axis=1)
    if bias is not None:
        finite &= np.isfinite(bias)
    bad = np.flatnonzero(~finite)
    if len(bad) > 0:
        raise EngineError(
            f"{what} {bad[0]} of the network ({len(bad)} of {len(values)}) is NaN or infinite: "
            "check the embeddings, and that the fit did not diverge"
        )
