"""Predict: the fitted student over all pairs, in blocks, and its exact means.

A matrix up to `influence.max_dense_gib` is written in full, (M, N) [c, t] in parts of candidates;
above that, the `influence.neighbours` best candidates of each target, in parts of targets: exactly,
or with `influence.recall` below 1 from pools of promising candidates where that is faster. The mean
influence of every candidate is exact in all cases and needs no matrix. A teacher that scores rows
alone has one column; one that was asked about everything is the matrix itself. With sub-tasks of
the targets, a candidate's mean is its best mean over one of them (LESS, section 4.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
from numpy.typing import NDArray

from engine.artifacts.files import atomic_path, digest, read_table, save_array
from engine.artifacts.parts import Part, finish_part, total_usage
from engine.artifacts.rows import VectorParts, as_lists, target_side
from engine.artifacts.run_directory import Artifact
from engine.config import FeatureName
from engine.errors import InputError
from engine.influence.candidate_index import find_index
from engine.influence.factors import FactorFiles, FactorPairs, FactorWorker, largest_of
from engine.influence.pairs import (
    UNIT_ROWS,
    DeepPairs,
    Pairs,
    UnitFiles,
    UnitPairs,
    UnitWorker,
    load_pools,
    norm_of,
    save_pools,
)
from engine.influence.pools import find_pools
from engine.kernels.aggregation import max_of_group_means
from engine.kernels.arrays import FloatArray
from engine.kernels.product import Grid
from engine.network.influence_network import InfluenceNetwork
from engine.runtime.executor import Executor, Partition, PartitionWorker
from engine.runtime.stage import Stage, StageContext, StageResult
from engine.runtime.stopwatch import Stopwatch
from engine.stages.named_columns import subtasks_of
from engine.students.network import NetworkStudent
from engine.students.student import ProductStudent, load_student
from engine.terminal.progress import say

__all__ = ["STAGE", "run"]

CODE_VERSION = 3
# Rows of the teacher's own matrix, and of pairs that go through a deep network, in one part.
BLOCK_ROWS = 4096
# Memory of what a worker computes at a time, beside the units that it maps.
WORKER_BYTES = 2**27
# Pairs of a block, some ten seconds of work: what a kill loses, and enough blocks for many workers.
BLOCK_PAIRS = 10**10
MAX_MEAN_THREADS = 16


def run(context: StageContext) -> StageResult:
    """Write the means and the kernel; same bytes for any number of actors and threads."""
    settings = context.config.influence
    embeddings = context.inputs["embed"]
    num_candidates = len(VectorParts(embeddings, "candidates"))
    pairwise = context.inputs["sample"].counts["pairwise"]
    num_targets = len(VectorParts(embeddings, target_side(embeddings))) if pairwise else 1
    shape = (num_candidates, num_targets)
    dense = 4 * num_candidates * num_targets <= settings.max_dense_gib * 2**30
    kernel = "dense" if dense else "neighbours"
    subtasks = context.executor.call(
        subtasks_of, context.inputs["ingest"], settings.subtask_column, num_targets
    )
    means_path = context.directory / "mean_influence.npy"
    parts: dict[str, list[Part]] = {}
    counts: dict[str, Any] = {"recall": 1.0}
    if context.inputs["sample"].counts["everything"]:
        labels, directory = context.inputs["score"].path("labels"), context.directory
        usage = context.executor.call(
            _write_teacher, labels, shape, subtasks, directory, means_path
        )
        parts[kernel] = [
            finish_part(directory, path, min(BLOCK_ROWS, num_candidates - start), {})
            for start, path in _teacher_blocks(directory, num_candidates)
        ]
    else:
        source, parts, told = _source(context, shape)
        counts |= told
        threads = _mean_threads(context.executor)
        usage = context.executor.call(
            _write_means, source, subtasks, means_path, threads, threads=threads
        )
        if dense:
            parts[kernel] = _dense(context, source, shape)
        else:
            counts["neighbours"] = k = min(settings.neighbours, num_candidates)
            source, more, told = _prefilter(context, source, k)
            parts[kernel] = _neighbours(context, source, shape, k)
            parts |= more
            counts |= told
        if "owned" in embeddings.manifest["parts"] and pairwise:
            parts["owned"] = _owned(context, source, num_targets)
    parts["means"] = [finish_part(context.directory, means_path, num_candidates, usage)]
    return StageResult(
        parts=parts,
        counts={
            "candidates": num_candidates,
            "targets": num_targets,
            "kernel": kernel,
            **counts,
        },
        usage=total_usage([part for group in parts.values() for part in group]),
        columns={
            "mean_influence.npy": "float32 (M,), exact mean over all targets, teacher units; "
            "with sub-tasks the best of their means",
            "dense/*.npy": "float32 (m, N) [c, t], teacher units, rows in corpus order",
            "neighbours/*.arrow": "per target its K best candidates: ids int64[K], "
            "influence float32[K], best first",
            "owned/*.npy": "float32 (n,), the most that any owned row does for each target",
            "units-*/*.npy": "int32 (tiles, units, 64): hidden units of the network in fixed point",
            "factors-*/*.npy": "float32 (rows, R): influence is their inner product",
            "pools.safetensors": "candidates that the targets of each cluster were compared with",
            "index.safetensors": "FAISS index of the candidates' factors",
        },
    )


# --- the teacher's own matrix --------------------------------------------------------------------


def _teacher_blocks(directory: Path, num_candidates: int) -> list[tuple[int, Path]]:
    (directory / "dense").mkdir(exist_ok=True)
    starts = range(0, num_candidates, BLOCK_ROWS)
    return [(start, directory / f"dense/{start:09d}-teacher.npy") for start in starts]


def _write_teacher(
    labels: Path,
    shape: tuple[int, int],
    subtasks: NDArray[np.int64],
    directory: Path,
    means_path: Path,
) -> dict[str, float]:
    """The labels of all pairs, which are sorted by candidate, then target, as the matrix."""
    watch = Stopwatch()
    scores = read_table(labels, columns=["score"])["score"].to_numpy().reshape(shape)
    matrix = _filled(scores)
    for start, path in _teacher_blocks(directory, shape[0]):
        save_array(path, matrix[start : start + BLOCK_ROWS])
    save_array(means_path, max_of_group_means(matrix, subtasks).astype(np.float32))
    return watch.usage()


def _filled(scores: FloatArray) -> FloatArray:
    """Scores with the mean of what is known of the target, else of all, where there is none.

    So a pair that the teacher could not answer neither helps nor harms its candidate.
    """
    known = np.isfinite(scores)
    if known.all():
        return scores
    if not known.any():
        raise InputError(
            "the teacher could score no pair (4-teacher/labels.parquet says why): "
            "there is nothing to select by"
        )
    values = np.where(known, scores, 0)
    counts = known.sum(axis=0)
    means = np.where(counts > 0, values.sum(axis=0) / np.maximum(counts, 1), scores[known].mean())
    return np.where(known, scores, means[None, :]).astype(np.float32)


# --- the student's -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """What workers compute pairs from: files of one form, or the features themselves.

    Attributes:
        fit, embeddings: artifacts.
        features: what the student reads.
        num_targets: N.
        units, factors: files of a network that factorises, or of a student in the product form.
        grid: of the factors.
        prefilter: the file of pools of candidates, or of an index of them, if any.
    """

    fit: Artifact
    embeddings: Artifact
    features: tuple[FeatureName, ...]
    num_targets: int
    units: UnitFiles | None = None
    factors: FactorFiles | None = None
    grid: Grid | None = None
    prefilter: Path | None = None

    def pairs(self) -> Pairs:
        """What answers."""
        if self.factors is not None and self.grid is not None:
            return FactorPairs(self.factors, self.grid, self.prefilter)
        if self.units is not None:
            return UnitPairs(self.units, load_pools(self.prefilter) if self.prefilter else None)
        return DeepPairs(self.fit, self.embeddings, self.features, self.num_targets)


def _source(
    context: StageContext, shape: tuple[int, int]
) -> tuple[Source, dict[str, list[Part]], dict[str, Any]]:
    """The source, the parts that were written for it, and what the manifest says of them."""
    fit, embed = context.inputs["fit"], context.inputs["embed"]
    source = Source(fit, embed, context.config.features, shape[1])
    form = context.executor.call(_form_of, fit.path("student"))
    if form is None:
        say("  predict: a network of several hidden layers goes pair by pair, far slower")
        return source, {}, {"norm": None}
    sizes = dict(zip(("candidates", "targets"), shape, strict=True))
    if "owned" in embed.manifest["parts"]:
        sizes["owned"] = len(VectorParts(embed, "owned"))
    base = context.inputs["base"].counts if "base" in context.inputs else {}
    arguments = {"fit": fit, "embeddings": embed, "features": source.features}
    if form == "product":
        of_run = "base" not in context.inputs
        own = {**arguments, "of_run": of_run}
        parts, files = _written(context, "factors", sizes, FactorWorker, own)
        found = FactorFiles(
            context.directory, {side: tuple(path for path, _ in own) for side, own in files.items()}
        )
        told = context.executor.call(largest_of, found)
        for name in ("largest_candidate", "largest_target"):  # new rows: on the grid of the run's
            told[name] = max(told[name], float(base.get(name, 0.0)))
        grid = Grid.of(told["largest_candidate"], told["largest_target"], int(told["rank"]))
        return replace(source, factors=found, grid=grid), parts, {"norm": None, **told}
    norm = context.executor.call(norm_of, embed, source.features)
    norm = max(norm, float(base.get("norm") or 0.0))  # new rows: in the units of the run's
    parts, files = _written(context, "units", sizes, UnitWorker, {**arguments, "norm": norm})
    num_positive, step = context.executor.call(_signs_and_step, fit.path("student"), norm)
    units = UnitFiles(context.directory, files, num_positive, step)
    return replace(source, units=units), parts, {"norm": norm}


def _form_of(student: Path) -> str | None:
    """The form that all pairs are computed in: product, units, or none."""
    found = load_student(student)
    if isinstance(found, ProductStudent):
        return "product"
    assert isinstance(found, NetworkStudent), "there is no third kind"
    return "units" if found.network.factorises else None


def _signs_and_step(student: Path, norm: float) -> tuple[int, float]:
    form = InfluenceNetwork.load(student).factorise().fixed_point(norm)
    return form.num_positive, form.step


def _written(
    context: StageContext,
    kind: str,
    sizes: Mapping[str, int],
    worker: type[PartitionWorker],
    arguments: dict[str, Any],
) -> tuple[dict[str, list[Part]], dict[str, tuple[tuple[str, int], ...]]]:
    """Files of all sides, written on one pool: the parts by group, (path, rows) by side."""
    partitions = {
        side: _cut(context, f"{kind}-{side}", num_rows, UNIT_ROWS, "npy", side=side)
        for side, num_rows in sizes.items()
    }
    all_sides = [piece for group in partitions.values() for piece in group]
    done = _blocks(context, kind, "rows", all_sides, worker, arguments)
    parts, files = {}, {}
    for side, group in partitions.items():
        own, done = done[: len(group)], done[len(group) :]
        parts[f"{kind}-{side}"] = own
        files[side] = tuple((part.path, part.rows) for part in own)
    return parts, files


def _write_means(
    source: Source, subtasks: NDArray[np.int64], path: Path, threads: int
) -> dict[str, float]:
    watch = Stopwatch()
    save_array(path, source.pairs().means(subtasks, threads=threads))
    return watch.usage()


def _mean_threads(executor: Executor) -> int:
    """One task does all means, so it takes a whole node; their bits do not depend on it."""
    return min(MAX_MEAN_THREADS, executor.num_cpus)


def _prefilter(
    context: StageContext, source: Source, k: int
) -> tuple[Source, dict[str, list[Part]], dict[str, Any]]:
    """The source with its prefilter, its part, and what the manifest says of it, if it has one."""
    settings = context.config.influence
    if settings.recall == 1 or (source.units is None and source.factors is None):
        return source, {}, {}
    name = "pools" if source.units is not None else "index"
    path = context.directory / f"{name}.safetensors"
    seed, threads = context.config.seed, _mean_threads(context.executor)
    found = context.executor.call(
        _write_prefilter, source, k, settings.recall, seed, threads, path, threads=threads
    )
    if found is None:
        say("  predict: a prefilter would not be faster, so all pairs are compared")
        return source, {}, {}
    say(
        f"  predict: most targets are compared with {found['prefilter_share']:.1%} of the "
        f"candidates; measured recall {found['recall']:.3f}"
    )
    usage = found.pop("usage")
    parts = {name: [finish_part(context.directory, path, 1, usage)]}
    return replace(source, prefilter=path), parts, found


def _write_prefilter(
    source: Source, k: int, recall: float, seed: int, threads: int, path: Path
) -> dict[str, Any] | None:
    watch = Stopwatch()
    if source.units is not None:
        units = source.units.units("candidates"), source.units.units("targets")
        pools = find_pools(*units, k, recall, seed=seed, threads=threads)
        if pools is None:
            return None
        save_pools(pools, path)
        pool_rows = len(pools.ids) / (len(pools.starts) - 1)
        share = pool_rows / sum(part.num_rows for part in units[0])
        found, compared = pools.recall, pools.num_compared
    else:
        assert source.factors is not None and source.grid is not None, "one of the two"
        sides = source.factors.parts("candidates"), source.factors.parts("targets")
        index = find_index(*sides, source.grid, k, recall, seed=seed, threads=threads)
        if index is None:
            return None
        index.save(path)
        found, compared, share = index.recall, index.num_compared, index.share
    return {
        "recall": found,
        "prefilter_share": share,
        "targets_compared_with_all": compared,
        "usage": watch.usage(),
    }


class OwnedWorker(PartitionWorker):
    """Writes the best that owned rows do for each of a block of targets."""

    def __init__(self, source: Source) -> None:
        self._pairs = source.pairs()

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        best = self._pairs.best_owned(payload["start"], payload["stop"])
        save_array(path, best)
        return len(best), {}


class DenseWorker(PartitionWorker):
    """Writes the influence of a block of candidates on all targets."""

    def __init__(self, source: Source) -> None:
        self._pairs = source.pairs()

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        influence = self._pairs.block(payload["start"], payload["stop"])
        save_array(path, influence)
        return len(influence), {"pairs": float(influence.size)}


class NeighbourWorker(PartitionWorker):
    """Writes the best candidates of a block of targets."""

    def __init__(self, neighbours: int, source: Source) -> None:
        self._pairs = source.pairs()
        self._neighbours = neighbours

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        top = self._pairs.top(payload["start"], payload["stop"], self._neighbours)
        table = pa.table({"ids": as_lists(top.ids), "influence": as_lists(top.influence)})
        with atomic_path(path) as temporary:  # uncompressed, so that readers can map it
            pyarrow.feather.write_feather(table, str(temporary), compression="uncompressed")
        return len(top.ids), {}


def _dense(context: StageContext, source: Source, shape: tuple[int, int]) -> list[Part]:
    num_candidates, num_targets = shape
    size = _block_rows(4 * num_targets, num_candidates, num_targets)
    blocks = _cut(context, "dense", num_candidates, size, "npy", pairs=num_targets)
    return _blocks(context, "dense", "pairs", blocks, DenseWorker, {"source": source})


def _neighbours(
    context: StageContext, source: Source, shape: tuple[int, int], k: int
) -> list[Part]:
    num_candidates, num_targets = shape
    row_bytes = 32 * k + 1024  # keys, and the lists that they become
    size = _block_rows(row_bytes, num_targets, num_candidates)
    blocks = _cut(context, "neighbours", num_targets, size, "arrow", pairs=num_candidates)
    settings = {"source": source, "neighbours": k}
    return _blocks(context, "neighbours", "pairs", blocks, NeighbourWorker, settings)


def _owned(context: StageContext, source: Source, num_targets: int) -> list[Part]:
    num_owned = len(VectorParts(context.inputs["embed"], "owned"))
    size = _block_rows(64, num_targets, num_owned)
    blocks = _cut(context, "owned", num_targets, size, "npy", pairs=num_owned)
    return _blocks(context, "owned", "pairs", blocks, OwnedWorker, {"source": source})


def _block_rows(row_bytes: int, num_rows: int, row_pairs: int) -> int:
    """Rows of a block: a power of two, so that it lies in one file of units. Says what it needs."""
    most = min(UNIT_ROWS, WORKER_BYTES // row_bytes, BLOCK_PAIRS // row_pairs)
    rows: int = 2 ** int(np.log2(max(64, most)))
    needed = min(rows, num_rows) * row_bytes / 2**20
    say(f"  predict: up to {needed:,.0f} MiB a worker, beside the units that it maps")
    return rows


def _cut(
    context: StageContext,
    kind: str,
    num_rows: int,
    size: int,
    suffix: str,
    *,
    side: str | None = None,
    pairs: int = 1,
) -> list[Partition]:
    """Blocks of `size` rows, each so many `pairs` of work."""
    settings = context.config.influence
    recipe = [
        CODE_VERSION,
        context.inputs["fit"].fingerprint,
        context.inputs["embed"].fingerprint,
        settings.neighbours,
        settings.recall,
        context.config.seed,
        context.inputs["base"].fingerprint if "base" in context.inputs else None,
    ]
    return [
        Partition(
            path=f"{kind}/{start:09d}-{digest(recipe, start, size)}.{suffix}",
            units=min(size, num_rows - start) * pairs,
            payload={"start": start, "stop": min(start + size, num_rows), "side": side},
        )
        for start in range(0, num_rows, size)
    ]


def _blocks(
    context: StageContext,
    kind: str,
    unit: str,
    partitions: list[Partition],
    worker: type[PartitionWorker],
    worker_settings: dict[str, Any],
) -> list[Part]:
    return context.executor.map(
        partitions,
        context.directory,
        worker,
        worker_settings,
        label=f"predict {kind}",
        unit=unit,
        execution=context.config.influence.execution,
    )


STAGE = Stage(
    name="predict",
    directory="6-influence",
    run=run,
    settings=("seed", "influence", "features"),
    reads=("ingest", "embed", "sample", "score", "fit"),
    version=5,
)
