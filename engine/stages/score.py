"""Score: ask the teacher about the sampled pairs, and never twice about the same one.

Up to three steps, on actor pools (workers.py): what the teacher prepares (LESS' warm-up), features
of single points (the error without example for DELIFT, embeddings for DELIFT (SE), gradients for
LESS, ratings for SelectIT), then pairs. missing.py says what is asked, store.py keeps the answers.
Scores that are given (given.py) lie in the sample, and become labels as they are.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine import storage
from engine.artifacts.files import digest, read_json, read_table
from engine.artifacts.parts import Part, finish_part, finished_part, record_path, total_usage
from engine.artifacts.rows import TableParts, target_side
from engine.artifacts.run_directory import STORE, Artifact
from engine.config import Config
from engine.example import order_hash
from engine.kernels.arrays import IndexArray
from engine.runtime.executor import Partition, PartitionWorker
from engine.runtime.stage import Stage, StageContext, StageResult
from engine.stages.named_columns import subtasks_of
from engine.teachers.fit_labels import write_fit_labels
from engine.teachers.missing import missing_features, missing_pairs
from engine.teachers.store import (
    PAIR_KEYS,
    PAIRS,
    PREPARED,
    SIDES,
    Scope,
    Subtask,
    finished_files,
    known_features,
    known_pairs,
    write_table,
)
from engine.teachers.teacher import VectorSimilarity, teacher_class
from engine.teachers.vector_labels import write_vector_labels
from engine.teachers.workers import FeatureWorker, PairWorker, PreparingWorker

__all__ = ["STAGE", "identity", "run"]

_USAGE = ("seconds", "cpu_seconds", "calls", "tokens", "truncated")


def identity(config: Config) -> dict[str, Any]:
    """Everything that the teacher's scores depend on."""
    teacher = teacher_class(config.teacher.name)
    joined = {}
    if teacher.joins_targets(config.teacher):
        joined = {"subtask_column": config.influence.subtask_column}
    return {**teacher.identity(config.teacher), **joined}


def run(context: StageContext) -> StageResult:
    """Ask for what the store lacks, then write the labels of this sample in its order."""
    config, teacher = context.config, teacher_class(context.config.teacher.name)
    if config.teacher.facts.is_given:
        return _given_labels(context)
    # new rows for a finished run: its teacher is asked, as it was prepared, and its store filled
    corpus = context.inputs.get("run-ingest", context.inputs["ingest"])
    home = context.inputs["run-score"].directory if "run-score" in context.inputs else None
    home = home or context.directory
    rows, contents = context.executor.call(_rows_to_prepare, config, corpus)
    seeded = bool(rows) or teacher.seeded
    told = teacher.identity(config.teacher)
    key = digest(config.seed if seeded else None, told, *([contents] if rows else []))
    store = home / STORE / f"{teacher.name}-{key}"
    inputs = (context.inputs["ingest"], context.inputs["sample"])
    scope = Scope(*inputs, store, home, teacher.same_features)
    if teacher.joins_targets(config.teacher):
        asked = ("first-sample", "run-sample", "sample")  # what the student learned comes first
        first = next(context.inputs[name] for name in asked if name in context.inputs)
        column = config.influence.subtask_column
        scope = replace(
            scope, subtasks=context.executor.call(_subtasks, scope, corpus, first, column)
        )
    used: list[Part] = []
    if rows and finished_part(store / PREPARED) is None:
        piece = Partition(scope.relative(PREPARED), len(rows), {"rows": rows})
        used += _ask(context, scope, [piece], PreparingWorker, f"{teacher.name}, warm-up", "rows")
    points = context.executor.call(missing_features, scope, teacher.feature_sides)
    used += _ask(context, scope, points, FeatureWorker, f"{teacher.name}, points", "rows")
    similarity = teacher.vector_similarity(config.teacher)
    if teacher.from_embeddings:
        path = context.directory / "labels.parquet"
        counts = context.executor.call(write_fit_labels, scope, context.inputs["embed"], path)
        parts = {"labels": [finish_part(context.directory, path, counts["pairs"])]}
    elif similarity is None:
        pairs = context.executor.call(missing_pairs, scope)
        used += _ask(context, scope, pairs, PairWorker, f"{teacher.name}, pairs", "pairs")
        path = context.directory / "labels.parquet"
        counts = context.executor.call(_write_labels, scope, path)
        parts = {"labels": [finish_part(context.directory, path, counts["pairs"])]}
    else:
        centred = config.teacher.centred
        counts, parts = _vector_labels(
            context, scope, similarity, teacher.centred if centred is None else centred
        )
    before = None
    if "first-sample" in context.inputs:  # a second look: charged for what is asked beyond
        before = replace(scope, sample=context.inputs["first-sample"])
    usage = context.executor.call(_usage_of, scope, before)
    return StageResult(
        parts=parts,
        counts={
            **counts,
            "similarity": similarity,
            "asked_now": int(total_usage(used).get("calls", 0)),
            "same_features": teacher.same_features,
        },
        usage=usage,
        columns={
            "candidate": "int64 row",
            "target": "int64 row",
            "quadrant": "int8, 0 = training, 1..4 = audit",
            "score": f"float32, {teacher.name}; NaN where the teacher could not answer",
            "problem": "why it could not, or null",
            "vectors-SIDE.arrow": "row int64, vector float32[V]: the teacher's, of the rows of the "
            "sample; a pair's score is the similarity of its two",
            "centre.npy": "float32 (V,): the mean vector of the asked candidates, taken off",
        },
        models={k: str(v) for k, v in identity(config).items() if k in ("model", "further_models")},
    )


