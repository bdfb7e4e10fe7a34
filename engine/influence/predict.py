"""Predicted influence S[c, t] of every candidate on every target, from a fitted network.

    predict_influence   the matrix itself: when M x N floats fit in memory
    mean_influence      its row means, exact, without the matrix: to rank candidates of any number
    top_candidates      each target's best candidates, without the matrix: what a sparse kernel
                        is built from when M x N is too large

A network with one hidden layer is computed in its factorised form; any other one pair at a time,
in tiles, orders of magnitude slower. For blocks of a larger job use `engine.kernels` directly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.errors import SettingsError
from engine.influence.network import Embeddings, Network, embeddings_of, form_of, network_tiles
from engine.kernels.arrays import FloatArray, IndexArray
from engine.kernels.means import mean_over_targets
from engine.kernels.pairwise import pairwise_block
from engine.kernels.top import Top, merge_top, top_of_block, top_of_form

__all__ = ["TopCandidates", "mean_influence", "predict_influence", "top_candidates"]


@dataclass(frozen=True)
class TopCandidates:
    """The k best candidates of each target.

    Attributes:
        ids: (N, k) int64, rows of the candidates, best first; equal influence: lower row first.
        influence: (N, k) float32, descending along a row.
        recall: share of the true k best that are here, measured; 1.0 is exact.
    """

    ids: IndexArray
    influence: FloatArray
    recall: float


def predict_influence(
    network: Network,
    candidates: Embeddings,
    targets: Embeddings,
    *,
    threads: int | None = None,
) -> FloatArray:
    """Influence of every candidate on every target: (M, D), (N, D) -> (M, N) float32 [c, t].

    In the units of the training labels; equal to the network's forward pass to about 1e-6 of the
    matrix's scale. Cost (M + N) D h multiply-adds and M N h max-and-adds, memory 4 M N bytes. The
    same bits for any number of threads (None: all cores); a network that does not factorise runs
    on torch's own threads.

    Raises SettingsError for embeddings of another shape than the network's, ModelError for
    embeddings with NaN or infinity.
    """
    e_c = embeddings_of(candidates, network.dim, "candidates")
    e_t = embeddings_of(targets, network.dim, "targets")
    form = form_of(network, e_c, e_t)
    if form is not None:
        return pairwise_block(form, threads=threads)
    matrix = np.empty((len(e_c), len(e_t)), dtype=np.float32)
    for first, tile in network_tiles(network, e_c, e_t):
        matrix[first : first + len(tile)] = tile
    return matrix


def mean_influence(
    network: Network,
    candidates: Embeddings,
    targets: Embeddings,
    *,
    threads: int | None = None,
) -> FloatArray:
    """Mean influence of each candidate over the targets: (M, D), (N, D) -> (M,) float32.

    Exact, without the matrix: per hidden unit one sort of the targets and one binary search per
    candidate, O((M + N) h log N) (ALGORITHMS.md section 5), sums in float64. A network that does
    not factorise costs a forward pass per pair. Threads and errors as `predict_influence`;
    SettingsError also for no targets.
    """
    e_c = embeddings_of(candidates, network.dim, "candidates")
    e_t = embeddings_of(targets, network.dim, "targets")
    if len(e_t) == 0:
        raise SettingsError("a mean over 0 targets does not exist: pass at least one target")
    form = form_of(network, e_c, e_t)
    if form is not None:
        return mean_over_targets(form, threads=threads)
    means = np.empty(len(e_c), dtype=np.float32)
    for first, tile in network_tiles(network, e_c, e_t):
        means[first : first + len(tile)] = tile.mean(axis=1, dtype=np.float64)
    return means


def top_candidates(
    network: Network,
    candidates: Embeddings,
    targets: Embeddings,
    k: int,
    recall: float = 1.0,
    *,
    threads: int | None = None,
) -> TopCandidates:
    """For every target its k best candidates, best first, ties to the lower candidate row.

    Streams over tiles: memory (M + N) h + N k, never M x N; about the time of
    `predict_influence`, and its very values. The same bits for any number of threads.

    `recall` is the least share of the true k best that is acceptable. No prefilter exists yet, so
    the search is exact for every value, and the result says recall=1.0.

    Raises SettingsError for k outside 1..M, recall outside (0, 1], and as `predict_influence`.
    """
    e_c = embeddings_of(candidates, network.dim, "candidates")
    e_t = embeddings_of(targets, network.dim, "targets")
    if not 1 <= k <= len(e_c):
        raise SettingsError(f"k must be between 1 and the {len(e_c)} candidates, got {k}")
    if not 0 < recall <= 1:
        raise SettingsError(f"recall must be above 0 and at most 1, got {recall}")
    form = form_of(network, e_c, e_t)
    if form is not None:
        top = top_of_form(form, k, threads=threads)
    else:
        top = _top_of_tiles(network, e_c, e_t, k)
    return TopCandidates(top.ids, top.influence, recall=1.0)


def _top_of_tiles(network: Network, candidates: FloatArray, targets: FloatArray, k: int) -> Top:
    empty = np.empty((len(targets), 0))
    top = Top(empty.astype(np.int64), empty.astype(np.float32))
    for first, tile in network_tiles(network, candidates, targets):
        top = merge_top(top, top_of_block(tile, k, first_id=first), k)
    return top
