"""Embed: every row's data text through the sentence encoder, one part per part of the corpus.

The encoder's batches are made inside a part, sorted by length, so vectors depend on the data, the
encoder and the batch size alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from engine.actors import Partition, PartitionWorker, run_partitions
from engine.artifact_rows import EXAMPLE_COLUMNS
from engine.config import Config, EmbeddingConfig, ModelConfig
from engine.example import Example
from engine.models.encoder import Encoder
from engine.models.resolve import model_identity
from engine.run_directory import Artifact, Part, digest, save_array, total_usage
from engine.stage import StageContext, StageResult

__all__ = ["identity", "run"]

CODE_VERSION = 1  # raise it when the same settings would give other vectors


class EmbedWorker(PartitionWorker):
    """Embeds one part of the corpus into an .npy file of (rows, D) float32."""

    def __init__(self, model: ModelConfig, max_tokens: int | None, batch_size: int) -> None:
        self._encoder = Encoder(model, max_tokens)
        self._batch_size = batch_size

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        table = pq.read_table(payload["corpus_part"], columns=list(EXAMPLE_COLUMNS))
        texts = [Example(**row).text for row in table.to_pylist()]
        encoded = self._encoder.encode(texts, self._batch_size)
        save_array(path, encoded.vectors)
        usage = {"tokens": encoded.num_tokens, "truncated": encoded.num_truncated}
        return len(texts), {name: float(value) for name, value in usage.items()}


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
    dim = int(np.load(context.directory / parts[0].path, mmap_mode="r").shape[1])
    groups: dict[str, list[Part]] = {}
    for side, group in partitions.items():
        groups[side], parts = parts[: len(group)], parts[len(group) :]
    return StageResult(
        parts=groups,
        counts={
            **{side: sum(part.rows for part in group) for side, group in groups.items()},
            "dim": dim,
            "truncated": int(usage["truncated"]),
        },
        usage=usage,
        columns={"*.npy": f"float32 (rows, {dim}), L2-normalised, rows in corpus order"},
        models={"encoder": encoder},
    )


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
                payload={"corpus_part": str(corpus.directory / part.path)},
            )
            for number, part in enumerate(corpus.parts(side))
        ]
        for side in sides
    }
