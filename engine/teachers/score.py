"""Score: ask the teacher about the sampled pairs, and never twice about the same one.

Answers are kept in a store below the stage's folder, one folder per teacher setting, keyed by the
content of candidate and target; no redo deletes it. Up to three steps, on actor pools: what the
teacher prepares (LESS' warm-up), features of single points (the error without example for DELIFT,
embeddings for DELIFT (SE), gradients for LESS, ratings for SelectIT), then pairs.

What goes through the model together is a function of the data: all pairs of a candidate are one
piece of work that is done as a whole or not at all, and so is a bucket of points (drawn by hash of
their content). So a killed run that goes on asks in the same batches, and gets the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine import storage
from engine.actors import Partition, PartitionWorker, run_partitions
from engine.artifact_rows import TableParts, target_side
from engine.cluster import run_task
from engine.config import Config, TeacherConfig
from engine.crashes import CRASHED
from engine.example import Example, order_hash
from engine.run_directory import (
    STORE,
    Artifact,
    Part,
    atomic_path,
    digest,
    finish_part,
    finished_part,
    map_table,
    read_json,
    read_table,
    record_path,
    total_usage,
)
from engine.stage import StageContext, StageResult
from engine.teachers.teacher import (
    Features,
    Scores,
    Side,
    Teacher,
    Usage,
    load_teacher,
    teacher_class,
)

__all__ = ["identity", "run"]

POINTS_PER_BUCKET = 32
# Pairs are cut into about this many parts, so that a kill loses little and many actors have work;
# of cheap ones a part holds at least some, or its bookkeeping would cost more than they do.
PARTS_AIMED_AT = 256
SMALLEST_PART = 64
PREPARED = "prepared"
_SIDES: tuple[Side, ...] = ("candidate", "target")
_PAIR_KEYS = ["candidate_key", "target_key"]
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
    # new rows for a finished run: its teacher is asked, as it was prepared, and its store filled
    corpus = context.inputs.get("run-ingest", context.inputs["ingest"])
    home = context.inputs["run-score"].directory if "run-score" in context.inputs else None
    home = home or context.directory
    rows, contents = run_task(_rows_to_prepare, config, corpus)
    seeded = bool(rows) or teacher.name == "random"
    key = digest(config.seed if seeded else None, identity(config), *([contents] if rows else []))
    store = home / STORE / f"{teacher.name}-{key}"
    inputs = (context.inputs["ingest"], context.inputs["sample"])
    scope = _Scope(*inputs, store, home, teacher.same_features)
    used: list[Part] = []
    if rows and finished_part(store / PREPARED) is None:
        piece = Partition(_relative(scope, PREPARED), len(rows), {"rows": rows})
        used += _ask(context, scope, [piece], PreparingWorker, f"{teacher.name}, warm-up", "rows")
    points = run_task(_plan_features, scope, teacher.feature_sides)
    used += _ask(context, scope, points, FeatureWorker, f"{teacher.name}, points", "rows")
    pairs = run_task(_plan_pairs, scope)
    used += _ask(context, scope, pairs, PairWorker, f"{teacher.name}, pairs", "pairs")
    path = context.directory / "labels.parquet"
    counts = run_task(_write_labels, scope, path)
    usage = run_task(_usage_of, scope)
    return StageResult(
        parts={"labels": [finish_part(context.directory, path, counts["pairs"])]},
        counts={
            **counts,
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
        },
        models={k: str(v) for k, v in identity(config).items() if k in ("model", "further_models")},
    )


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


@dataclass(frozen=True)
class _Scope:
    """What the tasks and actors of this stage read and write; `directory` holds the store."""

    corpus: Artifact
    sample: Artifact
    store: Path
    directory: Path
    same_features: bool

    def features_dir(self, side: Side) -> Path:
        return self.store / ("features" if self.same_features else f"features-{side}")

    def rows_of(self, side: Side) -> TableParts:
        group = "candidates" if side == "candidate" else target_side(self.corpus)
        return TableParts(self.corpus, group)

    def pairs(self) -> pa.Table:
        """The sample with the content keys of both sides."""
        pairs = read_table(self.sample.path("pairs"))
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
        scope.directory,
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
    partitions: list[Partition] = []
    planned: set[str] = set()
    for side in sides:
        known = set(_known_features(scope, side)["key"].to_pylist())
        if scope.same_features:
            known |= planned
        wanted = _first_rows(pairs, side)
        planned |= wanted.keys()
        partitions += _plan_side(scope, side, wanted, known)
    return partitions


def _first_rows(pairs: pa.Table, side: Side) -> dict[str, int]:
    """One row for each content key: rows with the same texts are asked about once."""
    first = pairs.group_by(f"{side}_key").aggregate([(side, "min")])
    columns = (first[f"{side}_key"].to_pylist(), first[f"{side}_min"].to_pylist())
    return dict(zip(*columns, strict=True))


def _plan_side(
    scope: _Scope, side: Side, wanted: dict[str, int], known: set[str]
) -> list[Partition]:
    num_buckets = max(1, -(-len(wanted) // POINTS_PER_BUCKET))
    buckets: dict[int, list[tuple[str, int]]] = {}
    for key, row in wanted.items():
        if key not in known:
            buckets.setdefault(int(key[:12], 16) % num_buckets, []).append((key, row))
    pieces = [sorted(buckets[number]) for number in sorted(buckets)]
    folder = scope.features_dir(side).relative_to(scope.directory).as_posix()
    return [_piece(folder, [key for key, _ in piece], piece, side) for piece in pieces]


def _piece(folder: str, keys: list[str], piece: list[tuple[str, int]], side: Side) -> Partition:
    payload = {"side": side, "rows": [row for _, row in piece]}
    return Partition(f"{folder}/{digest(keys)}.arrow", len(piece), payload)


def _plan_pairs(scope: _Scope) -> list[Partition]:
    known = _known_pairs(scope.store).select(_PAIR_KEYS)
    missing = scope.pairs().join(known, keys=_PAIR_KEYS, join_type="left anti")
    rows_of = [("candidate", "min"), ("target", "min")]
    missing = missing.group_by(_PAIR_KEYS).aggregate(rows_of)
    missing = missing.sort_by([("candidate_min", "ascending"), ("target_min", "ascending")])
    candidates, starts = np.unique(missing["candidate_min"].to_numpy(), return_index=True)
    groups = np.split(missing["target_min"].to_numpy(), starts[1:]) if len(missing) else []
    target_keys, candidate_keys = missing["target_key"], missing["candidate_key"]
    folder = _relative(scope, "pairs")
    size = _candidates_per_part(len(candidates), len(missing))
    bounds = [*starts.tolist(), len(missing)]
    partitions = []
    for start in range(0, len(candidates), size):
        stop = min(start + size, len(candidates))
        first, last = bounds[start], bounds[stop]
        payload = {
            "candidates": candidates[start:stop].tolist(),
            "targets": [group.tolist() for group in groups[start:stop]],
        }
        names = [keys[first:last].to_pylist() for keys in (candidate_keys, target_keys)]
        partitions.append(Partition(f"{folder}/{digest(*names)}.parquet", last - first, payload))
    return partitions


def _candidates_per_part(num_candidates: int, num_pairs: int) -> int:
    most_parts = min(PARTS_AIMED_AT, max(1, num_pairs // SMALLEST_PART))
    return max(1, -(-num_candidates // most_parts))


def _relative(scope: _Scope, folder: str) -> str:
    return (scope.store / folder).relative_to(scope.directory).as_posix()


def _finished_files(folder: Path) -> list[Path]:
    suffixes = (".arrow", ".parquet")
    files = storage.files_in(folder)
    there = set(files)
    return [p for p in files if p.suffix in suffixes and record_path(p) in there]


def _known_features(scope: _Scope, side: Side) -> pa.Table:
    """Key of each point whose features are paid for, and the number of its file."""
    return _keys_of(_finished_files(scope.features_dir(side)), ["key"])


def _known_pairs(store: Path) -> pa.Table:
    """Keys of each pair that is paid for, and the number of its file."""
    return _keys_of(_finished_files(store / "pairs"), _PAIR_KEYS)


def _keys_of(files: list[Path], columns: list[str]) -> pa.Table:
    schema = pa.schema([*((name, pa.string()) for name in columns), ("file", pa.int64())])
    tables = [schema.empty_table()]
    for number, path in enumerate(files):
        read = read_table if path.suffix == ".parquet" else map_table
        table = read(path, columns=columns)
        tables.append(table.append_column("file", pa.array(np.full(len(table), number))))
    return pa.concat_tables(tables)


# --- asking, on actors ---------------------------------------------------------------------------


class PreparingWorker(PartitionWorker):
    """Does what the teacher needs done once, before it is asked."""

    def __init__(self, settings: TeacherConfig, seed: int, scope: _Scope) -> None:
        self._settings, self._seed, self._scope = settings, seed, scope

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        examples = _examples(self._scope, "candidate", payload["rows"])
        teacher = teacher_class(self._settings.name)
        usage = teacher.prepare(self._settings, self._seed, examples, path)
        return len(examples), _usage(usage)


class _TeacherWorker(PartitionWorker):
    def __init__(self, settings: TeacherConfig, seed: int, scope: _Scope) -> None:
        prepared = scope.store / PREPARED
        self._scope = scope
        self._teacher: Teacher = load_teacher(
            settings, seed, storage.fetch(prepared) if storage.exists(prepared) else None
        )


class FeatureWorker(_TeacherWorker):
    """Computes what the teacher needs of single points."""

    def num_rows(self, payload: Mapping[str, Any]) -> int:
        return len(payload["rows"])

    def try_row(self, payload: Mapping[str, Any], row: int) -> None:
        examples = _examples(self._scope, payload["side"], payload["rows"][row : row + 1])
        self._teacher.features(payload["side"], examples)

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        examples = _examples(self._scope, payload["side"], payload["rows"])
        left_out = payload.get("left_out", [])
        asked = [e for number, e in enumerate(examples) if number not in left_out]
        nothing = Features(np.empty((0, 1), np.float32), [], Usage())
        answers = self._teacher.features(payload["side"], asked) if asked else nothing
        features = _spread(answers, left_out)
        with atomic_path(path) as temporary:  # uncompressed, so that readers can map it
            table = _feature_table(examples, features)
            pyarrow.feather.write_feather(table, str(temporary), compression="uncompressed")
        return len(examples), _usage(features.usage)


def _spread(features: Features, left_out: Sequence[int]) -> Features:
    """Features with those that are left out put back as NaN, their problem said."""
    if not left_out:
        return features
    total = len(features.values) + len(left_out)
    asked = np.delete(np.arange(total), left_out)
    # of a bucket in which nothing could be asked the width is not known; `_features` makes it fit
    width = features.values.shape[1] if len(asked) else 1
    values = np.full((total, width), np.nan, features.values.dtype)
    values[asked] = features.values
    problems: list[str | None] = [CRASHED] * total
    for number, problem in zip(asked, features.problems, strict=True):
        problems[number] = problem
    return Features(values, problems, features.usage)


def _examples(scope: _Scope, side: Side, rows: list[int]) -> list[Example]:
    return scope.rows_of(side).examples(np.asarray(rows, dtype=np.int64))


def _feature_table(examples: list[Example], features: Features) -> pa.Table:
    values = np.ascontiguousarray(features.values)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    keys = pa.array([example.key for example in examples])
    problems = pa.array(features.problems, type=pa.string())
    return pa.table({"key": keys, "feature": vectors, "problem": problems})


class PairWorker(_TeacherWorker):
    """Scores all asked pairs of some candidates, one candidate at a time."""

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        candidates = _examples(self._scope, "candidate", payload["candidates"])
        target_rows = sorted({row for rows in payload["targets"] for row in rows})
        asked_of = _examples(self._scope, "target", target_rows)
        targets = dict(zip(target_rows, asked_of, strict=True))
        features = self._features_of(candidates, list(targets.values()))
        columns: dict[str, list[Any]] = {name: [] for name in _PAIRS.names}
        usage = Usage()
        left_out = payload.get("left_out", [])
        for number, (candidate, rows) in enumerate(
            zip(candidates, payload["targets"], strict=True)
        ):
            asked = [targets[row] for row in rows]
            if number in left_out:
                nothing = np.full(len(asked), np.nan, np.float32)
                scores = Scores(nothing, [CRASHED] * len(asked), Usage())
            else:
                scores = self._ask(candidate, asked, features)
            usage += scores.usage
            columns["candidate_key"] += [candidate.key] * len(asked)
            columns["target_key"] += [target.key for target in asked]
            columns["score"] += scores.values.tolist()
            columns["problem"] += scores.problems
        _write(pa.table(columns, schema=_PAIRS), path)
        return len(columns["score"]), _usage(usage)

    def num_rows(self, payload: Mapping[str, Any]) -> int:
        """Its candidates: a target that crashes the model has done so as a point before."""
        return len(payload["candidates"])

    def try_row(self, payload: Mapping[str, Any], row: int) -> None:
        only = {name: payload[name][row : row + 1] for name in ("candidates", "targets")}
        (candidate,) = _examples(self._scope, "candidate", only["candidates"])
        targets = _examples(self._scope, "target", only["targets"][0])
        self._ask(candidate, targets, self._features_of([candidate], targets))

    def _features_of(
        self, candidates: list[Example], targets: list[Example]
    ) -> dict[Side, dict[str, NDArray[np.floating]]]:
        """Of the sides that the teacher has features of."""
        sides: dict[Side, list[Example]] = {"candidate": candidates, "target": targets}
        return {side: self._features(side, sides[side]) for side in self._teacher.feature_sides}

    def _ask(
        self,
        candidate: Example,
        targets: Sequence[Example],
        features: Mapping[Side, Mapping[str, NDArray[np.floating]]],
    ) -> Scores:
        return self._teacher.score(
            candidate,
            features["candidate"][candidate.key] if "candidate" in features else None,
            targets,
            np.stack([features["target"][target.key] for target in targets])
            if "target" in features
            else None,
        )

    def _features(self, side: Side, examples: list[Example]) -> dict[str, NDArray[np.floating]]:
        """Feature (F,) by key, out of the mapped files of the store."""
        found: dict[str, NDArray[np.floating]] = {}
        wanted = pa.array([example.key for example in examples])
        for path in _finished_files(self._scope.features_dir(side)):
            table = map_table(path)
            rows = table.filter(pc.is_in(table["key"], wanted))
            width = table["feature"].type.list_size
            for chunk, keys in zip(rows["feature"].chunks, rows["key"].chunks, strict=True):
                values = chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
                found.update(zip(keys.to_pylist(), values, strict=True))
        width = max(map(len, found.values()), default=0)
        nothing = np.full(width, np.nan)
        return {k: v if len(v) == width else nothing.astype(v.dtype) for k, v in found.items()}


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
    answers = pa.concat_tables(
        [_PAIRS.empty_table(), *map(read_table, _finished_files(scope.store / "pairs"))]
    )
    labels = pairs.join(answers, keys=_PAIR_KEYS, join_type="inner")
    labels = labels.sort_by([("candidate", "ascending"), ("target", "ascending")])
    assert len(labels) == len(pairs), "a pair of the sample has no answer, or has two"
    labels = labels.select(["candidate", "target", "quadrant", "score", "problem"])
    _write(labels.combine_chunks(), path)
    problems = labels["problem"]
    return {"pairs": len(labels), "unscorable": len(problems) - problems.null_count}


def _usage_of(scope: _Scope) -> dict[str, float]:
    """What the answers of this sample cost, whenever they were paid, by kind of work.

    Of a part that answers other samples as well, the share of its rows that this one uses.
    """
    pairs = scope.pairs()
    kinds: dict[str, dict[str, float]] = {}
    charged = pa.array([], type=pa.string())
    for side in _SIDES:
        known, wanted = _known_features(scope, side), pc.unique(pairs[f"{side}_key"])
        used = known.filter(pc.is_in(known["key"], wanted))
        if scope.same_features:  # a row that is on both sides was paid for once
            used = used.filter(pc.invert(pc.is_in(used["key"], charged)))
            charged = used["key"].combine_chunks()
        kinds[f"features_{side}"] = _shared_usage(_finished_files(scope.features_dir(side)), used)
    known, asked = _known_pairs(scope.store), pairs.select(_PAIR_KEYS)
    used = known.join(asked, keys=_PAIR_KEYS, join_type="left semi")
    kinds["pairs"] = _shared_usage(_finished_files(scope.store / "pairs"), used)
    prepared = scope.store / PREPARED
    if storage.exists(prepared):
        kinds[PREPARED] = Part(**read_json(record_path(prepared))).usage
    usage = {f"{kind}_{k}": value for kind, values in kinds.items() for k, value in values.items()}
    names = ("seconds", "cpu_seconds", "calls", "tokens", "truncated")
    return usage | {n: sum(values.get(n, 0.0) for values in kinds.values()) for n in names}


def _shared_usage(files: list[Path], used: pa.Table) -> dict[str, float]:
    counts = np.bincount(used["file"].to_numpy(), minlength=len(files))
    total: dict[str, float] = {"rows": float(len(used))} if len(used) else {}
    for path, count in zip(files, counts.tolist(), strict=True):
        if count:
            part = Part(**read_json(record_path(path)))
            for name, value in part.usage.items():
                total[name] = total.get(name, 0.0) + value * count / part.rows
    return total
