"""Embed: every row's data text through the sentence encoder, one part per part of the corpus.

The encoder's batches are made inside a part, sorted by length, so vectors depend on the data, the
encoder and the batch size alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.actors import Partition, PartitionWorker, run_partitions
from engine.artifact_rows import EXAMPLE_COLUMNS, TableParts
from engine.cluster import run_task
from engine.config import Config, EmbeddingConfig, ModelConfig
from engine.crashes import CRASHED
from engine.example import Example
from engine.models.encoder import Encoder
from engine.models.resolve import model_identity
from engine.run_directory import (
    Artifact,
    Part,
    atomic_path,
    digest,
    finish_part,
    load_array,
    read_table,
    save_array,
    total_usage,
)
from engine.stage import StageContext, StageResult

__all__ = ["identity", "run"]

CODE_VERSION = 1  # raise it when the same settings would give other vectors


class EmbedWorker(PartitionWorker):
    """Embeds one part of the corpus into an .npy file of (rows, D) float32."""

    def __init__(self, model: ModelConfig, max_tokens: int | None, batch_size: int) -> None:
        self._encoder = Encoder(model, max_tokens)
        self._batch_size = batch_size

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        texts = _texts(payload)
        left_out = payload.get("left_out", [])
        rows = np.delete(np.arange(len(texts)), left_out)
        encoded = self._encoder.encode([texts[row] for row in rows], self._batch_size)
        vectors = np.zeros((len(texts), self._encoder.dim), np.float32)
        vectors[rows] = encoded.vectors
        save_array(path, vectors)
        usage = {"tokens": encoded.num_tokens, "truncated": encoded.num_truncated}
        return len(texts), {name: float(value) for name, value in usage.items()}

    def num_rows(self, payload: Mapping[str, Any]) -> int:
        return int(payload["rows"])

    def try_row(self, payload: Mapping[str, Any], row: int) -> None:
        self._encoder.encode(_texts(payload)[row : row + 1], self._batch_size)


def _texts(payload: Mapping[str, Any]) -> list[str]:
    table = read_table(Path(payload["corpus_part"]), columns=list(EXAMPLE_COLUMNS))
    return [Example(**row).text for row in table.to_pylist()]


def identity(config: Config) -> dict[str, str]:
    """The encoder by its content."""
    return {"encoder": model_identity(config.embedding.model)}


def run(context: StageContext) -> StageResult:
    """Embed all sides; a part that an earlier run or another target set left is kept."""
    settings = context.config.embedding
    encoder = model_identity(settings.model)
    partitions = _partitions(context.inputs["ingest"], settings, encoder)
    parts = run_partitions(
        [partition for group in partitions.values() for partition in group],
        context.directory,
        EmbedWorker,
        {
            "model": settings.model,
            "max_tokens": settings.max_tokens,
            "batch_size": settings.batch_size,
        },
        label="embed",
        unit="rows",
        execution=settings.execution,
        threads=settings.model.threads,
    )
    usage = total_usage(parts)
    dim = int(load_array(context.directory / parts[0].path, mmap_mode="r").shape[1])
    groups: dict[str, list[Part]] = {}
    for side, group in partitions.items():
        groups[side], parts = parts[: len(group)], parts[len(group) :]
    num_rows = {side: sum(part.rows for part in group) for side, group in groups.items()}
    crashing = {side: [part.left_out for part in group] for side, group in groups.items()}
    if any(any(rows) for rows in crashing.values()):
        path = context.directory / "quarantine.parquet"
        num = run_task(_write_quarantine, context.inputs["ingest"], crashing, path)
        groups["quarantine"] = [finish_part(context.directory, path, num)]
    return StageResult(
        parts=groups,
        counts={
            **num_rows,
            "dim": dim,
            "truncated": int(usage["truncated"]),
            "crashing": sum(len(rows) for parts in crashing.values() for rows in parts),
        },
        usage=usage,
        columns={
            "*.npy": f"float32 (rows, {dim}), L2-normalised, rows in corpus order; 0 for rows "
            "that crash the encoder: `left_out` of their part, and quarantine.parquet"
        },
        models={"encoder": encoder},
    )


def _write_quarantine(corpus: Artifact, crashing: dict[str, list[list[int]]], path: Path) -> int:
    """The rows that are left out, by side, file and line."""
    tables = []
    for side, parts in crashing.items():
        rows = TableParts(corpus, side)
        for number, positions in enumerate(parts):
            if positions:
                found = rows.read_part(number, ["file", "line", "id"]).take(positions)
                for name, value in (("side", side), ("reason", f"embed: {CRASHED}")):
                    found = found.append_column(name, pa.array([value] * len(found)))
                tables.append(found)
    table = pa.concat_tables(tables)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
    return len(table)


def _partitions(
    corpus: Artifact, settings: EmbeddingConfig, encoder: str
) -> dict[str, list[Partition]]:
    recipe = [CODE_VERSION, encoder, settings.model.dtype, settings.model.threads]
    recipe += [settings.max_tokens, settings.batch_size]
    sides = [s for s in ("candidates", "targets", "owned") if s in corpus.manifest["parts"]]
    return {
        side: [
            Partition(
                path=f"{side}/part-{number:05d}-{digest(recipe, part.sha256)}.npy",
                units=part.rows,
                payload={"corpus_part": str(corpus.directory / part.path), "rows": part.rows},
            )
            for number, part in enumerate(corpus.parts(side))
        ]
        for side in sides
    }
