"""Grade: each cell's answers against the references, by words, by meaning, and by a judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.artifacts.files import atomic_path, digest, read_json, read_table, write_json
from engine.artifacts.parts import finish_part, total_usage
from engine.artifacts.rows import TableParts
from engine.artifacts.run_directory import Artifact
from engine.config import Config, EvaluationConfig, ModelConfig
from engine.evaluation.cells import Cell
from engine.evaluation.judge import RUBRIC_VERSION, JudgedRow, grade
from engine.evaluation.metrics import similarity
from engine.evaluation.text_metrics import TEXT_METRICS, added_metrics
from engine.example import Example
from engine.kernels.arrays import FloatArray
from engine.models.encoder import Encoder
from engine.models.generating_model import GeneratingModel
from engine.models.resolve import model_identity
from engine.runtime.executor import Partition, PartitionWorker
from engine.runtime.stage import StageContext, StageResult

__all__ = ["GradeWorker", "run", "similarity_model"]

CODE_VERSION = 1
_SHUFFLE_SEED = 0  # of the floor: the same other references for every cell
_GRADES = pa.schema(
    [
        ("id", pa.string()),
        ("answer", pa.string()),
        *((name, pa.float32()) for name in TEXT_METRICS),
        ("similarity", pa.float32()),
        ("similarity_floor", pa.float32()),
        ("judge", pa.float32()),
        ("log_likelihood", pa.float32()),
    ]
)


def similarity_model(config: Config) -> ModelConfig:
    """The encoder of the similarity metric."""
    assert config.evaluation is not None
    return config.evaluation.similarity_model or config.embedding.model


def run(context: StageContext, cells: Sequence[Cell]) -> StageResult:
    """Grade each distinct set of answers once; `cells.json` names the file of each cell."""
    config, root = context.config, context.directory
    settings = config.evaluation
    assert settings is not None
    answered = context.inputs["answer"]
    answers = read_json(answered.path("cells"))
    encoder = similarity_model(config)
    judge = settings.judge
    recipe: list[Any] = [CODE_VERSION, model_identity(encoder), encoder.dtype, *added_metrics()]
    if judge is not None:
        recipe += [judge.model_dump(mode="json"), model_identity(judge.model), RUBRIC_VERSION]
    sha256 = {part.path: part.sha256 for part in answered.parts("answers")}
    num_test = context.inputs["test"].counts["candidates"]
    partitions: dict[str, Partition] = {}
    files: dict[str, str] = {}
    for cell in cells:
        mine = answers[cell.name]
        path = f"grades/{digest(recipe, [sha256[name] for name in mine])}.parquet"
        files[cell.name] = path
        payload = {"answers": [str(answered.directory / name) for name in mine]}
        partitions[path] = Partition(path, num_test, payload)
    parts = context.executor.map(
        list(partitions.values()),
        root,
        GradeWorker,
        {"settings": settings, "encoder": encoder, "test": context.inputs["test"]},
        label="grade",
        unit="answers",
        execution=settings.execution,
        threads=settings.model.threads,
    )
    write_json(root / "cells.json", files)
    usage = total_usage(parts)
    models = {"similarity": model_identity(encoder)}
    if judge is not None:
        models["judge"] = model_identity(judge.model)
    return StageResult(
        parts={
            "grades": parts,
            "cells": [finish_part(root, root / "cells.json", len(files))],
        },
        counts={
            "graded": sum(part.rows for part in parts),
            "judged": int(usage.get("judged", 0)),
            "unparsed_grades": int(usage.get("unparsed", 0)),
            "rubric": RUBRIC_VERSION,
        },
        usage=usage,
        columns={
            **{name: f"float32, {metric.unit}" for name, metric in TEXT_METRICS.items()},
            "similarity": "float32, cosine of the embeddings x 100",
            "similarity_floor": "float32, the same with the reference of another row",
            "judge": "float32, 1..5; NaN where not asked or not parsed",
            "log_likelihood": "float32, mean log-probability of the reference's tokens, nats",
        },
        models=models,
    )


class GradeWorker(PartitionWorker):
    """Grades all answers of a cell; loads the judge at its first use."""

    def __init__(self, settings: EvaluationConfig, encoder: ModelConfig, test: Artifact) -> None:
        self._encoder = Encoder(encoder)
        self._settings, self._test = settings, test
        self._judge: GeneratingModel | None = None

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        table = pa.concat_tables([read_table(Path(name)) for name in payload["answers"]])
        rows = TableParts(self._test, "candidates")
        examples = rows.examples(np.arange(len(rows)))
        assert [example.id for example in examples] == table["id"].to_pylist()
        answers = table["answer"].to_pylist()
        asked = [i for i, answer in enumerate(answers) if answer is not None]
        written = [answers[i] for i in asked]
        references = [examples[i].output for i in asked]
        columns: dict[str, FloatArray] = {
            name: np.full(len(rows), np.nan, np.float32)
            for name in (*TEXT_METRICS, "similarity", "similarity_floor", "judge")
        }
        usage: dict[str, float] = {}
        if asked:
            for name, metric in TEXT_METRICS.items():
                columns[name][asked] = metric(written, references)
            similar, floor = similarity(self._encoder, written, references, _SHUFFLE_SEED)
            columns["similarity"][asked], columns["similarity_floor"][asked] = similar, floor
            if self._settings.judge is not None:
                usage = self._grade(columns["judge"], asked, examples, written)
        for name, values in columns.items():
            table = table.append_column(name, pa.array(values))
        with atomic_path(path) as temporary:
            pq.write_table(table.select(_GRADES.names).cast(_GRADES), temporary)
        return len(rows), usage

    def _grade(
        self, grades: FloatArray, asked: list[int], examples: list[Example], written: list[str]
    ) -> dict[str, float]:
        """Fill in the judge's grades of the first rows; returns how many were asked and unread."""
        judge = self._settings.judge
        assert judge is not None
        if self._judge is None:
            self._judge = GeneratingModel(judge.model)
        some = [k for k, i in enumerate(asked) if judge.rows is None or i < judge.rows]
        found = grade(
            self._judge,
            [
                JudgedRow(examples[asked[k]].prompt, examples[asked[k]].output, written[k])
                for k in some
            ],
            judge.max_new_tokens,
            judge.batch_size,
            judge.max_tokens,
        )
        grades[[asked[k] for k in some]] = found.values
        return {"judged": float(len(some)), "unparsed": float(found.num_unparsed)}
