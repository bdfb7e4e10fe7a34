"""Embed: what students read of every row, one part per part of the corpus.

The data text, and where `features` say so prompt and response alone, through the sentence encoder;
with states or losses every row through the teacher's language model. Batches are made inside a
part, sorted by length, so vectors depend on the data, the model and the batch size alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.artifacts.files import atomic_path, digest, load_array, read_table, save_array
from engine.artifacts.parts import Part, finish_part, total_usage
from engine.artifacts.rows import EXAMPLE_COLUMNS, TableParts
from engine.artifacts.run_directory import Artifact
from engine.config import Config, ModelConfig, TeacherConfig
from engine.example import ANSWER_MARK, Example
from engine.features.feature import sources_of, text_lengths
from engine.features.rows import group_of
from engine.kernels.arrays import FloatArray
from engine.models.encoder import Encoder
from engine.models.language_model import LanguageModel
from engine.models.prompt_tokenizer import TrainingRow, tokenised_row
from engine.models.resolve import model_identity
from engine.runtime.crashes import CRASHED
from engine.runtime.executor import Partition, PartitionWorker
from engine.runtime.stage import Stage, StageContext, StageResult

__all__ = ["STAGE", "identity", "run"]

SIDES = ("candidates", "targets", "owned")
CODE_VERSION = 1  # raise it when the same settings would give other vectors


class EmbedWorker(PartitionWorker):
    """Embeds one source of one part of the corpus into an .npy file of (rows, D) float32."""

    def __init__(self, model: ModelConfig, max_tokens: int | None, batch_size: int) -> None:
        self._encoder = Encoder(model, max_tokens)
        self._batch_size = batch_size

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        examples = _examples(payload)
        if payload["source"] == "length":
            save_array(path, text_lengths(examples))
            return len(examples), {}
        left_out = payload.get("left_out", [])
        rows = np.delete(np.arange(len(examples)), left_out)
        texts = [_TEXTS[payload["source"]](examples[row]) for row in rows]
        encoded = self._encoder.encode(texts, self._batch_size)
        vectors = np.zeros((len(examples), self._encoder.dim), np.float32)
        vectors[rows] = encoded.vectors
        save_array(path, vectors)
        usage = {"tokens": encoded.num_tokens, "truncated": encoded.num_truncated}
        return len(examples), {name: float(value) for name, value in usage.items()}

    def num_rows(self, payload: Mapping[str, Any]) -> int:
        return int(payload["rows"])

    def try_row(self, payload: Mapping[str, Any], row: int) -> None:
        example = _examples(payload)[row]
        self._encoder.encode([_TEXTS[payload["source"]](example)], self._batch_size)


class ReadingWorker(PartitionWorker):
    """Writes what the teacher's language model makes of rows: states and losses, (rows, H + 2).

    Zeros for a row without a response that it can read.
    """

    def __init__(self, teacher: TeacherConfig) -> None:
        self._model = LanguageModel(teacher.model)
        self._limit = min(teacher.max_tokens, self._model.context_size)
        self._batch_size = teacher.batch_size

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        examples = _examples(payload)
        left_out = payload.get("left_out", [])
        rows = [row for row in range(len(examples)) if row not in left_out]
        reading, tokens = self.read([examples[row] for row in rows])
        values = np.zeros((len(examples), reading.shape[1]), np.float32)
        values[rows] = reading
        save_array(path, values)
        return len(examples), {"tokens": float(tokens), "calls": 2.0 * len(rows)}

    def read(self, examples: list[Example]) -> tuple[FloatArray, int]:
        """States and losses (n, H + 2) of rows, and the tokens that they took."""
        tokenizer = self._model.tokenizer
        found = np.zeros((len(examples), self._model.state_size + 2), np.float32)
        asked: dict[int, TrainingRow] = {}
        for position, example in enumerate(examples):
            row, _ = tokenised_row(tokenizer, self._limit, example, cut_response=True)
            if isinstance(row, TrainingRow):
                asked[position] = row
        # the response alone, behind what every prompt ends with
        head = [] if tokenizer.bos is None else [tokenizer.bos]
        mark = [*head, *tokenizer.tokenize("\n" + ANSWER_MARK.rstrip())]
        alone = [TrainingRow(mark, row.response) for row in asked.values()]
        whole = self._model.read_rows(list(asked.values()), self._batch_size, True)
        short = self._model.read_rows(alone, self._batch_size, True)
        places = list(asked)
        found[places, :-2] = whole.states
        found[places, -2], found[places, -1] = whole.losses, short.losses
        return np.nan_to_num(found), whole.num_tokens + short.num_tokens

    def num_rows(self, payload: Mapping[str, Any]) -> int:
        return int(payload["rows"])

    def try_row(self, payload: Mapping[str, Any], row: int) -> None:
        self.read(_examples(payload)[row : row + 1])


_TEXTS: dict[str, Callable[[Example], str]] = {
    "text": lambda example: example.text,
    "prompt": lambda example: example.prompt,
    "response": lambda example: example.output,
}


def _examples(payload: Mapping[str, Any]) -> list[Example]:
    table = read_table(Path(payload["corpus_part"]), columns=list(EXAMPLE_COLUMNS))
    return [Example(**row) for row in table.to_pylist()]


def identity(config: Config) -> dict[str, str]:
    """The models by their content, and what the language model is told."""
    found = {"encoder": model_identity(config.embedding.model)}
    if _reads_rows(config):
        found["reading"] = _reading_recipe(config)
    return found


def _reads_rows(config: Config) -> bool:
    return "reading" in sources_of(config.features)


def _reading_recipe(config: Config) -> str:
    teacher = config.teacher
    model = teacher.model
    asked = [model_identity(model), model.dtype, model.quantization, model.threads]
    return digest([CODE_VERSION, *asked, teacher.max_tokens, teacher.batch_size])


def run(context: StageContext) -> StageResult:
    """Embed all sides; a part that an earlier run or another target set left is kept."""
    config, settings = context.config, context.config.embedding
    encoder = model_identity(settings.model)
    partitions = _partitions(context.inputs["ingest"], config, encoder)
    read = {group: some for group, some in partitions.items() if group.endswith("-reading")}
    embedded = {group: some for group, some in partitions.items() if group not in read}
    groups = _grouped(
        embedded,
        context.executor.map(
            [partition for group in embedded.values() for partition in group],
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
        ),
    )
    if read:
        groups |= _grouped(
            read,
            context.executor.map(
                [partition for group in read.values() for partition in group],
                context.directory,
                ReadingWorker,
                {"teacher": config.teacher},
                label="embed, language model",
                unit="rows",
                execution=config.teacher.execution,
                threads=config.teacher.model.threads,
            ),
        )
    usage = total_usage([part for group in groups.values() for part in group])
    first = groups["candidates"][0]
    dim = int(load_array(context.directory / first.path, mmap_mode="r").shape[1])
    sides = [side for side in SIDES if side in groups]
    num_rows = {side: sum(part.rows for part in groups[side]) for side in sides}
    crashing = {side: _crashing(groups, side) for side in sides}
    if any(any(rows) for rows in crashing.values()):
        path = context.directory / "quarantine.parquet"
        num = context.executor.call(_write_quarantine, context.inputs["ingest"], crashing, path)
        groups["quarantine"] = [finish_part(context.directory, path, num)]
    return StageResult(
        parts=groups,
        counts={
            **num_rows,
            "dim": dim,
            "features": list(config.features),
            "truncated": int(usage["truncated"]),
            "crashing": sum(len(rows) for parts in crashing.values() for rows in parts),
        },
        usage=usage,
        columns={
            "SIDE/*.npy": f"float32 (rows, {dim}), L2-normalised embedding of the text, rows in "
            "corpus order; 0 for rows that crash a model: `left_out` of their part, and "
            "quarantine.parquet",
            "SIDE-prompt, SIDE-response": "the same of prompt and response alone",
            "SIDE-length": "float32 (rows, 2), log(1 + characters) of prompt and response",
            "SIDE-reading": "float32 (rows, H + 2): mean last hidden state, loss of the response "
            "with and without its prompt, in nats",
        },
        models={"encoder": encoder},
    )


def _grouped(partitions: dict[str, list[Partition]], parts: list[Part]) -> dict[str, list[Part]]:
    """The parts by group again."""
    groups: dict[str, list[Part]] = {}
    for name, group in partitions.items():
        groups[name], parts = parts[: len(group)], parts[len(group) :]
    return groups


def _crashing(groups: dict[str, list[Part]], side: str) -> list[list[int]]:
    """Positions of the rows of each part that crash a model, whatever is read of them."""
    own = [group for name, group in groups.items() if name.partition("-")[0] == side]
    return [
        sorted({row for part in parts for row in part.left_out}) for parts in zip(*own, strict=True)
    ]


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


def _partitions(corpus: Artifact, config: Config, encoder: str) -> dict[str, list[Partition]]:
    settings = config.embedding
    recipe = [CODE_VERSION, encoder, settings.model.dtype, settings.model.threads]
    recipe += [settings.max_tokens, settings.batch_size]
    sides = [side for side in SIDES if side in corpus.manifest["parts"]]
    reading = _reading_recipe(config) if _reads_rows(config) else ""
    recipes = {"length": [CODE_VERSION], "reading": [reading]}
    return {
        group_of(side, source): [
            Partition(
                path=f"{group_of(side, source)}/part-{number:05d}-"
                f"{digest(recipes.get(source, recipe), part.sha256)}.npy",
                units=part.rows,
                payload={
                    "corpus_part": str(corpus.directory / part.path),
                    "rows": part.rows,
                    "source": source,
                },
            )
            for number, part in enumerate(corpus.parts(side))
        ]
        for side in sides
        for source in sources_of(config.features)
    }


STAGE = Stage(
    name="embed",
    directory="2-embeddings",
    run=run,
    settings=("embedding", "features"),
    reads=("ingest",),
    version=2,
    identity=identity,
)
