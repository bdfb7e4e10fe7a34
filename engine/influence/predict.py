"""Predicted influence S[c, t] of every candidate on every target, from a fitted student.

    predict_influence   the matrix itself: when M x N floats fit in memory
    mean_influence      its row or column means, exact, without the matrix: to rank any number
    top_candidates      each target's best candidates, without the matrix: what a sparse kernel
                        is built from when M x N is too large

A student in the product form, such as `engine.VectorStudent`, is a matrix product of its factors
(`engine.kernels.product`); a network with at most one hidden layer two affine maps and a maximum
(`engine.kernels.units`); a deeper one goes pair by pair, in tiles, orders of magnitude slower. CUDA
tensors are computed on their device. For blocks of a larger job use `engine.kernels` directly.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from engine.errors import SettingsError
from engine.influence.network import (
    Embeddings,
    Network,
    check_finite,
    cuda_embeddings_of,
    embeddings_of,
    form_of,
    network_tiles,
    on_cuda,
)
from engine.kernels.aggregation import group_means
from engine.kernels.arrays import FloatArray, IndexArray
from engine.kernels.cuda import means_cuda, pairwise_block_cuda, top_cuda
from engine.kernels.means import MeanSums
from engine.kernels.pairwise import pairwise_block
from engine.kernels.product import (
    Factors,
    Grid,
    ProductTop,
    largest_factor,
    product_block,
    product_means,
)
from engine.kernels.top import RunningTop, Top, merge_top, top_of_block
from engine.kernels.units import norm_bound
from engine.students.student import ProductStudent

__all__ = ["TopCandidates", "mean_influence", "predict_influence", "top_candidates"]

logger = logging.getLogger(__name__)

SLAB_UNITS = 34  # hidden units of all rows that a mean holds at a time: 136 bytes a row


@dataclass(frozen=True)
class TopCandidates:
    """The k best candidates of each target.

    Attributes:
        ids: (N, k) int64, rows of the candidates, best first; equal influence: lower row first.
        influence: (N, k) float32, descending along a row.
        recall: share of the true k best that are here: measured, or 1.0 where all were compared.
    """

    ids: IndexArray
    influence: FloatArray
    recall: float


def predict_influence(
    student: Network | ProductStudent,
    candidates: Embeddings,
    targets: Embeddings,
    *,
    threads: int | None = None,
) -> FloatArray:
    """Influence of every candidate on every target: (M, F), (N, F) -> (M, N) float32 [c, t].

    A `VectorStudent` takes the teacher's vectors of the targets instead, (N, V). In the units of
    the training labels; equal to a network's forward pass to some 1e-6 of the matrix's scale
    (embeddings of one length; 1e-5 where lengths differ a thousandfold). Cost
    (M + N) D h multiply-adds and M N h maxima and additions, memory 4 M N bytes and 4 h for each
    row. The same bits for any number of threads (None: all cores) and any cut of the rows; a
    network that does not factorise runs on torch's own threads.

    Raises SettingsError for embeddings of another shape than the network's, ModelError for
    embeddings with NaN or infinity, EngineError for weights with them.
    """
    if isinstance(student, ProductStudent):
        rows, columns, grid = _factors(student, candidates, targets, threads)
        return product_block(rows, columns, grid, threads=threads)
    network = student
    if on_cuda(network, candidates, targets):
        on_device = cuda_embeddings_of(candidates, targets, network.dim)
        return pairwise_block_cuda(form_of(network, norm_bound(*on_device)), *on_device)
    e_c = embeddings_of(candidates, network.dim, "candidates", threads)
    e_t = embeddings_of(targets, network.dim, "targets", threads)
    if network.factorises:
        form = form_of(network, norm_bound(e_c, e_t, threads=threads))
        sides = form.of_candidates(e_c, threads=threads), form.of_targets(e_t, threads=threads)
        return pairwise_block(*sides, threads=threads)
    matrix = np.empty((len(e_c), len(e_t)), dtype=np.float32)
    for first, tile in network_tiles(network, e_c, e_t):
        matrix[first : first + len(tile)] = tile
    return matrix


def mean_influence(
    student: Network | ProductStudent,
    candidates: Embeddings,
    targets: Embeddings | None = None,
    *,
    groups: ArrayLike | None = None,
    over: Literal["targets", "candidates"] = "targets",
    threads: int | None = None,
) -> FloatArray:
    """Mean influence of each candidate over the targets: (M, D), (N, D) -> (M,) float32.

    With `groups`, the group of each target as 0 .. G - 1, (N,) int: its mean over each group,
    (M, G), as for the sub-tasks of LESS. `over="candidates"` is the mean of each target over the
    candidates instead, (N,) or (N, G); groups are then those of the candidates, (M,).

    A student of rows alone needs no targets. Exact, without the matrix: in the product form
    O((M G + N) R); of a network per hidden unit one sort of one side and one binary search for each
    row of the other, O((M G + N) h log N) (docs/method.md); memory some 140 bytes for each
    row of either side. A network that does not factorise costs a forward pass per pair. Threads
    and errors as `predict_influence`; SettingsError also for nothing to take a mean over, and for
    groups of another length or without a member.
    """
    if over not in ("targets", "candidates"):
        raise SettingsError(f'over must be "targets" or "candidates", got {over!r}')
    if isinstance(student, ProductStudent):
        return _means_of_product(student, candidates, targets, groups, over, threads)
    network = student
    if targets is None:
        raise SettingsError("mean_influence of this student needs the targets, got none")
    if on_cuda(network, candidates, targets):
        e_c, e_t = cuda_embeddings_of(candidates, targets, network.dim)
        group_of = _groups_of(groups, len(e_t) if over == "targets" else len(e_c), over)
        form = form_of(network, norm_bound(e_c, e_t))
        means = means_cuda(form, e_c, e_t, group_of, over_candidates=over == "candidates")
        return means[:, 0] if groups is None else means
    rows = embeddings_of(candidates, network.dim, "candidates", threads)
    columns = embeddings_of(targets, network.dim, "targets", threads)
    group_of = _groups_of(groups, len(columns) if over == "targets" else len(rows), over)
    if network.factorises:
        form = form_of(network, norm_bound(rows, columns, threads=threads))
        num_means = len(rows) if over == "targets" else len(columns)
        sums = MeanSums(num_means, len(group_of), group_of)
        for slab in form.slabs(SLAB_UNITS):
            of_rows = slab.of_candidates(rows, threads=threads)
            of_columns = slab.of_targets(columns, threads=threads)
            if over == "candidates":
                of_rows, of_columns = of_columns, of_rows
            sums.add([of_rows], [of_columns], threads=threads)
        means = sums.means(form.step)
    else:
        means = _means_of_tiles(network, rows, columns, group_of, over)
    return means[:, 0] if groups is None else means


def top_candidates(
    student: Network | ProductStudent,
    candidates: Embeddings,
    targets: Embeddings,
    k: int,
    recall: float = 1.0,
    *,
    seed: int = 0,
    threads: int | None = None,
) -> TopCandidates:
    """For every target its k best candidates, best first, ties to the lower candidate row.

    Streams over tiles: memory 4 (M + N) h + 16 N k bytes, never M x N; about the time of
    `predict_influence`, and its very values. The same bits for any number of threads.

    `recall` is the least share of the true k best that is acceptable, on average over the
    targets. Below 1 most targets are compared with a pool of promising candidates only
    (`engine.influence.pools`; in the product form by FAISS, `engine.influence.candidate_index`),
    several times faster for many targets; the result tells the recall that was measured on targets
    compared with everything. It is exact, recall=1.0, where that would be no faster: for few
    targets, for candidates that nearly all are among the best of somebody, on CUDA, and for a
    network that does not factorise. `seed` draws the samples.

    Raises SettingsError for k outside 1..M, recall outside (0, 1], and as `predict_influence`.
    """
    if not 0 < recall <= 1:
        raise SettingsError(f"recall must be above 0 and at most 1, got {recall}")
    if isinstance(student, ProductStudent):
        rows, columns, grid = _factors(student, candidates, targets, threads)
        return _top_of_product(rows, columns, grid, k, recall, seed, threads)
    network = student
    if on_cuda(network, candidates, targets):
        sides = cuda_embeddings_of(candidates, targets, network.dim)
        _check_k(k, len(sides[0]))
        top = top_cuda(form_of(network, norm_bound(*sides)), *sides, k)
        return TopCandidates(top.ids, top.influence, recall=1.0)
    e_c = embeddings_of(candidates, network.dim, "candidates", threads)
    e_t = embeddings_of(targets, network.dim, "targets", threads)
    _check_k(k, len(e_c))
    if not network.factorises:
        top = _top_of_tiles(network, e_c, e_t, k)
        return TopCandidates(top.ids, top.influence, recall=1.0)
    form = form_of(network, norm_bound(e_c, e_t, threads=threads))
    of_candidates = form.of_candidates(e_c, threads=threads)
    of_targets = form.of_targets(e_t, threads=threads)
    if recall < 1:
        from engine.influence.pools import PoolSearch, find_pools

        pools = find_pools([of_candidates], [of_targets], k, recall, seed=seed, threads=threads)
        if pools is not None:
            logger.info("most targets are compared with a pool of candidates: %s", pools)
            top = PoolSearch(pools, [of_candidates]).top(of_targets, k, threads=threads)
            return TopCandidates(top.ids, top.influence, recall=pools.recall)
        logger.info("pools of candidates would not be faster: all pairs are compared")
    best = RunningTop(of_targets, k)
    best.offer(of_candidates, threads=threads)
    top = best.top()
    return TopCandidates(top.ids, top.influence, recall=1.0)


# --- the product form ----------------------------------------------------------------------------


def _factors(
    student: ProductStudent, candidates: Embeddings, targets: Embeddings, threads: int | None
) -> tuple[Factors, Factors, Grid]:
    """The factors of both sides and their grid; inputs are checked."""
    rows = student.candidate_factors(_inputs(candidates, "candidates"), threads=threads)
    columns = student.target_factors(_inputs(targets, "targets"), threads=threads)
    grid = Grid.of(largest_factor(rows), largest_factor(columns), rows.shape[1])
    return rows, columns, grid


def _inputs(values: Embeddings, side: str) -> Factors:
    """A finite matrix (n, .): a CUDA tensor as it is, anything else as numpy float32."""
    if isinstance(values, Tensor) and values.is_cuda:
        finite = torch.isfinite(values).all(dim=-1).cpu().numpy()
        matrix: Factors = values.detach().float()
    else:
        host = values.detach().float().numpy() if isinstance(values, Tensor) else values
        matrix = np.asarray(host, np.float32)
        finite = np.asarray(np.isfinite(matrix).all(axis=-1))
    if len(matrix.shape) != 2:
        raise SettingsError(f"{side} must be a matrix, a row for each, got {tuple(matrix.shape)}")
    check_finite(np.flatnonzero(~finite), len(matrix), side)
    return matrix


def _means_of_product(
    student: ProductStudent,
    candidates: Embeddings,
    targets: Embeddings | None,
    groups: ArrayLike | None,
    over: str,
    threads: int | None,
) -> FloatArray:
    if targets is None:
        if student.pairwise:
            raise SettingsError("mean_influence of this student needs the targets, got none")
        targets = np.ones((1, 1), np.float32)
    rows, columns, grid = _factors(student, candidates, targets, threads)
    steps = grid.candidates, grid.targets
    if over == "candidates":
        rows, columns, steps = columns, rows, steps[::-1]
    group_of = _groups_of(groups, len(columns), over)
    means = product_means(rows, [columns], *steps, group_of, threads=threads)
    return means[:, 0] if groups is None else means


def _top_of_product(
    rows: Factors,
    columns: Factors,
    grid: Grid,
    k: int,
    recall: float,
    seed: int,
    threads: int | None,
) -> TopCandidates:
    _check_k(k, len(rows))
    if recall < 1 and isinstance(rows, np.ndarray) and isinstance(columns, np.ndarray):
        from engine.influence.candidate_index import find_index

        index = find_index([rows], [columns], grid, k, recall, seed=seed, threads=threads)
        if index is not None:
            logger.info("targets look into %d clusters of candidates", index.probes)
            top = index.top(columns, [rows], grid, k, threads=threads)
            return TopCandidates(top.ids, top.influence, recall=index.recall)
        logger.info("an index of the candidates would not be faster: all pairs are compared")
    best = ProductTop(columns, grid, k)
    best.offer(rows, threads=threads)
    top = best.top()
    return TopCandidates(top.ids, top.influence, recall=1.0)


# --- of networks ---------------------------------------------------------------------------------


def _check_k(k: int, num_candidates: int) -> None:
    if not 1 <= k <= num_candidates:
        raise SettingsError(f"k must be between 1 and the {num_candidates} candidates, got {k}")


def _groups_of(groups: ArrayLike | None, count: int, over: str) -> IndexArray:
    """The group of each row that means are taken over, checked; without groups all are in 0."""
    if count == 0:
        raise SettingsError(f"a mean over 0 {over} does not exist: pass at least one")
    if groups is None:
        return np.zeros(count, dtype=np.int64)
    group_of = np.asarray(groups)
    if group_of.shape != (count,) or not np.issubdtype(group_of.dtype, np.integer):
        raise SettingsError(
            f"groups must be one integer for each of the {count} {over}, "
            f"got {group_of.dtype} of shape {group_of.shape}"
        )
    if group_of.min() < 0 or not np.bincount(group_of).all():
        raise SettingsError("groups must be numbered from 0 without a gap: each needs a member")
    return group_of.astype(np.int64)


def _means_of_tiles(
    network: Network, candidates: FloatArray, targets: FloatArray, groups: IndexArray, over: str
) -> FloatArray:
    sizes = np.bincount(groups)
    tiles = network_tiles(network, candidates, targets)
    if over == "targets":
        means = [group_means(tile, groups) for _, tile in tiles]
        return np.concatenate([np.empty((0, len(sizes))), *means]).astype(np.float32)
    sums = np.zeros((len(targets), len(sizes)))
    for first, tile in tiles:
        some = groups[first : first + len(tile)]
        for group in np.unique(some):
            sums[:, group] += tile[some == group].sum(axis=0, dtype=np.float64)
    return (sums / sizes).astype(np.float32)


def _top_of_tiles(network: Network, candidates: FloatArray, targets: FloatArray, k: int) -> Top:
    empty = np.empty((len(targets), 0))
    top = Top(empty.astype(np.int64), empty.astype(np.float32))
    for first, tile in network_tiles(network, candidates, targets):
        top = merge_top(top, top_of_block(tile, k, first_id=first), k)
    return top
