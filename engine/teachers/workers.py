"""Asking a teacher, on actors: what it prepares once, features of points, scores of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
from numpy.typing import NDArray

from engine import storage
from engine.artifacts.files import atomic_path
from engine.config import TeacherConfig
from engine.example import Example
from engine.runtime.crashes import CRASHED
from engine.runtime.executor import PartitionWorker
from engine.teachers.store import PAIRS, PREPARED, Scope, stored_features, write_table
from engine.teachers.teacher import (
    Features,
    Scores,
    Side,
    Teacher,
    Usage,
    load_teacher,
    teacher_class,
)

__all__ = [
    "FeatureWorker",
    "PairWorker",
    "PreparingWorker",
]


class PreparingWorker(PartitionWorker):
    """Does what the teacher needs done once, before it is asked."""

    def __init__(self, settings: TeacherConfig, seed: int, scope: Scope) -> None:
        self._settings, self._seed, self._scope = settings, seed, scope

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        examples = self._scope.examples("candidate", payload["rows"])
        teacher = teacher_class(self._settings.name)
        usage = teacher.prepare(self._settings, self._seed, examples, path)
        return len(examples), _usage(usage)


class _TeacherWorker(PartitionWorker):
    def __init__(self, settings: TeacherConfig, seed: int, scope: Scope) -> None:
        prepared = scope.store / PREPARED
        self._scope = scope
        self._joined: dict[str, NDArray[np.floating]] | None = None
        self._teacher: Teacher = load_teacher(
            settings, seed, storage.fetch(prepared) if storage.exists(prepared) else None
        )


class FeatureWorker(_TeacherWorker):
    """Computes what the teacher needs of single points."""

    def num_rows(self, payload: Mapping[str, Any]) -> int:
        return len(payload["rows"])

    def try_row(self, payload: Mapping[str, Any], row: int) -> None:
        examples = self._scope.examples(payload["side"], payload["rows"][row : row + 1])
        self._teacher.features(payload["side"], examples)

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        examples = self._scope.examples(payload["side"], payload["rows"])
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


def _feature_table(examples: list[Example], features: Features) -> pa.Table:
    values = np.ascontiguousarray(features.values)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    keys = pa.array([example.key for example in examples])
    problems = pa.array(features.problems, type=pa.string())
    return pa.table({"key": keys, "feature": vectors, "problem": problems})


class PairWorker(_TeacherWorker):
    """Scores all asked pairs of some candidates, one candidate at a time."""

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        candidates = self._scope.examples("candidate", payload["candidates"])
        target_rows = sorted({row for rows in payload["targets"] for row in rows})
        asked_of = self._scope.examples("target", target_rows)
        targets = dict(zip(target_rows, asked_of, strict=True))
        features = self._features_of(candidates, list(targets.values()))
        columns: dict[str, list[Any]] = {name: [] for name in PAIRS.names}
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
        write_table(pa.table(columns, schema=PAIRS), path)
        return len(columns["score"]), _usage(usage)

    def num_rows(self, payload: Mapping[str, Any]) -> int:
        """Its candidates: a target that crashes the model has done so as a point before."""
        return len(payload["candidates"])

    def try_row(self, payload: Mapping[str, Any], row: int) -> None:
        only = {name: payload[name][row : row + 1] for name in ("candidates", "targets")}
        (candidate,) = self._scope.examples("candidate", only["candidates"])
        targets = self._scope.examples("target", only["targets"][0])
        self._ask(candidate, targets, self._features_of([candidate], targets))

    def _features_of(
        self, candidates: list[Example], targets: list[Example]
    ) -> dict[Side, dict[str, NDArray[np.floating]]]:
        """Of the sides that the teacher has features of."""
        sides: dict[Side, list[Example]] = {"candidate": candidates, "target": targets}
        found = {side: self._features(side, sides[side]) for side in self._teacher.feature_sides}
        if self._scope.subtasks is not None:
            found["target"] = self._joined_targets()
        return found

    def _joined_targets(self) -> dict[str, NDArray[np.floating]]:
        """Of every asked target what its sub-task makes of it; one in two of them is the first's.

        Memory: the features of all asked targets, for as long as the worker lives.
        """
        if self._joined is None:
            assert self._scope.subtasks is not None
            self._joined = {}
            for subtask in self._scope.subtasks:
                keys = (*subtask.joined, *subtask.others)
                stored = stored_features(self._scope, "target", keys)
                features = np.stack([stored[key] for key in keys])
                joined = self._teacher.joined(features, features[: len(subtask.joined)])
                for key, feature in zip(keys, joined, strict=True):
                    self._joined.setdefault(key, feature)
        return self._joined

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
        return stored_features(self._scope, side, [example.key for example in examples])


def _usage(usage: Usage) -> dict[str, float]:
    return {
        "calls": float(usage.calls),
        "tokens": float(usage.tokens),
        "truncated": float(usage.num_truncated),
    }
