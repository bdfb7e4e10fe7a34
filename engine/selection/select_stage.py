"""Select: greedy over the predicted influence, then the subset with all columns of its rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import scipy.sparse
from numpy.typing import NDArray

from engine.actors import run_task
from engine.artifact_rows import TableParts
from engine.config import Config
from engine.errors import SettingsError
from engine.kernels.arrays import FloatArray
from engine.run_directory import Artifact, atomic_path, finish_part
from engine.selection.select import Selection, select
from engine.stage import StageContext, StageResult

__all__ = ["num_to_select", "run"]


def num_to_select(budget: int | float, num_candidates: int) -> int:
    """Rows that a budget means: a share is rounded and is at least one row."""
    count = budget if isinstance(budget, int) else max(1, round(budget * num_candidates))
    if count > num_candidates:
        raise SettingsError(
            f"selection.budget asks for {count} rows, the corpus has {num_candidates} usable ones"
        )
    return count


def run(context: StageContext) -> StageResult:
    """Rank in a worker and write ranking.parquet, subset.parquet and subset.jsonl."""
    counts = run_task(_select_and_write, context.config, dict(context.inputs), context.directory)
    names = {"ranking": "ranking.parquet", "subset": "subset.parquet", "jsonl": "subset.jsonl"}
    parts = {
        group: [finish_part(context.directory, context.directory / name, counts["selected"])]
        for group, name in names.items()
    }
    return StageResult(
        parts=parts,
        counts=counts,
        columns={
            "ranking.parquet": "rank int64 from 1, row int64 of the candidates, id, "
            "gain float64 of the objective, mean_influence float32 in teacher units",
            "subset.*": "every column of the input rows, and rank, gain, mean_influence",
        },
    )


def _select_and_write(
    config: Config, inputs: dict[str, Artifact], directory: Path
) -> dict[str, Any]:
    influence = inputs["predict"]
    means: FloatArray = np.load(influence.path("means"), allow_pickle=False)
    settings = config.selection
    selection = select(
        _kernel(influence, _scaling(config, inputs["score"]), len(means)),
        num_to_select(settings.budget, len(means)),
        config.objective,
        seed=config.seed,
        zero_gain_tail=settings.zero_gain_tail,
        mean_influence=means,
    )
    _write(selection, means, inputs["ingest"], directory)
    tail_from = selection.zero_gain_from
    count = len(selection.ranking)
    return {
        "selected": count,
        "candidates": len(means),
        "objective": config.objective,
        "objective_value": float(selection.objective_value),
        "zero_gain_picks": 0 if tail_from is None else count - tail_from,
        "mean_influence_selected": float(means[selection.ranking].mean()),
        "mean_influence_all": float(means.mean()),
    }


# --- the kernel ----------------------------------------------------------------------------------


def _scaling(config: Config, score: Artifact) -> tuple[float, float]:
    """(low, high) that become 0 and 1: fitted on the training labels, so it is frozen with them."""
    if config.selection.scaling == "none":
        return 0.0, 1.0
    labels = pq.read_table(score.path("labels"), columns=["score", "quadrant"])
    scores = labels["score"].to_numpy()[labels["quadrant"].to_numpy() == 0]
    scores = scores[np.isfinite(scores)]
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)
    if config.selection.scaling == "clip0":
        low = 0.0
    return low, high if high > low else low + 1.0


def _kernel(
    influence: Artifact, scaling: tuple[float, float], num_candidates: int
) -> FloatArray | scipy.sparse.csr_array:
    """How well each candidate covers each target, (N, M), scaled and cut at 0."""
    if influence.counts["kernel"] == "dense":
        return _dense_kernel(influence, scaling, num_candidates)
    return _sparse_kernel(influence, scaling, num_candidates)


def _scaled(values: FloatArray, scaling: tuple[float, float]) -> FloatArray:
    low, high = scaling
    out: FloatArray = np.maximum((values - np.float32(low)) / np.float32(high - low), 0)
    return out


def _dense_kernel(
    influence: Artifact, scaling: tuple[float, float], num_candidates: int
) -> FloatArray:
    # (M, N) in memory, handed on as its transpose: the greedy reads whole columns of the kernel
    out = np.empty((num_candidates, influence.counts["targets"]), dtype=np.float32)
    start = 0
    for part in influence.parts("dense"):
        block = np.load(influence.directory / part.path, mmap_mode="r", allow_pickle=False)
        out[start : start + len(block)] = _scaled(block, scaling)
        start += len(block)
    kernel: FloatArray = out.T
    return kernel


def _sparse_kernel(
    influence: Artifact, scaling: tuple[float, float], num_candidates: int
) -> scipy.sparse.csr_array:
    ids, values = [], []
    for part in influence.parts("neighbours"):
        table = pyarrow.feather.read_table(influence.directory / part.path, memory_map=True)
        ids.append(_matrix(table["ids"]))
        values.append(_scaled(_matrix(table["influence"]), scaling))
    columns, data = np.concatenate(ids), np.concatenate(values)
    num_targets, per_row = columns.shape
    starts = np.arange(num_targets + 1, dtype=np.int64) * per_row
    shape = (num_targets, num_candidates)
    return scipy.sparse.csr_array((data.ravel(), columns.ravel(), starts), shape=shape)


def _matrix(column: pa.ChunkedArray) -> NDArray[Any]:
    width = column.type.list_size
    pieces = [chunk.flatten().to_numpy().reshape(-1, width) for chunk in column.chunks]
    return np.concatenate(pieces)


# --- the files -----------------------------------------------------------------------------------


def _write(selection: Selection, means: FloatArray, corpus: Artifact, directory: Path) -> None:
    rows = TableParts(corpus, "candidates").take(selection.ranking)
    measured = {
        "rank": pa.array(np.arange(1, len(rows) + 1)),
        "gain": pa.array(selection.gains),
        "mean_influence": pa.array(means[selection.ranking]),
    }
    ranking = pa.table({"row": selection.ranking, "id": rows["id"], **measured})
    order = ["rank", "row", "id", "gain", "mean_influence"]
    _write_parquet(ranking.select(order), directory / "ranking.parquet")
    subset = _restored(rows)
    for name, values in measured.items():
        if name in subset.column_names:  # never overwrite a column of the user's
            subset = subset.rename_columns(
                [f"{c}_of_input" if c == name else c for c in subset.column_names]
            )
        subset = subset.append_column(name, values)
    _write_parquet(subset, directory / "subset.parquet")
    with (
        atomic_path(directory / "subset.jsonl") as temporary,
        open(temporary, "w", encoding="utf-8", newline="\n") as file,
    ):
        for batch in subset.to_batches(max_chunksize=4096):
            for row in batch.to_pylist():
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_parquet(table: pa.Table, path: Path) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def _restored(rows: pa.Table) -> pa.Table:
    """The rows as the user gave them: our text columns, and the extra columns out of their JSON."""
    table = rows.select(["id", "instruction", "input", "output"])
    extras = [json.loads(text) for text in rows["extra"].to_pylist()]
    names = list(dict.fromkeys(name for extra in extras for name in extra))
    for name in names:
        values = [extra.get(name) for extra in extras]
        try:
            column = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # no common type: as JSON text
            texts = (None if value is None else json.dumps(value) for value in values)
            column = pa.array(list(texts), type=pa.string())
        table = table.append_column(name, column)
    return table
