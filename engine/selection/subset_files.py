"""The files that a selection leaves for people and trainers: the ranking, and the rows."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.artifacts.files import atomic_path
from engine.artifacts.rows import TableParts
from engine.artifacts.run_directory import Artifact
from engine.artifacts.typed_columns import column_of, source_types
from engine.kernels.arrays import FloatArray
from engine.selection.select import Selection

__all__ = [
    "RANKING_COLUMNS",
    "free_name",
    "write_jsonl",
    "write_parquet",
    "write_ranking",
    "write_subset",
]

RANKING_COLUMNS = (
    "rank int64 from 1, row int64 of the candidates, id, gain float64 of the objective, "
    "round int64 (0: added nothing), mean_influence float32 in teacher units"
)
_TEXTS = ("instruction", "input", "output")
_ADDED = ("rank", "gain", "mean_influence")


def write_ranking(
    selection: Selection, means: FloatArray, corpus: Artifact, directory: Path
) -> pa.Table:
    """Write ranking.parquet; returns the selected rows of the corpus in that order."""
    rows = TableParts(corpus, "candidates").take(selection.ranking)
    ranking = pa.table(
        {
            "rank": pa.array(np.arange(1, len(rows) + 1)),
            "row": selection.ranking,
            "id": rows["id"],
            "gain": pa.array(selection.gains),
            "round": pa.array(selection.rounds),
            "mean_influence": pa.array(means[selection.ranking]),
        }
    )
    write_parquet(ranking, directory / "ranking.parquet")
    return rows


def write_subset(rows: pa.Table, ranking: pa.Table, directory: Path, name: str) -> None:
    """Write NAME.parquet and NAME.jsonl: all columns of the input, and those of the ranking.

    In the JSON lines every row has the very keys that it came with. In parquet columns have the
    types that they had there, or those that hold all values (`typed_columns`). A column of the
    user's named as one of ours is kept under another name.
    """
    restored = [_restored(row) for row in rows.to_pylist()]
    names = list(dict.fromkeys(name for row in restored for name in row))
    for column in (column for column in _ADDED if column in names):
        other = free_name(column, names)
        names = [other if name == column else name for name in names]
        restored = [{other if k == column else k: v for k, v in r.items()} for r in restored]
    types = source_types([rows.schema])
    known = {field.name: field.type for field in types} | {"id": pa.string()}
    columns = {name: column_of([r.get(name) for r in restored], known.get(name)) for name in names}
    added = {column: ranking[column] for column in _ADDED}
    write_parquet(pa.table({**columns, **added}), directory / f"{name}.parquet")
    values = zip(*(ranking[column].to_pylist() for column in _ADDED), strict=True)
    lines = (
        {**row, **dict(zip(_ADDED, its, strict=True))}
        for row, its in zip(restored, values, strict=True)
    )
    write_jsonl(lines, directory / f"{name}.jsonl")


def free_name(column: str, taken: Collection[str]) -> str:
    """A name for a column of the user's whose own name is needed."""
    name, number = f"{column}_of_input", 2
    while name in taken:
        name, number = f"{column}_of_input_{number}", number + 1
    return name


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table, atomically."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def write_jsonl(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write rows as JSON lines, atomically; NaN and infinities are null."""
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="\n") as file,
    ):
        for row in rows:
            try:
                line = json.dumps(row, ensure_ascii=False, allow_nan=False)
            except ValueError:
                line = json.dumps(_finite(row), ensure_ascii=False)
            file.write(line + "\n")


def _restored(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as the user gave it: its own columns, and beside them the texts that it has not."""
    own = json.loads(row["extra"])
    texts = {name: row[name] for name in _TEXTS}
    return {"id": row["id"], **texts, **{k: v for k, v in own.items() if _is_own(k, v)}}


def _is_own(name: str, value: Any) -> bool:
    return name not in _TEXTS or value is not None


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
