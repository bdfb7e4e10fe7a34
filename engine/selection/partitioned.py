"""Selection from more candidates than one worker can hold the kernel of: in two rounds.

Each partition is selected from by itself, and the picks of all are selected from again (GreeDi,
Mirzasoleiman et al. 2013). Where candidates cover candidates, neighbours are put into one
partition: they compete mostly with each other. Where they cover targets they are dealt out by hash
(Barbosa et al. 2015): the best for few targets are neighbours, and one partition's share of the
budget would not hold them. How little that loses is measured, on a part of the candidates that one
worker can hold, against selecting at once.

Each partition picks more than its share, `SLACK` times, for the second round to choose among. Where
even those picks do not fit, they are merged by their gains, which needs no kernel.

    num_partitions     how many the memory setting asks for
    first_round        selects from each partition, on Ray
    partitions_of      clusters -> candidates of each partition
    dealt_out          the same by hash
    second_round       the picks of all partitions -> the selection
    measured_ratio     two rounds against one on a part of the candidates
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine import storage
from engine.artifacts.files import atomic_path, digest, load_array, read_table, save_array
from engine.artifacts.rows import TableParts, VectorParts, id_hashes
from engine.config import SelectionConfig
from engine.errors import SettingsError
from engine.features.clusters import clusters_of
from engine.kernels.arrays import DoubleArray, FloatArray, IndexArray
from engine.runtime.executor import Partition, PartitionWorker
from engine.runtime.stage import StageContext
from engine.selection.problem import Problem
from engine.selection.select import Selection

__all__ = [
    "dealt_out",
    "first_round",
    "measured_ratio",
    "num_partitions",
    "partitions_of",
    "read_picks",
    "second_round",
]

CODE_VERSION = 2

Picked: TypeAlias = tuple[IndexArray, DoubleArray, IndexArray]  # rows, gains, rounds

SLACK = 1.5  # picks of the first round, in budgets
MIN_SHARE = 1 / 8  # of the candidates: what the first round picks of them at least
SAMPLED_CANDIDATES = 20_000
MIN_SAMPLE_CLUSTERS = 4
CLUSTERS_PER_PARTITION = 16
CLUSTERS, CENTROIDS, ORDER = "clusters.npy", "centroids.npy", "order.npy"


def num_partitions(problem: Problem, settings: SelectionConfig) -> int:
    """As set, or as many as it takes for the kernel of each to fit; 1 is no partitioning."""
    needed = 1
    if problem.kernel is not None:
        needed = math.ceil(problem.kernel.num_bytes() / (settings.max_kernel_gib * 2**30))
    number = settings.partitions or needed
    if number > 1 and problem.objective == "graph_cut":
        raise SettingsError(
            "objective graph_cut sums over all pairs of candidates and cannot be partitioned: "
            f"its kernel takes {problem.kernel_gib:.1f} GiB, so raise selection.max_kernel_gib"
        )
    return 1 if problem.kernel is None else min(number, problem.num_candidates)


def first_round(context: StageContext, problem: Problem, number: int) -> list[Path]:
    """Select from each partition, resumable by partition; files for `read_picks`.

    Memory of a worker: the kernel of one partition.
    """
    rows = context.executor.call(_write_partitions, context, number)
    sizes = [count for _, count in rows]
    budgets = first_budgets(sizes, problem.budget)
    recipe = [CODE_VERSION, context.inputs["predict"].fingerprint, problem.recipe(), number]
    work = [
        Partition(
            path=f"round-1/{place:04d}-{digest(recipe, place)}.parquet",
            units=count,
            payload={
                "rows": str(path),
                "budget": budget,
                "cost_share": min(1.0, SLACK * count / sum(sizes)),
            },
        )
        for place, ((path, count), budget) in enumerate(zip(rows, budgets, strict=True))
    ]
    parts = context.executor.map(
        work,
        context.directory,
        PartitionSolver,
        {"problem": problem},
        label="select in partitions",
        unit="rows",
        execution=context.config.selection.execution,
    )
    return [context.directory / part.path for part in parts]


def _write_partitions(context: StageContext, number: int) -> list[tuple[Path, int]]:
    """Cut the candidates; writes what `measured_ratio` needs and the rows of each partition."""
    seed = context.config.seed
    hashes = id_hashes(TableParts(context.inputs["ingest"], "candidates"), seed, "candidate")
    if context.config.cover == "target":
        order = np.argsort(hashes, kind="stable")
        save_array(context.directory / ORDER, order)
        return _write_rows(context.directory, dealt_out(order, number))
    vectors = VectorParts(context.inputs["embed"], "candidates")
    clusters, centroids = clusters_of(vectors, hashes, CLUSTERS_PER_PARTITION * number, seed)
    save_array(context.directory / CLUSTERS, clusters)
    save_array(context.directory / CENTROIDS, centroids)
    return _write_rows(context.directory, partitions_of(clusters, centroids, number))


def _write_rows(directory: Path, partitions: Sequence[IndexArray]) -> list[tuple[Path, int]]:
    found = []
    for place, rows in enumerate(partitions):
        rows_path = directory / f"partition-{place:04d}.npy"
        save_array(rows_path, rows)
        found.append((rows_path, len(rows)))
    return found


def read_picks(files: Sequence[Path]) -> list[Picked]:
    """Each partition's picks."""
    return [
        tuple(table[name].to_numpy() for name in ("row", "gain", "round"))
        for table in map(read_table, files)
    ]


def dealt_out(order: IndexArray, num_partitions: int) -> list[IndexArray]:
    """Candidates (n,) of each partition, ascending, dealt out in an order of (M,) rows."""
    dealt = [np.sort(order[place::num_partitions]) for place in range(num_partitions)]
    return [rows for rows in dealt if len(rows)]


