"""The user's own scores of rows: nobody is asked, and a student learns what the file knows.

Scores of pairs are the teacher of `given_pairs.py`; `load_config` tells by the columns of the file
which of the two `teacher.name: given` means. The sample is what the file scores (given_scores.py).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from engine.config import GivenConfig, TeacherConfig
from engine.teachers.teacher import UnaskedTeacher

__all__ = ["GivenTeacher"]


class GivenTeacher(UnaskedTeacher):
    """Scores out of a file, which the sample brings along."""

    name = "given"
    label = "given"
    unit: ClassVar[Literal["pair", "point"]] = "point"
    pairwise = False
    is_given = True
    default_objective: ClassVar[str | None] = "top_mean"
    Settings = GivenConfig

    @classmethod
    def identity(cls, config: TeacherConfig) -> dict[str, Any]:
        from engine.teachers.given_scores import content_of

        return {"teacher": cls.name, **content_of(config)}
