"""How alike two answers are, by a sentence encoder: a teacher with a model and a setting."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from engine.config import PACKAGED_ENCODER, Section, TeacherConfig
from engine.example import Example
from engine.teachers.teacher import (
    Features,
    FloatArray,
    Scores,
    Side,
    Teacher,
    Usage,
    model_settings,
)

if TYPE_CHECKING:
    from engine.models.encoder import Encoder

__all__ = ["AnswersAlikeTeacher"]


class AnswersAlikeSettings(Section):
    """How a score comes from the cosine of two answers."""

    power: int = Field(1, ge=1, description="of the cosine: the higher, the less a weak likeness")


class AnswersAlikeTeacher(Teacher):
    """max(0, cosine of the answers' embeddings) ** power; one encoder pass per row."""

    name = "answers_alike"
    label = "Answers alike"
    unit = "point"
    default_model = {"path": PACKAGED_ENCODER}  # noqa: RUF012
    feature_sides = ("candidate", "target")
    same_features = True
    Settings = AnswersAlikeSettings

    def __init__(self, config: TeacherConfig) -> None:
        self._config, self._power = config, config.own(AnswersAlikeSettings).power

    @classmethod
    def load(
        cls, config: TeacherConfig, seed: int, prepared: Path | None = None
    ) -> AnswersAlikeTeacher:
        return cls(config)

    @classmethod
    def identity(cls, config: TeacherConfig) -> dict[str, Any]:
        own = config.own(AnswersAlikeSettings).model_dump()
        return {**model_settings(config), "version": 1, **own}

    @cached_property
    def _encoder(self) -> Encoder:
        from engine.models.encoder import Encoder

        return Encoder(self._config.model, self._config.max_tokens)

    def features(self, side: Side, examples: Sequence[Example]) -> Features:
        texts = [example.output for example in examples]
        encoded = self._encoder.encode(texts, self._config.batch_size)
        usage = Usage(len(texts), encoded.num_tokens, encoded.num_truncated)
        return Features(encoded.vectors, [None] * len(texts), usage)

    def score(
        self,
        candidate: Example,
        candidate_feature: FloatArray | None,
        targets: Sequence[Example],
        target_features: FloatArray | None,
    ) -> Scores:
        assert candidate_feature is not None and target_features is not None, "needs embeddings"
        cosines = (target_features * candidate_feature).sum(axis=1)
        values = np.maximum(cosines, 0) ** np.float32(self._power)
        return Scores(values.astype(np.float32), [None] * len(targets), Usage())
