"""Fit: do a row's prompt and response speak of the same thing?

The cosine of the embeddings of prompt and response alone, in [-1, 1]. It costs nothing: the embed
stage has both vectors for what students read, so every row has its score and none is learned. It
finds answers to another question and empty talk, and sees no wrong answer. Where a good response
shares no words with its prompt, in code or as one word, it misleads (docs/choosing.md).
"""

from __future__ import annotations

from typing import Any

from engine.config import TeacherConfig
from engine.teachers.teacher import UnaskedTeacher

__all__ = ["FitTeacher"]


class FitTeacher(UnaskedTeacher):
    """Cosine of a row's prompt and response, computed in `fit_labels`."""

    name = "fit"
    label = "fit of prompt and response"
    unit = "point"
    pairwise = False
    from_embeddings = True
    default_objective = "top_mean"

    @classmethod
    def identity(cls, config: TeacherConfig) -> dict[str, Any]:
        return {"teacher": cls.name, "version": 1}
