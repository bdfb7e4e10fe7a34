"""Score: ask the teacher about the sampled pairs, and never twice about the same one.

Answers are kept in a store below the stage's folder, one folder per teacher setting, keyed by the
content of candidate and target; no redo deletes it. Two steps, both on an actor pool: features of
single points (the error without example for DELIFT, embeddings for DELIFT (SE)), then pairs.

What goes through the model together is a function of the data: all pairs of a candidate are one
piece of work that is done as a whole or not at all, and so is a bucket of points (drawn by hash of
their content). So a killed run that goes on asks in the same batches, and gets the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from engine.actors import Partition, PartitionWorker, run_partitions, run_task
from engine.artifact_rows import TableParts, target_side
from engine.config import Config, TeacherConfig
from engine.example import Example
from engine.run_directory import (
    STORE,
    Artifact,
    Part,
    atomic_path,
    digest,
    finish_part,
    read_json,
    record_path,
    total_usage,
)
from engine.stage import StageContext, StageResult
from engine.teachers.teacher import Side, Teacher, Usage, load_teacher, teacher_class

__all__ = ["identity", "run"]

POINTS_PER_BUCKET = 32
PARTS_AIMED_AT = 64  # work is cut into about this many parts, so a kill loses little
_SIDES: tuple[Side, ...] = ("candidate", "target")
_FEATURES = pa.schema(
    [("key", pa.string()), ("feature", pa.list_(pa.float32())), ("problem", pa.string())]
)
_PAIRS = pa.schema(
    [
        ("candidate_key", pa.string()),
        ("target_key", pa.string()),
        ("score", pa.float32()),
        ("problem", pa.string()),
    ]
)


def identity(config: Config) -> dict[str, Any]:
    """Everything that the teacher's scores depend on."""
    return teacher_class(config.teacher.name).identity(config.teacher)


def run(context: StageContext) -> StageResult:
    """Ask for what the store lacks, then write the labels of this sample in its order."""
    config, teacher = context.config, teacher_class(context.config.teacher.name)
    key = digest(config.seed if teacher.name == "random" else None, identity(config))
    store = context.directory / STORE / f"{teacher.name}-{key}"
    scope = _Scope(context.inputs["ingest"], context.inputs["sample"], store, context.directory)
    points = run_task(_plan_features, scope, teacher.feature_sides)
    used = _ask(context, scope, points, FeatureWorker, f"{teacher.name}, points", "rows")
    pairs = run_task(_plan_pairs, scope)
    used += _ask(context, scope, pairs, PairWorker, f"{teacher.name}, pairs", "pairs")
    path = context.directory / "labels.parquet"
    counts = run_task(_write_labels, scope, path)
    usage = run_task(_usage_of, scope)
    return StageResult(
        parts={"labels": [finish_part(context.directory, path, counts["pairs"])]},
        counts={**counts, "asked_now": int(total_usage(used).get("calls", 0))},
        usage=usage,
        columns={
            "candidate": "int64 row",
            "target": "int64 row",
            "quadrant": "int8, 0 = training, 1..4 = audit",
            "score": f"float32, {teacher.name}; NaN where the teacher could not answer",
            "problem": "why it could not, or null",
        },
        models={k: str(v) for k, v in identity(config).items() if k == "model"},
    )


@dataclass(frozen=True)
class _Scope:
    """What the tasks and actors of this stage read and write."""

    corpus: Artifact
    sample: Artifact
    store: Path
    directory: Path

    def rows_of(self, side: Side) -> TableParts:
        group = "candidates" if side == "candidate" else target_side(self.corpus)
        return TableParts(self.corpus, group)

    def pairs(self) -> pa.Table:
        """The sample with the content keys of both sides."""
        pairs = pq.read_table(self.sample.path("pairs"))
        for side in _SIDES:
            rows, inverse = np.unique(pairs[side].to_numpy(), return_inverse=True)
            keys = self.rows_of(side).take(rows, ["key"])["key"]
            pairs = pairs.append_column(f"{side}_key", keys.take(inverse))
        return pairs


def _ask(
    context: StageContext,
    scope: _Scope,
    partitions: list[Partition],
    worker: type[PartitionWorker],
    label: str,
    unit: str,
) -> list[Part]:
    settings = context.config.teacher
    return run_partitions(
        partitions,
        context.directory,
        worker,
        {"settings": settings, "seed": context.config.seed, "scope": scope},
        label=label,
        unit=unit,
        execution=settings.execution,
        threads=settings.model.threads,
    )


