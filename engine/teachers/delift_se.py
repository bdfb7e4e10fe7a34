"""DELIFT (SE): similarity of the sentence embeddings of two rows.

Source: DELIFT (arXiv 2411.04425), baseline "SE"; embeds the data text z of both rows. The encoder
is a setting of its own: learning this teacher saves something only when its encoder is more
expensive than the one that the InfluenceNetwork reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.artifacts.files import read_json, write_json
from engine.config import PACKAGED_ENCODER, TeacherConfig
from engine.errors import InputError
from engine.example import Example
from engine.teachers.teacher import (
    Features,
    FloatArray,
    Scores,
    Side,
    Teacher,
    Usage,
    VectorSimilarity,
    model_settings,
)

if TYPE_CHECKING:
    from engine.models.encoder import Encoded, Encoder

__all__ = ["SIMILARITIES", "DeliftEmbeddingTeacher", "Similarity"]

Similarity = Literal["cosine", "dot", "euclidean", "rbf"]
# What the mean squared distance of rbf is estimated from: share of the candidates.
_RBF_SHARE = 0.05
_RBF_WIDTH = 0.1  # of that mean, as published
_Comparison = Callable[[FloatArray, FloatArray], FloatArray]
_NOT_FINITE = "the encoder gave an embedding that is not finite"


class TextEncoder(Protocol):
    """What this teacher needs of `engine.models.encoder.Encoder`."""

    def encode(self, texts: Sequence[str], batch_size: int, normalize: bool = True) -> Encoded:
        """Embed texts as (n, D) float32."""


def _dot(candidate: FloatArray, targets: FloatArray) -> FloatArray:
    # Row by row in float64, so that a target's score does not depend on how many are asked for.
    products = targets.astype(np.float64) * candidate.astype(np.float64)
    return np.asarray(products.sum(axis=1), dtype=np.float32)


def _squared_distance(candidate: FloatArray, targets: FloatArray) -> NDArray[np.float64]:
    difference = targets.astype(np.float64) - candidate.astype(np.float64)
    return np.asarray((difference * difference).sum(axis=1), dtype=np.float64)


def _euclidean(candidate: FloatArray, targets: FloatArray) -> FloatArray:
    distance = np.sqrt(_squared_distance(candidate, targets))
    return np.asarray(1.0 / (1.0 + distance), dtype=np.float32)


def _rbf(candidate: FloatArray, targets: FloatArray, mean_squared_distance: float) -> FloatArray:
    scaled = _squared_distance(candidate, targets) / (_RBF_WIDTH * mean_squared_distance)
    return np.asarray(np.exp(-scaled), dtype=np.float32)


# cosine: embeddings are L2-normalised first, in [-1, 1]. dot: embeddings as the encoder gives
# them. euclidean: 1 / (1 + distance) of those, in (0, 1], 1 for equal embeddings. The fourth, rbf,
# is exp(-distance^2 / (0.1 * mean distance^2)) of those, in (0, 1]; its mean comes from `prepare`.
SIMILARITIES: dict[Similarity, _Comparison] = {
    "cosine": _dot,
    "dot": _dot,
    "euclidean": _euclidean,
}


class DeliftEmbeddingTeacher(Teacher):
    """Similarity of embeddings; one encoder pass per point, none per pair.

    Args:
        load_encoder: makes the encoder of the data texts z, when features are first asked for.
        similarity: a key of `SIMILARITIES`, or "rbf".
        batch_size: texts per forward pass.
        mean_squared_distance: of two rows of the pool; for rbf, which needs it.
    """

    name = "delift_se"
    label = "DELIFT(SE)"
    unit = "point"
    default_model = {"path": PACKAGED_ENCODER}  # noqa: RUF012
    feature_sides = ("candidate", "target")
    same_features = True

    def __init__(
        self,
        load_encoder: Callable[[], TextEncoder],
        similarity: Similarity,
        batch_size: int,
        mean_squared_distance: float | None = None,
    ) -> None:
        self._load_encoder = load_encoder
        self._normalize = similarity == "cosine"
        if similarity == "rbf":
            assert mean_squared_distance is not None, "rbf needs what prepare measured"
            self._compare: _Comparison = partial(_rbf, mean_squared_distance=mean_squared_distance)
        else:
            self._compare = SIMILARITIES[similarity]
        self._batch_size = batch_size

    @cached_property
    def _encoder(self) -> TextEncoder:
        return self._load_encoder()

    @classmethod
    def load(
        cls, config: TeacherConfig, seed: int, prepared: Path | None = None
    ) -> DeliftEmbeddingTeacher:
        mean = None if prepared is None else float(read_json(prepared)["mean_squared_distance"])
        return cls(partial(_encoder, config), config.similarity, config.batch_size, mean)

    @classmethod
    def preparation_share(cls, config: TeacherConfig) -> float:
        return _RBF_SHARE if config.similarity == "rbf" else 0.0

    @classmethod
    def prepare(
        cls, config: TeacherConfig, seed: int, examples: Sequence[Example], path: Path
    ) -> Usage:
        """For rbf: write the mean squared distance of all pairs of two of the examples.

        So it depends on the pool and not on which pairs are asked. Raises InputError for fewer
        than two examples, and when all of them have the same embedding.
        """
        encoder = _encoder(config)
        texts = [example.text for example in sorted(examples, key=lambda example: example.key)]
        encoded = encoder.encode(texts, config.batch_size, normalize=False)
        vectors = encoded.vectors[np.isfinite(encoded.vectors).all(axis=1)].astype(np.float64)
        spread = np.square(vectors - vectors.mean(axis=0)).sum() if len(vectors) > 1 else 0.0
        if not spread > 0:
            raise InputError(
                f"similarity rbf is scaled by the distances within {_RBF_SHARE:.0%} of the "
                f"candidates, which needs two rows that differ; got {len(vectors)} rows"
                f"{' that are all alike' if len(vectors) > 1 else ''}; "
                "use more candidates, or another teacher.similarity"
            )
        # The mean over pairs of two rows, since sum_ij |a_i - a_j|^2 = 2 n sum_i |a_i - mean|^2.
        mean = 2.0 * float(spread) / (len(vectors) - 1)
        write_json(path, {"mean_squared_distance": mean, "rows": len(vectors)})
        return Usage(len(texts), encoded.num_tokens, encoded.num_truncated)

    @classmethod
    def vector_similarity(cls, config: TeacherConfig) -> VectorSimilarity | None:
        return config.similarity if config.similarity in ("cosine", "dot") else None

    @classmethod
    def identity(cls, config: TeacherConfig) -> dict[str, Any]:
        return {**model_settings(config), "version": 1, "similarity": config.similarity}

    def features(self, side: Side, examples: Sequence[Example]) -> Features:
        """Embeddings (n, D) of the data texts, the same on both sides."""
        texts = [example.text for example in examples]
        encoded = self._encoder.encode(texts, self._batch_size, self._normalize)
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
        values = self._compare(candidate_feature, target_features)
        problems = [None if np.isfinite(value) else _NOT_FINITE for value in values]
        return Scores(values, problems, Usage())


def _encoder(config: TeacherConfig) -> Encoder:
    from engine.models.encoder import Encoder

    return Encoder(config.model, config.max_tokens)
