"""How many words two rows share; free, no model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from engine.config import Section, TeacherConfig
from engine.example import Example
from engine.teachers.teacher import FloatArray, Scores, Teacher, Usage

__all__ = ["SharedWordsTeacher"]


class SharedWordsSettings(Section):
    """Words that both rows have."""

    least_letters: int = Field(1, ge=1, description="of a word that counts")


class SharedWordsTeacher(Teacher):
    """Jaccard overlap of the words of both rows, in [0, 1]."""

    name = "shared_words"
    label = "Shared words"
    unit = "pair"
    feature_sides = ()
    default_objective = "strongest"
    Settings = SharedWordsSettings

    def __init__(self, least_letters: int) -> None:
        self._least_letters = least_letters

    @classmethod
    def load(
        cls, config: TeacherConfig, seed: int, prepared: Path | None = None
    ) -> SharedWordsTeacher:
        return cls(config.own(SharedWordsSettings).least_letters)

    @classmethod
    def identity(cls, config: TeacherConfig) -> dict[str, Any]:
        return {"teacher": cls.name, "version": 1, **config.own(SharedWordsSettings).model_dump()}

    def score(
        self,
        candidate: Example,
        candidate_feature: FloatArray | None,
        targets: Sequence[Example],
        target_features: FloatArray | None,
    ) -> Scores:
        mine = self._words(candidate)
        others = [self._words(target) for target in targets]
        values = [len(mine & other) / max(1, len(mine | other)) for other in others]
        return Scores(
            np.array(values, np.float32), [None] * len(targets), Usage(calls=len(targets))
        )

    def _words(self, example: Example) -> set[str]:
        return {word for word in example.text.split() if len(word) >= self._least_letters}
