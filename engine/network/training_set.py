"""What a student learns from: the teacher's answers, with the features of both sides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engine import storage
from engine.artifacts.files import load_array, read_json, save_array, write_json
from engine.errors import InputError
from engine.kernels.arrays import FloatArray, IndexArray

__all__ = ["MIN_LABELS", "TrainingSet"]

MIN_LABELS = 8
_NEARLY_ALL = 0.9
_ARRAYS = ("candidates", "targets", "pairs", "labels", "candidate_vectors", "target_vectors")


@dataclass(frozen=True)
class TrainingSet:
    """Teacher labels of some pairs, with the features of both sides.

    Attributes:
        candidates: features of the candidates, (C, F) float32; a memory map is read batch by batch.
        targets: features of the targets, (T, F) float32; likewise. None for a teacher that scores
            candidates alone: a network is then a pointwise one.
        pairs: (n, 2) int64, [c, t] row numbers into the two; t is not read without targets.
        labels: the teacher's score of each pair, (n,) float32, in the teacher's units; a network
            also learns vectors, (n, V).
        text_dim: size of the text's embedding, which stands first among the features; 0 without.
        candidate_vectors, target_vectors: the teacher's vectors, (C, V) and (T, V) float32, of one
            whose score is their `similarity`; None of others.
    """

    candidates: FloatArray
    targets: FloatArray | None
    pairs: IndexArray
    labels: FloatArray
    text_dim: int = 0
    candidate_vectors: FloatArray | None = None
    target_vectors: FloatArray | None = None
    similarity: Literal["cosine", "dot"] = "cosine"

    @property
    def dim(self) -> int:
        """F, the size of one row's features."""
        return int(self.candidates.shape[1])

    @property
    def pairwise(self) -> bool:
        """Whether labels belong to pairs, and not to candidates alone."""
        return self.targets is not None

    def block(self) -> FloatArray | None:
        """The labels as a matrix (C, T), when nearly every candidate has one with every target.

        What is missing, at most a tenth, is filled in from the means of its row and its column.
        """
        if self.targets is None:
            return None
        shape = (len(self.candidates), len(self.targets))
        if len(self.labels) < _NEARLY_ALL * shape[0] * shape[1]:
            return None
        block = np.full(shape, np.nan)
        block[self.pairs[:, 0], self.pairs[:, 1]] = self.labels
        known = np.isfinite(block)
        if not known.all():
            if not (known.any(axis=0).all() and known.any(axis=1).all()):
                return None
            rows, columns = (np.nanmean(block, axis=axis, keepdims=True) for axis in (1, 0))
            block = np.where(known, block, rows + columns - np.nanmean(block))
        return block.astype(np.float32)

    def of_candidates(self, rows: IndexArray) -> TrainingSet:
        """The labels of some candidates, (m,) row numbers in ascending order, and all targets."""
        number = np.full(len(self.candidates), -1)
        number[rows] = np.arange(len(rows))
        kept = number[self.pairs[:, 0]] >= 0
        pairs = np.stack([number[self.pairs[kept, 0]], self.pairs[kept, 1]], axis=1)
        vectors = self.candidate_vectors
        return replace(
            self,
            candidates=self.candidates[rows],
            pairs=pairs,
            labels=self.labels[kept],
            candidate_vectors=None if vectors is None else vectors[rows],
        )

    def check(self) -> None:
        """Refuse what cannot be learned; reads every row once. Raises InputError."""
        self._check_shapes()
        if len(self.labels) < MIN_LABELS:
            raise InputError(
                f"{len(self.labels)} teacher labels are too few to fit a student, expected at "
                f"least {MIN_LABELS}: raise sample.fraction"
            )
        finite = np.isfinite(self.labels).reshape(len(self.labels), -1).all(axis=1)
        bad = int(np.count_nonzero(~finite))
        if bad:
            raise InputError(
                f"{bad} of {len(self.labels)} teacher labels are not finite numbers: "
                "score those pairs again or leave them out"
            )
        sides = [("candidates", self.candidates, self.pairs[:, 0])]
        if self.targets is not None:
            sides.append(("targets", self.targets, self.pairs[:, 1]))
        for name, rows, column in sides:
            if column.min() < 0 or column.max() >= len(rows):
                raise InputError(
                    f"pairs name {name} {column.min()}..{column.max()}, expected rows of the "
                    f"{len(rows)} {name} given (0..{len(rows) - 1})"
                )
            if not all(np.isfinite(part).all() for part in _chunks(rows)):
                raise InputError(f"embeddings of {name} hold values that are not finite numbers")

    def _check_shapes(self) -> None:
        targets = self.candidates if self.targets is None else self.targets
        shapes = f"candidates {self.candidates.shape}, targets {targets.shape}"
        if self.candidates.ndim != 2 or targets.ndim != 2:
            raise InputError(f"got {shapes}; expected embeddings of shape (rows, D)")
        if self.candidates.shape[1] != targets.shape[1]:
            raise InputError(
                f"got {shapes}; expected the same D on both sides: embed both with one encoder"
            )
        if self.pairs.ndim != 2 or self.pairs.shape[1:] != (2,):
            raise InputError(f"got pairs of shape {self.pairs.shape}; expected (n, 2), [c, t]")
        if self.labels.ndim not in (1, 2) or len(self.labels) != len(self.pairs):
            raise InputError(
                f"got labels of shape {self.labels.shape}; expected one per pair, "
                f"({len(self.pairs)},)"
            )

    def save(self, directory: Path) -> None:
        """Write .npy files into a directory, one for each array that there is."""
        for name in _ARRAYS:
            storage.remove(directory / f"{name}.npy")
            if getattr(self, name) is not None:
                save_array(directory / f"{name}.npy", getattr(self, name))
        write_json(
            directory / "told.json", {"text_dim": self.text_dim, "similarity": self.similarity}
        )

    @classmethod
    def open(cls, directory: Path) -> TrainingSet:
        """Map what `save` wrote; features and pairs stay on disk. Raises InputError."""
        try:
            found: dict[str, Any] = {
                name: load_array(directory / f"{name}.npy", mmap_mode="r")
                for name in _ARRAYS
                if storage.exists(directory / f"{name}.npy")
            }
            found["labels"] = np.array(found["labels"], dtype=np.float32)
            return cls(**{"targets": None, **found}, **read_json(directory / "told.json"))
        except (KeyError, OSError, ValueError, TypeError) as error:
            raise InputError(f"{directory} holds no training set: {error}") from None


def _chunks(rows: FloatArray, size: int = 16384) -> list[FloatArray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