def partitions_of(
    clusters: IndexArray, centroids: FloatArray, num_partitions: int
) -> list[IndexArray]:
    """Candidates (n,) of each partition, ascending: neighbouring clusters, equal numbers of rows.

    `clusters` (M,) is the cluster of each candidate. Clusters are walked from one to its nearest
    that is left, and the walk is cut where the rows are shared out; so a cluster may be cut too.
    """
    sizes = np.bincount(clusters, minlength=len(centroids))
    place = np.empty(len(centroids), dtype=np.int64)
    place[_walk(centroids)] = np.arange(len(centroids))
    order = np.argsort(place[clusters], kind="stable")
    assert len(order) == sizes.sum(), "every candidate has a cluster"
    return [np.sort(rows) for rows in np.array_split(order, num_partitions) if len(rows)]


def _walk(centroids: FloatArray) -> IndexArray:
    """The clusters from the first on, each followed by the nearest of those left."""
    left = np.ones(len(centroids), dtype=bool)
    walk, at = [], 0
    for _ in range(len(centroids)):
        walk.append(at)
        left[at] = False
        distance = ((centroids - centroids[at]) ** 2).sum(axis=1)
        at = int(np.where(left, distance, np.inf).argmin())
    return np.array(walk, dtype=np.int64)


def first_budgets(sizes: Sequence[int], budget: int) -> list[int]:
    """Picks of each partition in the first round: more than its share, never more than all."""
    total = sum(sizes)
    wanted = max(SLACK * budget, MIN_SHARE * total)
    return [min(size, budget, math.ceil(wanted * size / total)) for size in sizes]


class PartitionSolver(PartitionWorker):
    """Selects from one partition and writes its picks, row, gain and round, in order."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        columns = load_array(Path(payload["rows"]))
        picks = self._problem.solve(columns, payload["budget"], payload["cost_share"])
        table = pa.table({"row": picks.ranking, "gain": picks.gains, "round": picks.rounds})
        with atomic_path(path) as temporary:
            pq.write_table(table, temporary)
        return len(table), {}


def second_round(
    problem: Problem,
    picks: Sequence[Picked],
    max_bytes: int,
    budget: int | None = None,
    cost_share: float = 1.0,
) -> tuple[Selection, bool]:
    """The selection from the picks of all partitions, and whether it was greedy again.

    Greedy where the kernel of all picks fits into `max_bytes`; else the picks of the earliest
    rounds and the highest gains in their own partition, within the budget, quotas and cost.
    """
    rows, gains, rounds = (np.concatenate(values) for values in zip(*picks, strict=True))
    kernel = problem.kernel
    assert kernel is not None, f"{problem.objective} needs no partitions"
    if kernel.num_bytes(len(rows)) <= max_bytes:
        return problem.solve(np.sort(rows), budget, cost_share), True
    ranking = problem.merged(rows, gains, rounds, budget or problem.budget)
    order = np.argsort(rows)
    place = order[np.searchsorted(rows, ranking, sorter=order)]
    kept = gains[place]
    first = kept[rounds[place] <= 1]
    return Selection(ranking, kept, None, float(first.sum()), rounds[place]), False


def measured_ratio(problem: Problem, directory: Path, number: int, max_bytes: int) -> float | None:
    """Worth of two rounds over that of one, on candidates that one worker holds.

    Worth is the objective or, where rows have several picks each, the sum of as many of their best
    ones: rounds end earlier or later, so their gains do not compare. `directory` is where
    `first_round` left the order or the clusters. None where the worth is 0.
    """
    sample, parts = _sample(directory, number)
    share = len(sample) / problem.num_candidates
    budget = max(1, round(problem.budget * share))
    at_once = problem.solve(sample, budget, share)
    picks = []
    for rows, most_picks in zip(parts, first_budgets([len(p) for p in parts], budget), strict=True):
        first = problem.solve(rows, most_picks, SLACK * share * len(rows) / len(sample))
        picks.append((first.ranking, first.gains, first.rounds))
    in_two, greedy_again = second_round(problem, picks, max_bytes, budget, share)
    depth = problem.picks_per_row(len(at_once.ranking))
    if depth is not None:
        value, whole = (problem.depth(found.ranking, depth) for found in (in_two, at_once))
    else:
        value, whole = in_two.objective_value, at_once.objective_value
        if not greedy_again:  # partitions may have covered the same rows
            value = problem.value(problem.coverage(in_two.ranking)[1], in_two.ranking) or value
    return value / whole if whole > 0 else None


def _sample(directory: Path, number: int) -> tuple[IndexArray, list[IndexArray]]:
    """Candidates that one worker holds, ascending, and their partitions."""
    if storage.exists(directory / ORDER):
        order: IndexArray = load_array(directory / ORDER)[:SAMPLED_CANDIDATES]
        return np.sort(order), dealt_out(order, number)
    clusters: IndexArray = load_array(directory / CLUSTERS)
    centroids: FloatArray = load_array(directory / CENTROIDS)
    near = np.argsort(((centroids - centroids[0]) ** 2).sum(axis=1), kind="stable")
    most = min(SAMPLED_CANDIDATES, len(clusters))
    sizes = np.cumsum(np.bincount(clusters, minlength=len(centroids))[near])
    count = max(MIN_SAMPLE_CLUSTERS, int(np.searchsorted(sizes, most)))
    sample = np.flatnonzero(np.isin(clusters, near[:count]))
    return sample, [sample[rows] for rows in partitions_of(clusters[sample], centroids, number)]
