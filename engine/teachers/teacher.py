"""What a teacher is: the expensive oracle whose scores the InfluenceNetwork learns.

`teacher_class` finds a teacher by its name without loading a model, `load_teacher` loads it. To
add one: a `Teacher` subclass with a `name`, in a module here or as an entry point of another
package (docs/extending.md). Settings ask the class for its facts, so a teacher's module imports
torch, and what needs it, inside functions. Teachers see examples, not files, and know nothing of
where they run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from engine.components import component
from engine.config import TeacherConfig
from engine.config.facts import TEACHERS, TeacherFacts
from engine.example import Example

__all__ = [
    "Features",
    "RowTeacher",
    "Scores",
    "Side",
    "Teacher",
    "UnaskedTeacher",
    "Usage",
    "VectorSimilarity",
    "load_teacher",
    "model_settings",
    "teacher_class",
]

Side = Literal["candidate", "target"]
VectorSimilarity = Literal["cosine", "dot"]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Usage:
    """What some answers cost.

    Attributes:
        calls: sequences that the model was asked about (prefixes that are shared do not count).
        tokens: tokens that went through the model, padding not counted.
        num_truncated: sequences of which the model did not see all.
    """

    calls: int = 0
    tokens: int = 0
    num_truncated: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.calls + other.calls,
            self.tokens + other.tokens,
            self.num_truncated + other.num_truncated,
        )


@dataclass(frozen=True, slots=True)
class Features:
    """What a teacher needs of single points: values (n, F), in the order asked.

    float32, or float16 for features so long that the store would feel it. `problems[i]` says why
    point i has none (its values are NaN), else it is None.
    """

    values: NDArray[np.floating]
    problems: list[str | None]
    usage: Usage


@dataclass(frozen=True, slots=True)
class Scores:
    """Benefit of one candidate for n targets: values (n,) float32, higher is better.

    `problems[i]` says why target i has no score (its value is NaN), else it is None.
    """

    values: FloatArray
    problems: list[str | None]
    usage: Usage


class Teacher(TeacherFacts, ABC):
    """Scores pairs, one candidate at a time; made by `load_teacher`.

    A bad row is NaN with a problem text, never an exception. What a teacher says about a pair
    depends on the other targets of the same call through rounding only, and on those of the sample
    only where it joins them.

    Attributes, beside those of `TeacherFacts`:
        feature_sides: sides whose points need `features` before a pair can be scored.
        same_features: whether a row's feature is the same on both sides, so that one serves both.
        centred: whether `teacher.centred` is on where nothing is said; read with a similarity.
    """

    feature_sides: ClassVar[tuple[Side, ...]]
    same_features: ClassVar[bool] = False
    centred: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def load(cls, config: TeacherConfig, seed: int, prepared: Path | None = None) -> Teacher:
        """The teacher of the settings, with what `prepare` wrote.

        One whose pairs call no model loads it when features are first asked for, so that an actor
        that scores pairs needs none. Raises ModelError, then or now, when it cannot be used.
        """

    @classmethod
    def vector_similarity(cls, config: TeacherConfig) -> VectorSimilarity | None:
        """How a pair's score comes from the features of its two rows, where it is just that.

        Pairs are then not asked about: features alone are, the same on both sides, and a student
        can learn them in place of the scores.
        """
        return None

    @classmethod
    def joins_targets(cls, config: TeacherConfig) -> bool:
        """Whether pairs are scored with what `joined` makes of the targets of a sub-task."""
        return False

    def joined(self, features: FloatArray, subtask: FloatArray) -> FloatArray:
        """Features (n, F) of targets as pairs are scored with them, beside those of their sub-task.

        `subtask` (k, F) holds the targets of the sample that are in it.
        """
        raise AssertionError(f"teacher {self.name} asks about each target by itself")

    @classmethod
    def preparation_share(cls, config: TeacherConfig) -> float:
        """Share of the candidates, drawn by hash of their ids, for `prepare`; 0: not needed."""
        return 0.0

    @classmethod
    def prepare(
        cls, config: TeacherConfig, seed: int, examples: Sequence[Example], path: Path
    ) -> Usage:
        """Done once before anything is asked, such as a warm-up; writes `path`, one file.

        The same bytes for the same settings, seed and examples.
        """
        raise AssertionError(f"teacher {cls.name} needs no preparation")

    @classmethod
    @abstractmethod
    def identity(cls, config: TeacherConfig) -> dict[str, Any]:
        """All settings that the scores depend on; loads no model. Names the score store."""

    def features(self, side: Side, examples: Sequence[Example]) -> Features:
        """Features (n, F) of points on one of the `feature_sides`."""
        raise AssertionError(f"teacher {self.name} has no features of a {side}")

    @abstractmethod
    def score(
        self,
        candidate: Example,
        candidate_feature: FloatArray | None,
        targets: Sequence[Example],
        target_features: FloatArray | None,
    ) -> Scores:
        """Score one candidate, its feature (F,), for targets, their features (n, F); as float32."""


class RowTeacher(Teacher):
    """Scores rows alone: its feature of a candidate is the score, (n, 1), whatever the target."""

    pairwise = False
    feature_sides: ClassVar[tuple[Side, ...]] = ("candidate",)

    def score(
        self,
        candidate: Example,
        candidate_feature: FloatArray | None,
        targets: Sequence[Example],
        target_features: FloatArray | None,
    ) -> Scores:
        """The candidate's score, once for each target; calls no model."""
        assert candidate_feature is not None, f"{self.name} needs the candidate's score"
        value = np.float32(candidate_feature[0])
        problem = None if np.isfinite(value) else "the candidate has no score"
        return Scores(np.full(len(targets), value), [problem] * len(targets), Usage())


class UnaskedTeacher(Teacher):
    """A teacher whose scores are there already: it is never loaded, and asked for nothing."""

    feature_sides: ClassVar[tuple[Side, ...]] = ()

    @classmethod
    def load(cls, config: TeacherConfig, seed: int, prepared: Path | None = None) -> Teacher:
        raise AssertionError(f"teacher {cls.name} is not asked")

    def score(
        self,
        candidate: Example,
        candidate_feature: FloatArray | None,
        targets: Sequence[Example],
        target_features: FloatArray | None,
    ) -> Scores:
        raise AssertionError(f"teacher {self.name} is not asked")


def teacher_class(name: str) -> type[Teacher]:
    """The class of a teacher, by the name in the settings; loads no model."""
    found = component(TEACHERS, name)
    assert issubclass(found, Teacher), f"teacher {name} has facts and answers nothing"
    return found


def load_teacher(config: TeacherConfig, seed: int, prepared: Path | None = None) -> Teacher:
    """The teacher that the settings name; see `Teacher.load`."""
    return teacher_class(config.name).load(config, seed, prepared)


def model_settings(config: TeacherConfig) -> dict[str, Any]:
    """The part of an identity that all teachers with a model share."""
    from engine.models.resolve import model_identity

    quantization = config.model.quantization
    return {
        "teacher": config.name,
        "model": model_identity(config.model),
        "dtype": config.model.dtype,
        **({"quantization": quantization} if quantization else {}),
        "threads": config.model.threads,
        "max_tokens": config.max_tokens,
        "batch_size": config.batch_size,
    }
