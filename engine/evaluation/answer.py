"""Answer: every cell's model writes an answer to every test row, and is asked how likely the
reference is.

In context, a row is answered behind the k rows of the subset whose embeddings are nearest to that
of its prompt; a trained model is asked the bare prompt. What goes through the model together is a
slice of the test set, sorted by length. Cells that come to the same prompts or adapters share one
piece of work: a teacher that picks the same rows under two seeds is asked once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.artifacts.files import (
    atomic_path,
    digest,
    load_array,
    read_json,
    save_array,
    write_json,
)
from engine.artifacts.parts import Part, finish_part, total_usage
from engine.artifacts.rows import TableParts, VectorParts
from engine.artifacts.run_directory import Artifact
from engine.config import Config, EvaluationConfig
from engine.evaluation.cells import Cell, Method, subset_rows
from engine.evaluation.fine_tune import trained_model
from engine.evaluation.prompts import TEMPLATE_VERSION, PromptBuilder
from engine.example import Example
from engine.kernels.arrays import FloatArray, IndexArray
from engine.models.encoder import Encoder
from engine.models.generating_model import GeneratingModel, Sampling
from engine.models.resolve import model_identity
from engine.runtime.executor import Partition, PartitionWorker
from engine.runtime.stage import StageContext, StageResult

__all__ = ["AnswerWorker", "nearest_rows", "run"]

CODE_VERSION = 1
ROWS_PER_PART = 64
QUERIES = "queries.npy"
_ANSWERS = pa.schema(
    [
        ("id", pa.string()),
        ("answer", pa.string()),
        ("log_likelihood", pa.float32()),
        ("shown", pa.int32()),
        ("problem", pa.string()),
    ]
)


def run(context: StageContext, cells: Sequence[Cell]) -> StageResult:
    """Answers of all cells; `cells.json` names the files of each."""
    config, root = context.config, context.directory
    settings = config.evaluation
    assert settings is not None
    inputs = dict(context.inputs)
    if "icl" in settings.methods:
        context.executor.call(
            _embed_queries, config, inputs, root, threads=config.embedding.model.threads
        )
    found: dict[str, list[dict[str, Any]]] = {}
    parts: dict[str, Part] = {}
    for method in settings.methods:
        mine = [cell for cell in cells if cell.method == method]
        pieces = context.executor.call(_plan, config, inputs, root, mine)
        found |= pieces
        payloads = {p["path"]: p for piece in pieces.values() for p in piece}
        partitions = [
            Partition(path, payload["rows"], {k: v for k, v in payload.items() if k != "path"})
            for path, payload in payloads.items()
        ]
        made = context.executor.map(
            partitions,
            root,
            AnswerWorker,
            {"settings": settings, "method": method, "inputs": inputs, "root": root},
            label=f"answer, {method}",
            unit="rows",
            execution=settings.execution,
            threads=settings.model.threads,
        )
        parts |= {part.path: part for part in made}
    files = {name: [piece["path"] for piece in pieces] for name, pieces in found.items()}
    write_json(root / "cells.json", files)
    usage = total_usage(list(parts.values()))
    return StageResult(
        parts={
            "answers": [parts[path] for path in sorted(parts)],
            "cells": [finish_part(root, root / "cells.json", len(files))],
        },
        counts={
            "cells": len(cells),
            "answers": sum(part.rows for part in parts.values()),
            "unanswered": int(usage.get("problems", 0)),
        },
        usage=usage,
        columns={
            "answer": "what the model wrote",
            "log_likelihood": "float32, mean log-probability of the reference's tokens, its end "
            "included, in nats",
            "shown": "examples in the prompt",
            "problem": "why the row could not be asked, or null",
        },
        models={"model": model_identity(settings.model)},
    )


def _embed_queries(config: Config, inputs: Mapping[str, Artifact], root: Path) -> None:
    """Embeddings (n, D) of the test prompts, by the encoder of the candidates."""
    rows = TableParts(inputs["test"], "candidates")
    examples = rows.examples(np.arange(len(rows)))
    encoder = Encoder(config.embedding.model, config.embedding.max_tokens)
    texts = [example.prompt for example in examples]
    save_array(root / QUERIES, encoder.encode(texts, config.embedding.batch_size).vectors)


def _plan(
    config: Config, inputs: Mapping[str, Artifact], root: Path, cells: Sequence[Cell]
) -> dict[str, list[dict[str, Any]]]:
    """The pieces of work of each cell, by its name; equal ones have equal paths."""
    settings = config.evaluation
    assert settings is not None
    tuned = inputs["fine-tune"]
    adapters = read_json(tuned.path("cells"))
    model, num_test = settings.model, len(TableParts(inputs["test"], "candidates"))
    recipe = [CODE_VERSION, TEMPLATE_VERSION, model_identity(model), model.dtype, model.threads]
    recipe += [settings.prompt_style, settings.max_tokens, settings.max_new_tokens]
    recipe += [settings.batch_size, settings.sampling, inputs["test"].fingerprint]
    pieces: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        what: list[Any] = [cell.method]
        payload: dict[str, Any] = {}
        if cell.method == "qlora":
            adapter = adapters.get(cell.name)
            payload["adapter"] = None if adapter is None else str(tuned.directory / adapter)
            what += [adapter, settings.qlora.quantization]
        else:
            payload["subset"] = cell.subset
            what += [settings.instruction, settings.num_examples, inputs["embed"].fingerprint]
            what += [subset_rows(inputs, cell.subset).tolist()]
        if settings.sampling != "greedy":
            what.append(cell.seed)
        payload["seed"] = cell.seed
        key = digest(recipe, what)
        pieces[cell.name] = [
            {
                "path": f"answers/{key}-{start:06d}.parquet",
                "start": start,
                "rows": min(ROWS_PER_PART, num_test - start),
                **payload,
            }
            for start in range(0, num_test, ROWS_PER_PART)
        ]
    return pieces


# --- in an actor ---------------------------------------------------------------------------------


class AnswerWorker(PartitionWorker):
    """Answers a slice of the test set for one cell; holds one model, whose adapters it changes."""

    def __init__(
        self, settings: EvaluationConfig, method: Method, inputs: dict[str, Artifact], root: Path
    ) -> None:
        self._settings, self._method, self._inputs = settings, method, inputs
        self._root = root
        config = settings.model if method == "icl" else trained_model(settings)
        self._model = GeneratingModel(config)
        self._prompts = PromptBuilder(self._model, settings.prompt_style, settings.instruction)
        self._limit = min(settings.max_tokens, self._model.context_size)

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        settings = self._settings
        numbers = np.arange(payload["start"], payload["start"] + payload["rows"])
        queries = TableParts(self._inputs["test"], "candidates").examples(numbers)
        if self._method == "qlora":
            adapter = payload["adapter"]
            self._model.load_adapter(None if adapter is None else Path(adapter))
        shown = self._shown(payload["subset"], numbers) if self._method == "icl" else None
        asked: list[int] = []
        prompts: list[list[int]] = []
        responses: list[list[int]] = []
        columns: dict[str, list[Any]] = {
            "id": [query.id for query in queries],
            "answer": [None] * len(queries),
            "log_likelihood": [float("nan")] * len(queries),
            "shown": [0] * len(queries),
            "problem": [None] * len(queries),
        }
        for i, query in enumerate(queries):
            response = self._prompts.response(query)
            room = self._limit - max(len(response), settings.max_new_tokens)
            built = self._prompts.with_examples(query, [] if shown is None else shown[i], room)
            if built is None:  # the same rows in every cell, whatever it shows
                columns["problem"][i] = f"does not fit into {self._limit} tokens"
                continue
            asked.append(i)
            columns["shown"][i] = built.shown
            prompts.append(self._prompts.bare(query) if shown is None else built.ids)
            responses.append(response)
        sampling = None if settings.sampling == "greedy" else Sampling(payload["seed"])
        answers, likely = self._model.answer(
            prompts,
            responses,
            settings.max_new_tokens,
            settings.batch_size,
            self._prompts.stop,
            sampling,
        )
        for i, answer, probabilities in zip(asked, answers, likely.values, strict=True):
            columns["answer"][i] = answer
            tiny = np.finfo(np.float32).tiny
            columns["log_likelihood"][i] = float(np.log(np.maximum(probabilities, tiny)).mean())
        with atomic_path(path) as temporary:
            pq.write_table(pa.table(columns, schema=_ANSWERS), temporary)
        return len(queries), {
            "calls": float(len(asked)),
            "tokens": float(likely.num_tokens),
            "problems": float(len(queries) - len(asked)),
        }

    def _shown(self, subset: str | None, numbers: IndexArray) -> list[list[Example]]:
        """Examples for each test row, the most similar first."""
        if subset is None:
            return [[] for _ in numbers]
        rows = subset_rows(self._inputs, subset)
        queries = load_array(self._root / QUERIES)[numbers]
        vectors = VectorParts(self._inputs["embed"], "candidates")
        nearest = nearest_rows(queries, vectors, rows, self._settings.num_examples)
        wanted, place = np.unique(nearest, return_inverse=True)
        examples = TableParts(self._inputs["ingest"], "candidates").examples(wanted)
        return [[examples[i] for i in line] for line in place.reshape(nearest.shape)]


def nearest_rows(queries: FloatArray, vectors: VectorParts, rows: IndexArray, k: int) -> IndexArray:
    """For each query (n, D) the k rows, out of some, with the highest cosine, best first.

    Returns (n, min(k, len(rows))) row numbers; equal cosines go by row. Cost n x len(rows) x D,
    memory one block of rows.
    """
    k = min(k, len(rows))
    best = np.full((len(queries), 0), -np.inf, np.float32)
    ids = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(rows), 4096):
        block = rows[start : start + 4096]
        cosines = queries @ vectors.take(block).T
        best = np.concatenate([best, cosines], axis=1)
        ids = np.concatenate([ids, np.broadcast_to(block, cosines.shape)], axis=1)
        order = np.lexsort((ids, -best), axis=1)[:, :k]
        best, ids = np.take_along_axis(best, order, 1), np.take_along_axis(ids, order, 1)
    return ids
