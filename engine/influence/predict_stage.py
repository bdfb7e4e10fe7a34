"""Predict: the fitted network over all pairs, in blocks, and its exact means.

A matrix up to `influence.max_dense_gib` is written in full, (M, N) [c, t] in parts of candidates;
above that, the `influence.neighbours` best candidates of each target, in parts of targets. The
mean influence of every candidate is exact in both cases and needs no matrix. A teacher that scores
rows alone has one column; one that was asked about everything is the matrix itself. With sub-tasks
of the targets, a candidate's mean is its best mean over one of them (LESS, section 4.2).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.actors import Partition, PartitionWorker, run_partitions, run_task
from engine.artifact_rows import TableParts, VectorParts, target_side
from engine.errors import InputError, SettingsError
from engine.influence.predict import mean_influence, predict_influence, top_candidates
from engine.kernels.aggregation import max_of_group_means
from engine.kernels.arrays import FloatArray
from engine.network.influence_network import InfluenceNetwork
from engine.run_directory import Artifact, Part, atomic_path, digest, finish_part, total_usage
from engine.stage import StageContext, StageResult, Stopwatch

__all__ = ["run"]

CODE_VERSION = 1
# Rows of a block. Fixed: a matrix product's rounding may depend on how many rows it is given.
BLOCK_ROWS = 4096


def run(context: StageContext) -> StageResult:
    """Write the means and the kernel; same bytes for any number of actors."""
    settings = context.config.influence
    embeddings = context.inputs["embed"]
    num_candidates = len(VectorParts(embeddings, "candidates"))
    pairwise = context.inputs["sample"].counts["pairwise"]
    num_targets = len(VectorParts(embeddings, target_side(embeddings))) if pairwise else 1
    means_path = context.directory / "mean_influence.npy"
    subtasks = run_task(_subtasks, context.inputs["ingest"], settings.subtask_column, num_targets)
    dense = 4 * num_candidates * num_targets <= settings.max_dense_gib * 2**30
    if context.inputs["sample"].counts["everything"]:
        shape = (num_candidates, num_targets)
        labels, directory = context.inputs["score"].path("labels"), context.directory
        usage = run_task(_write_teacher, labels, shape, subtasks, directory, means_path)
        parts = [
            finish_part(directory, path, min(BLOCK_ROWS, num_candidates - start), {})
            for start, path in _teacher_blocks(directory, num_candidates)
        ]
    else:
        fitted = (context.inputs["fit"], embeddings)
        usage = run_task(_write_means, *fitted, subtasks, means_path)
        parts = _dense(context, num_targets) if dense else _neighbours(context, num_targets)
    means = finish_part(context.directory, means_path, num_candidates, usage)
    kernel = "dense" if dense else "neighbours"
    return StageResult(
        parts={"means": [means], kernel: parts},
        counts={
            "candidates": num_candidates,
            "targets": num_targets,
            "kernel": kernel,
            "recall": 1.0,
        },
        usage=total_usage([means, *parts]),
        columns={
            "mean_influence.npy": "float32 (M,), exact mean over all targets, teacher units; "
            "with sub-tasks the best of their means",
            "dense/*.npy": "float32 (m, N) [c, t], teacher units, rows in corpus order",
            "neighbours/*.arrow": "per target its K best candidates: ids int64[K], "
            "influence float32[K], best first",
        },
    )


def _subtasks(corpus: Artifact, column: str | None, num_targets: int) -> NDArray[np.int64]:
    """The sub-task of each target, (N,), by the order of their names; without a column all 0."""
    if column is None or num_targets == 1:
        return np.zeros(num_targets, dtype=np.int64)
    rows = TableParts(corpus, target_side(corpus))
    tables = rows.iter_parts(["extra"])
    extras = [json.loads(text) for table in tables for text in table["extra"].to_pylist()]
    if not any(column in extra for extra in extras):
        known = sorted({name for extra in extras for name in extra})
        raise SettingsError(
            f"influence.subtask_column: the targets have no column {column!r}; "
            f"they have: {', '.join(known) or 'no further columns'}"
        )
    names = np.array([json.dumps(extra.get(column)) for extra in extras])
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _write_means(
    network: Artifact, embeddings: Artifact, subtasks: NDArray[np.int64], path: Path
) -> dict[str, float]:
    watch = Stopwatch()
    fitted = InfluenceNetwork.load(network.path("network"))
    candidates = VectorParts(embeddings, "candidates").all()
    targets = VectorParts(embeddings, target_side(embeddings)).block(0, len(subtasks))
    of_subtask = (
        mean_influence(fitted, candidates, targets[subtasks == number])
        for number in range(int(subtasks.max()) + 1)
    )
    _save(functools.reduce(np.maximum, of_subtask), path)
    return watch.usage()


def _save(array: FloatArray, path: Path) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)


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
    scores = pq.read_table(labels, columns=["score"])["score"].to_numpy().reshape(shape)
    matrix = _filled(scores)
    for start, path in _teacher_blocks(directory, shape[0]):
        _save(matrix[start : start + BLOCK_ROWS], path)
    _save(max_of_group_means(matrix, subtasks).astype(np.float32), means_path)
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


# --- the network's -------------------------------------------------------------------------------


class _Worker(PartitionWorker):
    """Holds the network and the side that every block is compared with."""

    other_side: str

    def __init__(self, network: Artifact, embeddings: Artifact) -> None:
        self._network = InfluenceNetwork.load(network.path("network"))
        self._embeddings = embeddings
        self._candidates = VectorParts(embeddings, "candidates")
        self._targets = VectorParts(embeddings, target_side(embeddings))


class DenseWorker(_Worker):
    """Writes the influence of a block of candidates on all targets."""

    def __init__(self, network: Artifact, embeddings: Artifact, num_targets: int) -> None:
        super().__init__(network, embeddings)
        self._all_targets = self._targets.block(0, num_targets)

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        block = self._candidates.block(payload["start"], payload["stop"])
        influence = predict_influence(self._network, block, self._all_targets, threads=1)
        _save(influence, path)
        return len(influence), {"pairs": float(influence.size)}


class NeighbourWorker(_Worker):
    """Writes the best candidates of a block of targets."""

    def __init__(self, network: Artifact, embeddings: Artifact, neighbours: int) -> None:
        super().__init__(network, embeddings)
        self._neighbours = neighbours
        self._all_candidates = self._candidates.all()

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        block = self._targets.block(payload["start"], payload["stop"])
        top = top_candidates(self._network, self._all_candidates, block, self._neighbours)
        table = pa.table(
            {
                "ids": _fixed_size_lists(top.ids),
                "influence": _fixed_size_lists(top.influence),
            }
        )
        with atomic_path(path) as temporary:  # uncompressed, so that readers can map it
            pyarrow.feather.write_feather(table, str(temporary), compression="uncompressed")
        return len(block), {"pairs": float(len(block) * len(self._all_candidates))}


def _fixed_size_lists(matrix: Any) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])


def _dense(context: StageContext, num_targets: int) -> list[Part]:
    num_candidates = len(VectorParts(context.inputs["embed"], "candidates"))
    settings = {"num_targets": num_targets}
    return _blocks(context, "dense", num_candidates, "npy", DenseWorker, settings)


def _neighbours(context: StageContext, num_targets: int) -> list[Part]:
    num_candidates = len(VectorParts(context.inputs["embed"], "candidates"))
    settings = {"neighbours": min(context.config.influence.neighbours, num_candidates)}
    return _blocks(context, "neighbours", num_targets, "arrow", NeighbourWorker, settings)


def _blocks(
    context: StageContext,
    kind: str,
    num_rows: int,
    suffix: str,
    worker: type[PartitionWorker],
    worker_settings: dict[str, Any],
) -> list[Part]:
    recipe = [CODE_VERSION, context.inputs["fit"].fingerprint, context.inputs["embed"].fingerprint]
    size = BLOCK_ROWS
    partitions = [
        Partition(
            path=f"{kind}/{start:09d}-{digest(recipe, start, worker_settings)}.{suffix}",
            units=min(size, num_rows - start),
            payload={"start": start, "stop": min(start + size, num_rows)},
        )
        for start in range(0, num_rows, size)
    ]
    return run_partitions(
        partitions,
        context.directory,
        worker,
        {
            "network": context.inputs["fit"],
            "embeddings": context.inputs["embed"],
            **worker_settings,
        },
        label="predict",
        unit="rows",
        execution=context.config.influence.execution,
    )
