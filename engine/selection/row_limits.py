"""What a limit of the settings asks of the rows: their tokens, and the group of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.artifacts.files import digest, load_array, read_table, save_array
from engine.artifacts.parts import Part
from engine.artifacts.rows import EXAMPLE_COLUMNS, TableParts, read_extra
from engine.artifacts.run_directory import Artifact
from engine.config import Config, ModelConfig
from engine.errors import SettingsError
from engine.example import Example
from engine.kernels.arrays import IndexArray
from engine.models.resolve import model_identity
from engine.models.token_counter import TokenCounter
from engine.runtime.executor import Executor, Partition, PartitionWorker
from engine.spelling import meant

__all__ = ["count_tokens", "counting_model", "tokens_of", "write_groups"]

CODE_VERSION = 1


class TokenWorker(PartitionWorker):
    """Counts the tokens of one part of the corpus."""

    def __init__(self, model: ModelConfig) -> None:
        self._counter = TokenCounter(model)

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        table = read_table(Path(payload["corpus_part"]), columns=list(EXAMPLE_COLUMNS))
        rows = table.to_pylist()
        counts = self._counter.count([Example(**row).text for row in rows])
        save_array(path, np.array(counts, dtype=np.int64))
        return len(counts), {}


def counting_model(config: Config) -> ModelConfig:
    """The model whose tokens a budget is counted in: the teacher's, or the encoder."""
    return config.teacher.model if config.teacher.model.path else config.embedding.model


def count_tokens(executor: Executor, corpus: Artifact, config: Config, root: Path) -> list[Part]:
    """Tokens of every candidate's data text, (rows,) int64 for each part of the corpus."""
    model = counting_model(config)
    identity = model_identity(model)
    partitions = [
        Partition(
            path=f"tokens/{number:05d}-{digest(CODE_VERSION, identity, part.sha256)}.npy",
            units=part.rows,
            payload={"corpus_part": str(corpus.directory / part.path)},
        )
        for number, part in enumerate(corpus.parts("candidates"))
    ]
    execution = config.selection.execution
    return executor.map(
        partitions,
        root,
        TokenWorker,
        {"model": model},
        label="count tokens",
        unit="rows",
        execution=execution,
    )


def write_groups(
    corpus: Artifact, column: str, path: Path, barred: Sequence[int] = ()
) -> list[str]:
    """The group of each candidate, numbered by name, (M,) int64; returns the names.

    A row without the column is in the group "", and the `barred` rows are in one after all that
    have a name. SettingsError when no row has the column.
    """
    names: list[str] = []
    known: set[str] = set()
    for table in TableParts(corpus, "candidates").iter_parts(["extra"]):
        for text in table["extra"].to_pylist():
            extra = read_extra(text)
            known |= extra.keys()
            value = extra.get(column)
            names.append("" if value is None else str(value))
    if column not in known:
        raise SettingsError(
            f"selection.quotas: the candidates have no column {column!r}; "
            f"they have: {', '.join(sorted(known)) or 'no further columns'}{meant(column, known)}"
        )
    unique, numbers = np.unique(np.array(names), return_inverse=True)
    numbers[list(barred)] = len(unique)
    save_array(path, numbers.astype(np.int64))
    return [str(name) for name in unique.tolist()]


def tokens_of(root: Path, parts: list[Part]) -> IndexArray:
    """What `count_tokens` counted, of all candidates: (M,)."""
    pieces = [load_array(root / part.path) for part in parts]
    return np.concatenate(pieces)
