"""What a network learns from: the teacher's labels, with the embeddings of both sides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine import storage
from engine.errors import InputError
from engine.kernels.arrays import FloatArray, IndexArray
from engine.run_directory import load_array, save_array

__all__ = ["MIN_LABELS", "TrainingSet"]

MIN_LABELS = 8


@dataclass(frozen=True)
class TrainingSet:
    """Teacher labels of some pairs, with the embeddings of both sides.

    Attributes:
        candidates: embeddings e_c, (C, D) float32; a memory map is read batch by batch.
        targets: embeddings e_t, (T, D) float32; likewise. None for a teacher that scores
            candidates alone: the network is then a pointwise one.
        pairs: (n, 2) int64, [c, t] row numbers into the two; t is not read without targets.
        labels: the teacher's score of each pair, (n,) float32, in the teacher's units.
    """

    candidates: FloatArray
    targets: FloatArray | None
    pairs: IndexArray
    labels: FloatArray

    @property
    def dim(self) -> int:
        """D, the size of one embedding."""
        return int(self.candidates.shape[1])

    @property
    def pairwise(self) -> bool:
        """Whether labels belong to pairs, and not to candidates alone."""
        return self.targets is not None

    def check(self) -> None:
        """Refuse what cannot be learned; reads every row once. Raises InputError."""
        self._check_shapes()
        if len(self.labels) < MIN_LABELS:
            raise InputError(
                f"{len(self.labels)} teacher labels are too few to fit a network, expected at "
                f"least {MIN_LABELS}: raise sample.fraction"
            )
        bad = int(np.count_nonzero(~np.isfinite(self.labels)))
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
        if self.labels.shape != (len(self.pairs),):
            raise InputError(
                f"got labels of shape {self.labels.shape}; expected one per pair, "
                f"({len(self.pairs)},)"
            )

    def save(self, directory: Path) -> None:
        """Write .npy files into a directory; without targets, none of them."""
        storage.remove(directory / "targets.npy")
        for name in ("candidates", "targets", "pairs", "labels"):
            if getattr(self, name) is not None:
                save_array(directory / f"{name}.npy", getattr(self, name))

    @classmethod
    def open(cls, directory: Path) -> TrainingSet:
        """Map what `save` wrote; embeddings and pairs stay on disk. Raises InputError."""

        def load(name: str) -> FloatArray:
            return load_array(directory / f"{name}.npy", mmap_mode="r")

        try:
            targets = load("targets") if storage.exists(directory / "targets.npy") else None
            labels = np.array(load("labels"), dtype=np.float32)
            pairs = load_array(directory / "pairs.npy", mmap_mode="r")
            return cls(load("candidates"), targets, pairs, labels)
        except (OSError, ValueError) as error:
            raise InputError(f"{directory} holds no training set: {error}") from None


def _chunks(rows: FloatArray, size: int = 16384) -> list[FloatArray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