def _given_labels(context: StageContext) -> StageResult:
    path = context.directory / "labels.parquet"
    pairs = context.executor.call(_write_given_labels, context.inputs["sample"], path)
    return StageResult(
        parts={"labels": [finish_part(context.directory, path, pairs)]},
        counts={
            "pairs": pairs,
            "unscorable": 0,
            "similarity": None,
            "asked_now": 0,
            "same_features": False,
        },
        usage=dict.fromkeys(_USAGE, 0.0),
        columns={
            "candidate": "int64 row",
            "target": "int64 row; 0 for scores of rows",
            "quadrant": "int8, 0 = training, 1..4 = audit",
            "score": "float32, as given, higher is better",
            "problem": "null",
        },
    )


def _write_given_labels(sample: Artifact, path: Path) -> int:
    labels = read_table(sample.path("pairs"))
    labels = labels.append_column("problem", pa.nulls(len(labels), pa.string()))
    write_table(labels, path)
    return len(labels)


def _vector_labels(
    context: StageContext, scope: Scope, similarity: VectorSimilarity, centred: bool
) -> tuple[dict[str, int], dict[str, list[Part]]]:
    """Labels as similarities of the vectors that were paid for; counts and parts."""
    paths = {"labels": context.directory / "labels.parquet"}
    paths |= {f"vectors-{side}": context.directory / f"vectors-{side}.arrow" for side in SIDES}
    given = None
    if centred:
        paths["centre"] = context.directory / "centre.npy"
        run = context.inputs.get("run-score")
        if run is not None and run.manifest.get("parts"):  # new rows: about the run's own centre;
            given = run.path("centre")  # the store that arms share is no run
    counts = context.executor.call(write_vector_labels, scope, similarity, paths, given)
    rows = {"labels": counts["pairs"], "centre": 1}
    rows |= {f"vectors-{side}": counts.pop(f"vectors_{side}") for side in SIDES}
    parts = {
        name: [finish_part(context.directory, path, rows[name])] for name, path in paths.items()
    }
    return counts, parts


def _rows_to_prepare(config: Config, corpus: Artifact) -> tuple[list[int], str]:
    """The candidates that the teacher prepares itself with, and a digest of their contents."""
    settings, seed = config.teacher, config.seed
    share = teacher_class(settings.name).preparation_share(settings)
    if not share:
        return [], ""
    rows = TableParts(corpus, "candidates")
    names = [i for table in rows.iter_parts(["id"]) for i in table["id"].to_pylist()]
    order = sorted(range(len(names)), key=lambda row: order_hash(seed, "prepare", names[row]))
    drawn = order[: max(2, round(share * len(order)))]
    keys = rows.take(np.asarray(drawn, dtype=np.int64), ["key"])["key"].to_pylist()
    return drawn, digest(keys)


def _ask(
    context: StageContext,
    scope: Scope,
    partitions: list[Partition],
    worker: type[PartitionWorker],
    label: str,
    unit: str,
) -> list[Part]:
    settings = context.config.teacher
    return context.executor.map(
        partitions,
        scope.directory,
        worker,
        {"settings": settings, "seed": context.config.seed, "scope": scope},
        label=label,
        unit=unit,
        execution=settings.execution,
        threads=settings.model.threads,
    )


