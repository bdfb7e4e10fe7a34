"""The user's own scores of rows: nobody is asked, and a student learns what the file knows.

Scores of pairs are the teacher of `given_pairs.py`; `load_config` tells by the columns of the file
which of the two `teacher.name: given` means. The sample is what the file scores (given_scores.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from engine.config import GivenConfig, TeacherConfig
from engine.example import Example
from engine.teachers.teacher import FloatArray, Scores, Teacher

__all__ = ["GivenTeacher"]


class GivenTeacher(Teacher):
    """Scores out of a file, which the sample brings along: this class is never asked for any."""

    name = "given"
    label = "given"
    unit: ClassVar[Literal["pair", "point"]] = "point"
    pairwise = False
    is_given = True
    default_objective: ClassVar[str | None] = "top_mean"
    Settings = GivenConfig
    feature_sides = ()

    @classmethod
    def load(cls, config: TeacherConfig, seed: int, prepared: Path | None = None) -> GivenTeacher:
        raise AssertionError("given scores are read, not asked for")

    @classmethod
    def identity(cls, config: TeacherConfig) -> dict[str, Any]:
        from engine.teachers.given_scores import content_of

        return {"teacher": cls.name, **content_of(config)}

    def score(
        self,
        candidate: Example,
        candidate_feature: FloatArray | None,
        targets: Sequence[Example],
        target_features: FloatArray | None,
    ) -> Scores:
        raise AssertionError("given scores are read, not asked for")
