"""The store of answers: every answer that a teacher was ever paid for, by content.

One folder per teacher setting below the stage's folder; no redo deletes it. Points and pairs are
keyed by the content keys of their rows, so that the same texts are asked about once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine import storage
from engine.artifacts.files import atomic_path, digest, map_table, read_table
from engine.artifacts.parts import record_path
from engine.artifacts.rows import TableParts, target_side
from engine.artifacts.run_directory import Artifact
from engine.example import Example
from engine.teachers.teacher import Side

__all__ = [
    "PAIRS",
    "PAIR_KEYS",
    "PREPARED",
    "SIDES",
    "Scope",
    "Subtask",
    "finished_files",
    "known_features",
    "known_pairs",
    "stored_features",
    "stored_problems",
    "write_table",
]

PREPARED = "prepared"
SIDES: tuple[Side, ...] = ("candidate", "target")
PAIR_KEYS = ["candidate_key", "target_key"]
PAIRS = pa.schema(
    [
        ("candidate_key", pa.string()),
        ("target_key", pa.string()),
        ("score", pa.float32()),
        ("problem", pa.string()),
    ]
)


@dataclass(frozen=True)
class Subtask:
    """Keys of the targets of one sub-task: those whose mean counts, and others that are asked."""

    joined: tuple[str, ...]
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scope:
    """What the tasks and actors of this stage read and write; `directory` holds the store.

    With `subtasks`, of a teacher that joins their targets, what it says of a pair is stored beside
    what it said when others were joined.
    """

    corpus: Artifact
    sample: Artifact
    store: Path
    directory: Path
    same_features: bool
    subtasks: tuple[Subtask, ...] | None = None

    @property
    def pairs_dir(self) -> Path:
        if self.subtasks is None:
            return self.store / "pairs"
        joined = [subtask.joined for subtask in self.subtasks if subtask.joined]
        return self.store / f"pairs-{digest(joined)}"

    def features_dir(self, side: Side) -> Path:
        return self.store / ("features" if self.same_features else f"features-{side}")

    def rows_of(self, side: Side) -> TableParts:
        group = "candidates" if side == "candidate" else target_side(self.corpus)
        return TableParts(self.corpus, group)

    def examples(self, side: Side, rows: list[int]) -> list[Example]:
        """The rows of a side, in the given order."""
        return self.rows_of(side).examples(np.asarray(rows, dtype=np.int64))

    def relative(self, name: str) -> str:
        """Path of something in the store, as a partition names it."""
        return (self.store / name).relative_to(self.directory).as_posix()

    def pairs(self) -> pa.Table:
        """The sample with the content keys of both sides."""
        pairs = read_table(self.sample.path("pairs"))
        for side in SIDES:
            rows, inverse = np.unique(pairs[side].to_numpy(), return_inverse=True)
            keys = self.rows_of(side).take(rows, ["key"])["key"]
            pairs = pairs.append_column(f"{side}_key", keys.take(inverse))
        return pairs


def finished_files(folder: Path) -> list[Path]:
    """Files of answers that were written to their end, by name."""
    suffixes = (".arrow", ".parquet")
    files = storage.files_in(folder)
    there = set(files)
    return [p for p in files if p.suffix in suffixes and record_path(p) in there]


def known_features(scope: Scope, side: Side) -> pa.Table:
    """Key of each point whose features are paid for, and the number of its file."""
    return _keys_of(finished_files(scope.features_dir(side)), ["key"])


def stored_features(
    scope: Scope, side: Side, keys: Sequence[str]
) -> dict[str, NDArray[np.floating]]:
    """Feature (F,) by key, out of the mapped files of the store."""
    found: dict[str, NDArray[np.floating]] = {}
    wanted = pa.array(keys, pa.string())
    for path in finished_files(scope.features_dir(side)):
        table = map_table(path)
        rows = table.filter(pc.is_in(table["key"], wanted))
        width = table["feature"].type.list_size
        for chunk, names in zip(rows["feature"].chunks, rows["key"].chunks, strict=True):
            values = chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
            found.update(zip(names.to_pylist(), values, strict=True))
    width = max(map(len, found.values()), default=0)
    nothing = np.full(width, np.nan)
    return {k: v if len(v) == width else nothing.astype(v.dtype) for k, v in found.items()}


def stored_problems(scope: Scope, side: Side, keys: Sequence[str]) -> dict[str, str | None]:
    """Why a point has no feature, or None, by key."""
    found: dict[str, str | None] = {}
    wanted = pa.array(keys, pa.string())
    for path in finished_files(scope.features_dir(side)):
        table = map_table(path, columns=["key", "problem"])
        rows = table.filter(pc.is_in(table["key"], wanted))
        found.update(zip(rows["key"].to_pylist(), rows["problem"].to_pylist(), strict=True))
    return found


def known_pairs(scope: Scope) -> pa.Table:
    """Keys of each pair that is paid for, and the number of its file."""
    return _keys_of(finished_files(scope.pairs_dir), PAIR_KEYS)


def _keys_of(files: list[Path], columns: list[str]) -> pa.Table:
    schema = pa.schema([*((name, pa.string()) for name in columns), ("file", pa.int64())])
    tables = [schema.empty_table()]
    for number, path in enumerate(files):
        read = read_table if path.suffix == ".parquet" else map_table
        table = read(path, columns=columns)
        tables.append(table.append_column("file", pa.array(np.full(len(table), number))))
    return pa.concat_tables(tables)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a parquet file, whole or not at all."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
