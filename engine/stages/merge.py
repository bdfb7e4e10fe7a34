"""Merge: the subset of a run and the rows that were added to it, as one file to train on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from engine.artifacts.files import read_table
from engine.artifacts.parts import finish_part
from engine.runtime.stage import Stage, StageContext, StageResult
from engine.selection.subset_files import write_jsonl, write_parquet

__all__ = ["STAGE", "run"]


def run(context: StageContext) -> StageResult:
    """Write merged.parquet and merged.jsonl: the earlier subset in its order, then additions."""
    before, added = context.inputs["previous"], context.inputs["select"]
    files = before.path("subset"), added.path("subset")
    counts = context.executor.call(_merge, *files, context.directory)
    names = {"subset": "merged.parquet", "jsonl": "merged.jsonl"}
    return StageResult(
        parts={
            group: [finish_part(context.directory, context.directory / name, counts["merged"])]
            for group, name in names.items()
        },
        counts=counts,
        columns={
            "merged.*": "every column of the input rows; rank in the whole list; gain, of an "
            "addition beside all rows before; mean_influence; added (bool)"
        },
    )


def _merge(before: Path, added: Path, directory: Path) -> dict[str, int]:
    first, second = read_table(before), read_table(added)
    known = first["added"] if "added" in first.column_names else pa.array([False] * len(first))
    tables = [
        first.drop_columns(["added"] if "added" in first.column_names else []),
        second,
    ]
    merged = _concatenated(tables)
    flags = pa.concat_arrays([*_chunks(known), pa.array([True] * len(second), pa.bool_())])
    ranks = pa.array(np.arange(1, len(merged) + 1))
    merged = merged.set_column(merged.column_names.index("rank"), "rank", ranks)
    merged = merged.append_column("added", flags)
    write_parquet(merged, directory / "merged.parquet")
    write_jsonl(merged, directory / "merged.jsonl")
    return {"merged": len(merged), "before": len(first), "added": len(second)}


def _chunks(column: pa.ChunkedArray | pa.Array) -> list[pa.Array]:
    return column.chunks if isinstance(column, pa.ChunkedArray) else [column]


def _concatenated(tables: list[pa.Table]) -> pa.Table:
    """One table; a column whose two types have nothing in common becomes text."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        pass
    first, second = tables
    for name in set(first.column_names) & set(second.column_names):
        if first[name].type != second[name].type:
            first, second = _as_text(first, name), _as_text(second, name)
    return pa.concat_tables([first, second], promote_options="permissive")


def _as_text(table: pa.Table, name: str) -> pa.Table:
    texts = [_text(value) for value in table[name].to_pylist()]
    place = table.column_names.index(name)
    return table.set_column(place, name, pa.array(texts, type=pa.string()))


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)  # turns of a chat can be read back


STAGE = Stage(
    name="merge",
    directory="8-merged",
    run=run,
    settings=(),
    reads=("previous", "select"),
    version=1,
)
