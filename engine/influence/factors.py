"""All pairs of a run by a student in the product form, for the workers of the predict stage.

FactorWorker   writes the factors of a block of rows (`engine.kernels.product`)
FactorFiles    where they lie; workers map them, so a node holds each once
FactorPairs    what workers ask: a block of S, the best candidates of some targets, all means
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.artifacts.files import load_array, save_array
from engine.artifacts.rows import target_side
from engine.artifacts.run_directory import Artifact
from engine.config import FeatureName
from engine.features.rows import FeatureRows
from engine.influence.candidate_index import CandidateIndex
from engine.influence.pairs import UNIT_ROWS, Pairs
from engine.kernels.arrays import FloatArray
from engine.kernels.product import (
    Grid,
    ProductTop,
    largest_factor,
    product_block,
    product_means,
)
from engine.kernels.top import Top
from engine.runtime.executor import PartitionWorker
from engine.students.student import ProductStudent, load_student

__all__ = ["FactorFiles", "FactorPairs", "FactorWorker", "largest_of"]


@dataclass(frozen=True)
class FactorFiles:
    """The files of factors by side, in order, relative to `directory`: (rows, R) float32 each."""

    directory: Path
    sides: Mapping[str, tuple[str, ...]]

    def parts(self, side: str) -> list[FloatArray]:
        """The factors of a side, mapped: nothing is read yet."""
        return [
            load_array(self.directory / path, mmap_mode="r") for path in self.sides.get(side, ())
        ]


def largest_of(files: FactorFiles) -> dict[str, float]:
    """The largest factor of each kind of side; owned rows stand where candidates do."""
    candidates = (*files.parts("candidates"), *files.parts("owned"))
    targets = files.parts("targets")
    return {
        "largest_candidate": largest_factor(*candidates),
        "largest_target": largest_factor(*targets),
        "rank": float(targets[0].shape[1]),
    }


class FactorWorker(PartitionWorker):
    """Writes the factors of a block of rows of one side.

    `of_run`: whether the candidates are those that the student's training rows are numbered among,
    and not new ones for a finished run.
    """

    def __init__(
        self,
        fit: Artifact,
        embeddings: Artifact,
        features: Sequence[FeatureName],
        of_run: bool = True,
    ) -> None:
        student = load_student(fit.path("student"))
        assert isinstance(student, ProductStudent), "only these have factors"
        self._student, self._embeddings, self._features = student, embeddings, features
        exact = "target_vectors" in fit.manifest["parts"] and student.reads_target_vectors
        self._vectors = load_array(fit.path("target_vectors"), mmap_mode="r") if exact else None
        self._rows, self._left_out = np.empty(0, np.int64), np.empty((0, 0), np.float32)
        if of_run and "left_out" in fit.manifest["parts"]:
            self._rows = load_array(fit.path("left_out_rows"))
            self._left_out = load_array(fit.path("left_out"), mmap_mode="r")

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        start, stop, side = payload["start"], payload["stop"], payload["side"]
        if side == "targets":
            factors = np.asarray(
                self._student.target_factors(self._of_targets(start, stop), threads=1)
            )
        else:  # owned rows do for targets what candidates would
            rows = FeatureRows(self._embeddings, side, self._features).block(start, stop)
            factors = np.asarray(self._student.candidate_factors(rows, threads=1))
        if side == "candidates":  # those asked about as if they had not been
            first, last = np.searchsorted(self._rows, (start, stop))
            if last > first:
                factors[self._rows[first:last] - start] = self._left_out[first:last]
        save_array(path, np.asarray(factors, np.float32))
        return len(factors), {}

    def _of_targets(self, start: int, stop: int) -> FloatArray:
        if self._vectors is not None:
            return np.asarray(self._vectors[start:stop])
        group = target_side(self._embeddings)
        return FeatureRows(self._embeddings, group, self._features).block(start, stop)


class FactorPairs(Pairs):
    """From factors in files; one thread unless told otherwise."""

    def __init__(self, files: FactorFiles, grid: Grid, index: Path | None) -> None:
        self._files, self._grid = files, grid
        self._index = None if index is None else CandidateIndex.load(index)

    def _rows(self, side: str, start: int, stop: int) -> FloatArray:
        """Rows start..stop, which lie in one file."""
        part, first = divmod(start, UNIT_ROWS)
        rows: FloatArray = np.asarray(self._files.parts(side)[part][first : first + stop - start])
        return rows

    def block(self, start: int, stop: int) -> FloatArray:
        candidates = self._rows("candidates", start, stop)
        targets = self._files.parts("targets")
        blocks = [product_block(candidates, part, self._grid, threads=1) for part in targets]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)

    def top(self, start: int, stop: int, k: int) -> Top:
        targets = self._rows("targets", start, stop)
        if self._index is not None:
            parts = self._files.parts("candidates")
            return self._index.top(targets, parts, self._grid, k, threads=1)
        return self._best("candidates", targets, k)

    def best_owned(self, start: int, stop: int) -> FloatArray:
        targets = self._rows("targets", start, stop)
        best: FloatArray = self._best("owned", targets, 1).influence[:, 0]
        return best

    def _best(self, side: str, targets: FloatArray, k: int) -> Top:
        best = ProductTop(targets, self._grid, k)
        for part in self._files.parts(side):
            best.offer(part, threads=1)
        return best.top()

    def means(self, subtasks: NDArray[np.int64], threads: int) -> FloatArray:
        targets = self._files.parts("targets")
        pieces = [
            product_means(
                part, targets, self._grid.candidates, self._grid.targets, subtasks, threads=threads
            ).max(axis=1)
            for part in self._files.parts("candidates")
        ]
        return np.concatenate(pieces)
