"""DELIFT (SE): similarity of the sentence embeddings of two rows.

Source: DELIFT (arXiv 2411.04425), baseline "SE"; embeds the data text z of both rows. The encoder
is a setting of its own: learning this teacher saves something only when its encoder is more
expensive than the one that the InfluenceNetwork reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from engine.config import TeacherConfig
from engine.example import Example
from engine.models.encoder import Encoded, Encoder
from engine.teachers.teacher import (
    Features,
    FloatArray,
    Scores,
    Side,
    Teacher,
    Usage,
    model_settings,
)

__all__ = ["SIMILARITIES", "DeliftEmbeddingTeacher", "Similarity"]

Similarity = Literal["cosine", "dot", "euclidean"]
_NOT_FINITE = "the encoder gave an embedding that is not finite"


class TextEncoder(Protocol):
    """What this teacher needs of `engine.models.encoder.Encoder`."""

    def encode(self, texts: Sequence[str], batch_size: int, normalize: bool = True) -> Encoded:
        """Embed texts as (n, D) float32."""


def _dot(candidate: FloatArray, targets: FloatArray) -> FloatArray:
    # Row by row in float64, so that a target's score does not depend on how many are asked for.
    products = targets.astype(np.float64) * candidate.astype(np.float64)
    return np.asarray(products.sum(axis=1), dtype=np.float32)


def _euclidean(candidate: FloatArray, targets: FloatArray) -> FloatArray:
    difference = targets.astype(np.float64) - candidate.astype(np.float64)
    distance = np.sqrt((difference * difference).sum(axis=1))
    return np.asarray(1.0 / (1.0 + distance), dtype=np.float32)


# cosine: embeddings are L2-normalised first, in [-1, 1]. dot: embeddings as the encoder gives
# them. euclidean: 1 / (1 + distance) of those, in (0, 1], 1 for equal embeddings.
SIMILARITIES: dict[Similarity, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "cosine": _dot,
    "dot": _dot,
    "euclidean": _euclidean,
}


class DeliftEmbeddingTeacher(Teacher):
    """Similarity of embeddings; one encoder pass per point, none per pair.

    Args:
        encoder: embeds the data text z.
        similarity: a key of `SIMILARITIES`.
        batch_size: texts per forward pass.
    """

    name = "delift_se"
    unit = "point"
    feature_sides = ("candidate", "target")

    def __init__(self, encoder: TextEncoder, similarity: Similarity, batch_size: int) -> None:
        self._encoder = encoder
        self._similarity = similarity
        self._batch_size = batch_size

    @classmethod
    def load(
        cls, config: TeacherConfig, seed: int, prepared: Path | None = None
    ) -> DeliftEmbeddingTeacher:
        encoder = Encoder(config.model, config.max_tokens)
        return cls(encoder, config.similarity, config.batch_size)

    @classmethod
    def identity(cls, config: TeacherConfig) -> dict[str, Any]:
        return {**model_settings(config), "version": 1, "similarity": config.similarity}

    def features(self, side: Side, examples: Sequence[Example]) -> Features:
        """Embeddings (n, D) of the data texts, the same on both sides."""
        texts = [example.text for example in examples]
        normalize = self._similarity == "cosine"
        encoded = self._encoder.encode(texts, self._batch_size, normalize)
        finite = np.asarray(np.isfinite(encoded.vectors).all(axis=1))
        problems = [None if ok else _NOT_FINITE for ok in finite.tolist()]
        usage = Usage(len(texts), encoded.num_tokens, encoded.num_truncated)
        return Features(np.where(finite[:, None], encoded.vectors, np.nan), problems, usage)

    def score(
        self,
        candidate: Example,
        candidate_feature: FloatArray | None,
        targets: Sequence[Example],
        target_features: FloatArray | None,
    ) -> Scores:
        """Similarity of the pair's embeddings; calls no model."""
        assert candidate_feature is not None and target_features is not None, "needs embeddings"
        values = SIMILARITIES[self._similarity](candidate_feature, target_features)
        problems = [None if np.isfinite(value) else _NOT_FINITE for value in values]
        return Scores(values, problems, Usage())