# --- planning: what the store lacks, cut into pieces ---------------------------------------------


def _plan_features(scope: _Scope, sides: tuple[Side, ...]) -> list[Partition]:
    pairs = scope.pairs()
    return [piece for side in sides for piece in _plan_side(scope, side, pairs)]


def _plan_side(scope: _Scope, side: Side, pairs: pa.Table) -> list[Partition]:
    wanted = _first_of_each(pairs[side].to_numpy(), pairs[f"{side}_key"].to_pylist())
    num_buckets = max(1, -(-len(wanted) // POINTS_PER_BUCKET))
    known = _known_features(scope.store, side)
    buckets: dict[int, list[tuple[str, int]]] = {}
    for key, row in wanted.items():
        if key not in known:
            buckets.setdefault(int(key[:12], 16) % num_buckets, []).append((key, row))
    pieces = [sorted(buckets[number]) for number in sorted(buckets)]
    folder = _relative(scope, f"features-{side}")
    return [_piece(folder, [key for key, _ in piece], piece, side) for piece in pieces]


def _piece(folder: str, keys: list[str], piece: list[tuple[str, int]], side: Side) -> Partition:
    payload = {"side": side, "rows": [row for _, row in piece]}
    return Partition(f"{folder}/{digest(keys)}.parquet", len(piece), payload)


def _plan_pairs(scope: _Scope) -> list[Partition]:
    known = _known_pairs(scope.store)
    groups: dict[int, list[int]] = {}
    names: dict[int, list[str]] = {}
    asked: set[str] = set()
    columns = ("candidate", "target", "candidate_key", "target_key")
    pairs = scope.pairs()
    for c, t, c_key, t_key in zip(*(pairs[name].to_pylist() for name in columns), strict=True):
        name = c_key + t_key
        if name not in known and name not in asked:
            asked.add(name)
            groups.setdefault(c, []).append(t)
            names.setdefault(c, []).append(name)
    folder = _relative(scope, "pairs")
    order = sorted(groups)
    size = max(1, -(-len(order) // PARTS_AIMED_AT))
    partitions = []
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        payload = {"candidates": rows, "targets": [groups[row] for row in rows]}
        units = sum(len(groups[row]) for row in rows)
        name = digest([names[row] for row in rows])
        partitions.append(Partition(f"{folder}/{name}.parquet", units, payload))
    return partitions


def _relative(scope: _Scope, folder: str) -> str:
    return (scope.store / folder).relative_to(scope.directory).as_posix()


def _first_of_each(rows: Any, keys: list[str]) -> dict[str, int]:
    """One row for each content key: rows with the same texts are asked about once."""
    wanted: dict[str, int] = {}
    for row, key in zip(rows.tolist(), keys, strict=True):
        wanted.setdefault(key, row)
    return wanted


def _finished_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.parquet")) if record_path(path).is_file()]


def _tables(folder: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    for path in _finished_files(folder):
        yield pq.read_table(path, columns=columns)


def _known_features(store: Path, side: Side) -> set[str]:
    tables = _tables(store / f"features-{side}", ["key"])
    return {key for table in tables for key in table["key"].to_pylist()}


def _known_pairs(store: Path) -> set[str]:
    columns = ["candidate_key", "target_key"]
    tables = _tables(store / "pairs", columns)
    return {
        c + t
        for table in tables
        for c, t in zip(*(table[name].to_pylist() for name in columns), strict=True)
    }


# --- asking, on actors ---------------------------------------------------------------------------


class _TeacherWorker(PartitionWorker):
    def __init__(self, settings: TeacherConfig, seed: int, scope: _Scope) -> None:
        self._teacher: Teacher = load_teacher(settings, seed)
        self._scope = scope

    def _examples(self, side: Side, rows: list[int]) -> list[Example]:
        return self._scope.rows_of(side).examples(np.asarray(rows, dtype=np.int64))


class FeatureWorker(_TeacherWorker):
    """Computes what the teacher needs of single points."""

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        examples = self._examples(payload["side"], payload["rows"])
        features = self._teacher.features(payload["side"], examples)
        table = pa.table(
            {
                "key": [example.key for example in examples],
                "feature": list(features.values),
                "problem": features.problems,
            },
            schema=_FEATURES,
        )
        _write(table, path)
        return len(examples), _usage(features.usage)


class PairWorker(_TeacherWorker):
    """Scores all asked pairs of some candidates, one candidate at a time."""

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        candidates = self._examples("candidate", payload["candidates"])
        target_rows = sorted({row for rows in payload["targets"] for row in rows})
        targets = dict(zip(target_rows, self._examples("target", target_rows), strict=True))
        features = {
            side: self._features(side, examples)
            for side, examples in (("candidate", candidates), ("target", list(targets.values())))
            if side in self._teacher.feature_sides
        }
        columns: dict[str, list[Any]] = {name: [] for name in _PAIRS.names}
        usage = Usage()
        for candidate, rows in zip(candidates, payload["targets"], strict=True):
            asked = [targets[row] for row in rows]
            scores = self._teacher.score(
                candidate,
                features["candidate"][candidate.key] if "candidate" in features else None,
                asked,
                np.stack([features["target"][t.key] for t in asked])
                if "target" in features
                else None,
            )
            usage += scores.usage
            columns["candidate_key"] += [candidate.key] * len(asked)
            columns["target_key"] += [target.key for target in asked]
            columns["score"] += scores.values.tolist()
            columns["problem"] += scores.problems
        _write(pa.table(columns, schema=_PAIRS), path)
        return len(columns["score"]), _usage(usage)

    def _features(self, side: Side, examples: list[Example]) -> dict[str, Any]:
        files = [str(path) for path in _finished_files(self._scope.store / f"features-{side}")]
        wanted = pa.array([example.key for example in examples])
        table = pads.dataset(files, schema=_FEATURES).to_table(filter=pc.field("key").isin(wanted))
        values = (np.asarray(feature, dtype=np.float32) for feature in table["feature"].to_pylist())
        return dict(zip(table["key"].to_pylist(), values, strict=True))


def _write(table: pa.Table, path: Path) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def _usage(usage: Usage) -> dict[str, float]:
    return {
        "calls": float(usage.calls),
        "tokens": float(usage.tokens),
        "truncated": float(usage.num_truncated),
    }


# --- labels --------------------------------------------------------------------------------------


def _write_labels(scope: _Scope, path: Path) -> dict[str, int]:
    """The sample with its scores, in the sample's order."""
    pairs = scope.pairs()
    tables = list(_tables(scope.store / "pairs"))
    answers = pa.concat_tables(tables) if tables else _PAIRS.empty_table()
    index = {
        c + t: position
        for position, (c, t) in enumerate(
            zip(
                answers["candidate_key"].to_pylist(), answers["target_key"].to_pylist(), strict=True
            )
        )
    }
    keys = zip(pairs["candidate_key"].to_pylist(), pairs["target_key"].to_pylist(), strict=True)
    found = pa.array([index[c + t] for c, t in keys], type=pa.int64())
    labels = pairs.select(["candidate", "target", "quadrant"])
    for name in ("score", "problem"):
        labels = labels.append_column(name, answers[name].take(found).combine_chunks())
    _write(labels, path)
    problems = labels["problem"]
    return {"pairs": len(labels), "unscorable": len(problems) - problems.null_count}


def _usage_of(scope: _Scope) -> dict[str, float]:
    """What the answers of this sample cost, whenever they were paid, by kind of work."""
    pairs = scope.pairs()
    usage: dict[str, float] = {}
    for folder, column in (
        ("features-candidate", "candidate_key"),
        ("features-target", "target_key"),
        ("pairs", "candidate_key"),
    ):
        wanted = pa.array(pc.unique(pairs[column]))
        key = "candidate_key" if folder == "pairs" else "key"
        total = total_usage(
            [
                Part(**read_json(record_path(path)))
                for path in _finished_files(scope.store / folder)
                if pc.any(pc.is_in(pq.read_table(path, columns=[key])[key], wanted)).as_py()
            ]
        )
        kind = folder.replace("-", "_")
        usage |= {f"{kind}_{name}": value for name, value in total.items()}
    names = ("seconds", "cpu_seconds", "calls", "tokens", "truncated")
    kinds = ("features_candidate", "features_target", "pairs")
    return {**usage, **{n: sum(usage.get(f"{k}_{n}", 0.0) for k in kinds) for n in names}}
