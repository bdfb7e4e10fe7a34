"""The texts of the rows that the page shows one by one, cut while they are read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.artifacts.rows import TableParts
from engine.artifacts.run_directory import Artifact
from engine.report.wording import excerpt

__all__ = ["RowText", "read_texts"]

CHARACTERS = 1000  # of each text that are looked at
ID_BYTES, PROMPT_BYTES, ANSWER_BYTES = 60, 200, 140


@dataclass(frozen=True)
class RowText:
    """The beginnings of a row's texts, each on one line; not escaped yet."""

    id: str
    prompt: str
    answer: str


def read_texts(corpus: Artifact, rows: NDArray[np.int64]) -> dict[int, RowText]:
    """The texts of the candidates with these numbers. Memory: them and one part of the corpus."""
    columns = ["id", "instruction", "input", "output"]
    found: dict[int, RowText] = {}
    for where, table in TableParts(corpus, "candidates").pieces(rows, columns):
        ids, instructions, inputs, outputs = (_cut(table[name]) for name in columns)
        for place, row in enumerate(rows[where].tolist()):
            prompt = f"{instructions[place]} {inputs[place] or ''}"
            found[row] = RowText(
                id=excerpt(ids[place], ID_BYTES),
                prompt=excerpt(prompt, PROMPT_BYTES),
                answer=excerpt(outputs[place], ANSWER_BYTES),
            )
    return found


def _cut(column: pa.ChunkedArray) -> list[str]:
    texts: list[str] = pc.utf8_slice_codeunits(column, 0, CHARACTERS).to_pylist()
    return texts