def _subtasks(
    scope: Scope, corpus: Artifact, first: Artifact, column: str | None
) -> tuple[Subtask, ...]:
    """The asked targets by sub-task, in the order of their names; those of `first` are joined."""
    targets = TableParts(corpus, target_side(corpus))
    joined, asked = (
        np.unique(read_table(sample.path("pairs"), columns=["target"])["target"].to_numpy())
        for sample in (first, scope.sample)
    )
    groups = subtasks_of(corpus, column, len(targets))

    def keys(rows: IndexArray, group: int) -> tuple[str, ...]:
        return tuple(targets.take(rows[groups[rows] == group], ["key"])["key"].to_pylist())

    others = np.setdiff1d(asked, joined)
    there = np.unique(groups[np.union1d(joined, asked)])
    return tuple(Subtask(keys(joined, group), keys(others, group)) for group in there.tolist())


def _write_labels(scope: Scope, path: Path) -> dict[str, int]:
    """The sample with its scores, in the sample's order."""
    pairs = scope.pairs()
    answers = pa.concat_tables(
        [PAIRS.empty_table(), *map(read_table, finished_files(scope.pairs_dir))]
    )
    labels = pairs.join(answers, keys=PAIR_KEYS, join_type="inner")
    labels = labels.sort_by([("candidate", "ascending"), ("target", "ascending")])
    assert len(labels) == len(pairs), "a pair of the sample has no answer, or has two"
    labels = labels.select(["candidate", "target", "quadrant", "score", "problem"])
    write_table(labels.combine_chunks(), path)
    problems = labels["problem"]
    return {"pairs": len(labels), "unscorable": len(problems) - problems.null_count}


def _usage_of(scope: Scope, before: Scope | None = None) -> dict[str, float]:
    """What the answers of this sample cost, whenever they were paid, by kind of work.

    Of a part that answers other samples as well, the share of its rows that this one uses; without
    what an earlier sample of the same run is charged for.
    """
    pairs = scope.pairs()
    charged_pairs = pairs.slice(0, 0) if before is None else before.pairs()
    kinds: dict[str, dict[str, float]] = {}
    charged = pa.array([], type=pa.string())
    for side in SIDES:
        known, wanted = known_features(scope, side), pc.unique(pairs[f"{side}_key"])
        used = known.filter(pc.is_in(known["key"], wanted))
        sides = SIDES if scope.same_features else (side,)
        for other in sides:
            charged_keys = charged_pairs[f"{other}_key"].combine_chunks()
            used = used.filter(pc.invert(pc.is_in(used["key"], charged_keys)))
        if scope.same_features:  # a row that is on both sides was paid for once
            used = used.filter(pc.invert(pc.is_in(used["key"], charged)))
            charged = used["key"].combine_chunks()
        kinds[f"features_{side}"] = _shared_usage(finished_files(scope.features_dir(side)), used)
    known, asked = known_pairs(scope), pairs.select(PAIR_KEYS)
    used = known.join(asked, keys=PAIR_KEYS, join_type="left semi")
    used = used.join(charged_pairs.select(PAIR_KEYS), keys=PAIR_KEYS, join_type="left anti")
    kinds["pairs"] = _shared_usage(finished_files(scope.pairs_dir), used)
    prepared = scope.store / PREPARED
    if before is None and storage.exists(prepared):
        kinds[PREPARED] = Part(**read_json(record_path(prepared))).usage
    usage = {f"{kind}_{k}": value for kind, values in kinds.items() for k, value in values.items()}
    return usage | {n: sum(values.get(n, 0.0) for values in kinds.values()) for n in _USAGE}


def _shared_usage(files: list[Path], used: pa.Table) -> dict[str, float]:
    counts = np.bincount(used["file"].to_numpy(), minlength=len(files))
    total: dict[str, float] = {"rows": float(len(used))} if len(used) else {}
    for path, count in zip(files, counts.tolist(), strict=True):
        if count:
            part = Part(**read_json(record_path(path)))
            for name, value in part.usage.items():
                total[name] = total.get(name, 0.0) + value * count / part.rows
    return total


STAGE = Stage(
    name="score",
    directory="4-teacher",
    run=run,
    settings=("teacher",),
    reads=("ingest", "sample"),
    version=3,
    identity=identity,
)
