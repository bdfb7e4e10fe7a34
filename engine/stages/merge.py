"""Merge: the subset of a run and the rows that were added to it, as one file to train on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from engine import storage
from engine.artifacts.files import read_table
from engine.artifacts.parts import finish_part
from engine.artifacts.typed_columns import column_of, common_types, values_of
from engine.corpus.extras import extra_as_json
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
    lines = itertools.chain(_lines(before), _lines(added))
    marks = zip(lines, ranks.to_pylist(), flags.to_pylist(), strict=True)
    marked = ({**row, "rank": rank, "added": is_new} for row, rank, is_new in marks)
    write_jsonl(marked, directory / "merged.jsonl")
    return {"merged": len(merged), "before": len(first), "added": len(second)}


def _lines(subset: Path) -> Iterator[dict[str, Any]]:
    """The rows of a subset from the JSON lines beside it, each with the keys that it came with."""
    with open(storage.fetch(subset.with_suffix(".jsonl")), encoding="utf-8") as file:
        yield from map(json.loads, file)


def _chunks(column: pa.ChunkedArray | pa.Array) -> list[pa.Array]:
    return column.chunks if isinstance(column, pa.ChunkedArray) else [column]


def _concatenated(tables: list[pa.Table]) -> pa.Table:
    """One table; a column of two types gets one that holds the values of both."""
    first, second = tables
    common = common_types([first.schema, second.schema]).names
    for name in set(first.column_names) & set(second.column_names) - set(common):
        values = values_of(first[name]) + values_of(second[name])
        both = column_of(json.loads(extra_as_json({name: values}))[name])
        first = _replaced(first, name, both.slice(0, len(first)))
        second = _replaced(second, name, both.slice(len(first)))
    return pa.concat_tables([first, second], promote_options="permissive")


def _replaced(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


STAGE = Stage(
    name="merge",
    directory="8-merged",
    run=run,
    settings=(),
    reads=("previous", "select"),
    version=1,
)
