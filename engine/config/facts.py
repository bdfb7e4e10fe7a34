"""What is known of a component from its class alone, for settings, plans and reports.

Settings stand below the components and ask for them by name (`engine.components`): everything that
a name means is an attribute of the class.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from engine.components import Kind
from engine.config.base import PACKAGED_LANGUAGE_MODEL, ModelConfig, Section

if TYPE_CHECKING:
    from engine.config.teacher import TeacherConfig

__all__ = [
    "LANGUAGE_MODEL",
    "OBJECTIVES",
    "STUDENTS",
    "TEACHERS",
    "ObjectiveFacts",
    "StudentFacts",
    "TeacherFacts",
]

# Of teachers that read a causal language model, where the settings name none; the dtype is for
# those that they name.
LANGUAGE_MODEL = {"path": PACKAGED_LANGUAGE_MODEL, "dtype": "bfloat16"}


class Facts:
    """What is known of every component.

    Attributes:
        name: as in the settings.
        Settings: its own section of the settings, of its name in the section that names it; None:
            it has none.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[Section] | None] = None


class TeacherFacts(Facts):
    """What a teacher is, as far as it can be known without a model.

    Attributes:
        label: as in tables and reports.
        unit: what its cost grows with, pairs or points.
        pairwise: whether targets matter; else a score belongs to the candidate alone, and it is
            asked with one target that stands for all.
        seeded: whether its scores depend on the seed of the run.
        shares_candidate: whether pairs of one candidate share work, so that many cost less each.
        default_model: what `teacher.model` is where the settings do not say; None: it needs none.
        reads_language_model: whether `teacher.model` is a causal language model, which features of
            rows can then be read from too.
        worst: of a teacher of rows, the end of its scores where the bad ones are.
        is_given: whether its scores are there already: nobody is asked, and nobody can be.
        from_embeddings: whether its scores are computed from what the embed stage has of a row:
            they cost nothing, and by default all rows have one.
        default_objective: what its subset is selected by where the settings do not say, if that is
            possible: one that has the targets take turns needs some. None: coverage.
    """

    label: ClassVar[str]
    unit: ClassVar[Literal["pair", "point"]]
    pairwise: ClassVar[bool] = True
    seeded: ClassVar[bool] = False
    shares_candidate: ClassVar[bool] = False
    default_model: ClassVar[Mapping[str, Any] | None] = None
    reads_language_model: ClassVar[bool] = False
    worst: ClassVar[Literal["low", "high"]] = "low"
    is_given: ClassVar[bool] = False
    from_embeddings: ClassVar[bool] = False
    default_objective: ClassVar[str | None] = None

    @classmethod
    def further_models(cls, config: TeacherConfig) -> Sequence[ModelConfig]:
        """Models that it reads beside `teacher.model`; `identity` has theirs as further_models."""
        return ()


class StudentFacts(Facts):
    """What a student is, before it has learned anything.

    Attributes:
        label: what a reader of the report sees.
        preference: its place among the contenders of `auto`, the lowest first; None: `auto` tries
            it where the settings name it. Of students of other packages it counts for nothing:
            what is installed must not change what a run fits.
        needs_vectors: whether it learns only from a teacher whose score of a pair is a similarity
            of two vectors.
        needs_targets: whether it cannot learn a teacher that scores rows alone.
        needs_text: whether it reads the embedding of the text, which must be among the features.
        learns_label_forms: whether labels of single pairs may be clipped or ranked for it.
    """

    label: ClassVar[str]
    preference: ClassVar[int | None] = None
    needs_vectors: ClassVar[bool] = False
    needs_targets: ClassVar[bool] = False
    needs_text: ClassVar[bool] = False
    learns_label_forms: ClassVar[bool] = True


class ObjectiveFacts(Facts):
    """What an objective is, whatever it selects from; its `Settings` are given to the constructor.

    Attributes:
        modular: gains never change, so one sort is the greedy ranking.
        saturates: gains of at most 0 mean that nothing is left to gain, and the zero-gain policy
            applies. A modular objective never saturates.
        monotone: no gain is negative. Greedy then reaches 1 - 1/e of the best value of any
            subset of that size (Nemhauser, Wolsey, Fisher 1978); otherwise nothing is promised.
        reads_kernel: whether it reads more than the candidates' means.
        covers: what its picks can cover, where that is not for the settings to say: "target" needs
            a target set, "self" compares candidates with each other.
        needs_owned: whether it asks what is new beside owned rows, which must be there then.
        has_rounds: whether it can go on with another round (`cover_again`) once nothing is left to
            gain.
    """

    modular: ClassVar[bool]
    saturates: ClassVar[bool]
    monotone: ClassVar[bool]
    reads_kernel: ClassVar[bool] = True
    covers: ClassVar[Literal["target", "self"] | None] = None
    needs_owned: ClassVar[bool] = False
    has_rounds: ClassVar[bool] = False

    @classmethod
    def settings(cls) -> dict[str, inspect.Parameter]:
        """The keyword arguments of the constructor, after columns and means."""
        return dict(list(inspect.signature(cls).parameters.items())[2:])


TEACHERS = Kind("teacher", "engine.teachers", TeacherFacts)
STUDENTS = Kind("student", "engine.students", StudentFacts)
OBJECTIVES = Kind("objective", "engine.selection", ObjectiveFacts)
