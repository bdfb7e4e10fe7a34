"""Reading rows and vectors out of an artifact's parts by row number, part by part.

Rows are numbered through the parts in order. Nothing here loads more than the parts it is asked
about, and vectors are memory-mapped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.artifacts.files import load_array, read_table
from engine.artifacts.run_directory import Artifact
from engine.example import Example, order_hash
from engine.kernels.arrays import FloatArray

__all__ = [
    "EXAMPLE_COLUMNS",
    "TableParts",
    "VectorParts",
    "as_lists",
    "as_matrix",
    "id_hashes",
    "read_extra",
    "target_side",
]

EXAMPLE_COLUMNS = ("id", "key", "instruction", "input", "output")


def target_side(artifact: Artifact) -> str:
    """The group that holds the targets: the candidates, when the corpus is its own target."""
    return "targets" if "targets" in artifact.manifest["parts"] else "candidates"


def as_lists(matrix: NDArray[Any]) -> pa.Array:
    """A matrix (n, K) as a column of n fixed-size lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])


def as_matrix(column: pa.ChunkedArray) -> NDArray[Any]:
    """A column of n fixed-size lists as a matrix (n, K), without a copy if it is in one chunk."""
    width = column.type.list_size
    pieces = [chunk.flatten().to_numpy().reshape(-1, width) for chunk in column.chunks]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def read_extra(text: str) -> dict[str, Any]:
    """The further columns of a row, from the column `extra`; NaN and infinities are None."""
    extra: dict[str, Any] = json.loads(text, parse_constant=lambda _: None)
    return extra


class _Parts:
    def __init__(self, artifact: Artifact, group: str) -> None:
        parts = artifact.parts(group)
        self.paths: list[Path] = [artifact.directory / part.path for part in parts]
        self.offsets: NDArray[np.int64] = np.cumsum([0, *(part.rows for part in parts)])

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def _located(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The parts that hold some of the rows, each with the positions in `rows` it serves."""
        part_of = np.searchsorted(self.offsets, rows, side="right") - 1
        for part in np.unique(part_of):
            yield int(part), np.flatnonzero(part_of == part)


class TableParts(_Parts):
    """A group of parquet parts read as one table."""

    def read_part(self, part: int, columns: Sequence[str] | None = None) -> pa.Table:
        # one thread: a column of a part is read sooner than a pool of threads is woken
        names = list(columns) if columns else None
        return read_table(self.paths[part], columns=names, use_threads=False)

    def iter_parts(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        for part in range(len(self.paths)):
            yield self.read_part(part, columns)

    def pieces(
        self, rows: NDArray[np.int64], columns: Sequence[str] | None = None
    ) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
        """The given rows part by part, each piece with the positions in `rows` that it holds."""
        for part, where in self._located(rows):
            yield where, self.read_part(part, columns).take(rows[where] - self.offsets[part])

    def take(self, rows: NDArray[np.int64], columns: Sequence[str] | None = None) -> pa.Table:
        """The given rows in the given order; memory: those rows and one part."""
        found = list(self.pieces(rows, columns))
        if not found:
            return self.read_part(0, columns).slice(0, 0)
        order = np.argsort(np.concatenate([where for where, _ in found]), kind="stable")
        return pa.concat_tables([table for _, table in found]).take(order)

    def examples(self, rows: NDArray[np.int64]) -> list[Example]:
        """The given rows of a corpus, in the given order."""
        table = self.take(rows, EXAMPLE_COLUMNS)
        return [Example(**row) for row in table.to_pylist()]


class VectorParts(_Parts):
    """A group of .npy parts, each (rows, D) float32, read as one (M, D) matrix."""

    @property
    def dim(self) -> int:
        return int(self._part(0).shape[1])

    def _part(self, part: int) -> FloatArray:
        vectors: FloatArray = load_array(self.paths[part], mmap_mode="r")
        return vectors

    def iter_parts(self) -> Iterator[FloatArray]:
        """The parts in order, memory-mapped."""
        for part in range(len(self.paths)):
            yield self._part(part)

    def take(self, rows: NDArray[np.int64]) -> FloatArray:
        """(len(rows), D) in the given order."""
        out = np.empty((len(rows), self.dim), dtype=np.float32)
        for part, where in self._located(rows):
            out[where] = self._part(part)[rows[where] - self.offsets[part]]
        return out

    def block(self, start: int, stop: int) -> FloatArray:
        """Rows start..stop as (stop - start, D)."""
        return self.take(np.arange(start, stop))

    def all(self) -> FloatArray:
        """The whole (M, D) matrix in memory; for the smaller side only."""
        return self.block(0, len(self))


def id_hashes(rows: TableParts, seed: int, side: str) -> NDArray[np.uint64]:
    """A uniform hash of each row's id, (n,): what rows are drawn by, whatever file they lie in."""
    pieces = [
        np.fromiter(
            (order_hash(seed, side, i) for i in table["id"].to_pylist()),
            dtype=np.uint64,
            count=len(table),
        )
        for table in rows.iter_parts(["id"])
    ]
    return np.concatenate(pieces)
