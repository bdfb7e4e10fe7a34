"""Fit: do a row's prompt and response speak of the same thing?

The cosine of the embeddings of prompt and response alone, in [-1, 1]. It costs nothing: the embed
stage has both vectors for what students read, so every row has its score and none is learned. It
finds answers to another question and empty talk, and sees no wrong answer. Where a good response
shares no words with its prompt, in code or as one word, it misleads (docs/choosing.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.config import TeacherConfig
from engine.example import Example
from engine.teachers.teacher import Features, RowTeacher, Side

__all__ = ["FitTeacher"]


class FitTeacher(RowTeacher):
    """Cosine of a row's prompt and response; nothing is asked of it, see `fit_labels`."""

    name = "fit"
    label = "fit of prompt and response"
    unit = "point"
    from_embeddings = True
    feature_sides = ()
    default_objective = "top_mean"

    @classmethod
    def load(cls, config: TeacherConfig, seed: int, prepared: Path | None = None) -> FitTeacher:
        raise AssertionError("its scores are computed from embeddings")

    @classmethod
    def identity(cls, config: TeacherConfig) -> dict[str, Any]:
        return {"teacher": cls.name, "version": 1}

    def features(self, side: Side, examples: Sequence[Example]) -> Features:
        raise AssertionError("its scores are computed from embeddings")
