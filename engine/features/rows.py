"""The features of an artifact's rows as one matrix (M, F), read row by row out of its files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.artifacts.rows import VectorParts
from engine.artifacts.run_directory import Artifact
from engine.config import FeatureName
from engine.features.feature import Source, assembled, sources_of
from engine.kernels.arrays import FloatArray

__all__ = ["FeatureRows", "group_of"]


def group_of(side: str, source: Source) -> str:
    """The group of files of a source of one side: that of the text has the side's own name."""
    return side if source == "text" else f"{side}-{source}"


class FeatureRows:
    """Features (M, F) float32 of one side of an embed artifact; F = `dim`, the text's first.

    Args: the artifact, "candidates", "targets" or "owned", and the names of the features.
    """

    def __init__(self, embeddings: Artifact, side: str, names: Sequence[FeatureName]) -> None:
        self._names = tuple(names)
        self._sources: dict[Source, VectorParts] = {
            source: VectorParts(embeddings, group_of(side, source)) for source in sources_of(names)
        }

    def __len__(self) -> int:
        return len(self._sources["text"])

    @property
    def text_dim(self) -> int:
        """D, or 0 where the text is not among the features."""
        return self._sources["text"].dim if "text" in self._names else 0

    @property
    def dim(self) -> int:
        """F."""
        return int(self.block(0, 1).shape[1])

    def take(self, rows: NDArray[np.int64]) -> FloatArray:
        """(len(rows), F) in the given order."""
        return assembled(self._names, {s: parts.take(rows) for s, parts in self._sources.items()})

    def block(self, start: int, stop: int) -> FloatArray:
        """Rows start..stop as (stop - start, F)."""
        return self.take(np.arange(start, stop))

    def all(self) -> FloatArray:
        """The whole matrix in memory; for the smaller side only."""
        return self.block(0, len(self))
