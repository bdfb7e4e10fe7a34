"""The files that a selection leaves for people and trainers: the ranking, and the rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.artifacts.files import atomic_path
from engine.artifacts.rows import TableParts
from engine.artifacts.run_directory import Artifact
from engine.kernels.arrays import FloatArray
from engine.selection.select import Selection

__all__ = ["RANKING_COLUMNS", "write_jsonl", "write_parquet", "write_ranking", "write_subset"]

RANKING_COLUMNS = (
    "rank int64 from 1, row int64 of the candidates, id, gain float64 of the objective, "
    "round int64 (0: added nothing), mean_influence float32 in teacher units"
)


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
    """Write NAME.parquet and NAME.jsonl: all columns of the input, and those of the ranking."""
    subset = _restored(rows)
    for column in ("rank", "gain", "mean_influence"):
        if column in subset.column_names:  # never overwrite a column of the user's
            subset = subset.rename_columns(
                [f"{c}_of_input" if c == column else c for c in subset.column_names]
            )
        subset = subset.append_column(column, ranking[column])
    write_parquet(subset, directory / f"{name}.parquet")
    write_jsonl(subset, directory / f"{name}.jsonl")


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table, atomically."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def write_jsonl(table: pa.Table, path: Path) -> None:
    """Write a table as JSON lines, atomically."""
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="\n") as file,
    ):
        for batch in table.to_batches(max_chunksize=4096):
            for row in batch.to_pylist():
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _restored(rows: pa.Table) -> pa.Table:
    """The rows as the user gave them: our text columns, and the extra columns out of their JSON."""
    table = rows.select(["id", "instruction", "input", "output"])
    extras = [json.loads(text) for text in rows["extra"].to_pylist()]
    names = list(dict.fromkeys(name for extra in extras for name in extra))
    for name in names:
        values = [extra.get(name) for extra in extras]
        if name in table.column_names:  # chat rows, which have no instruction of their own
            if not any(values):
                continue
            name = f"{name}_of_input"
        try:
            column = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # no common type: as JSON text
            texts = (None if value is None else json.dumps(value) for value in values)
            column = pa.array(list(texts), type=pa.string())
        table = table.append_column(name, column)
    return table
