"""What is known of a component from its class alone, for settings, plans and reports.

Settings stand below the components and ask for them by name (`engine.components`): everything that
a name means is an attribute of the class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from engine.components import Kind
from engine.config.base import PACKAGED_LANGUAGE_MODEL, ModelConfig, Section

if TYPE_CHECKING:
    from engine.config.teacher import TeacherConfig

__all__ = ["LANGUAGE_MODEL", "TEACHERS", "TeacherFacts"]

# Of teachers that read a causal language model, where the settings name none.
LANGUAGE_MODEL = {"path": PACKAGED_LANGUAGE_MODEL, "dtype": "bfloat16"}


class TeacherFacts:
    """What a teacher is, as far as it can be known without a model.

    Attributes:
        name: as in the settings.
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
        from_embeddings: whether its scores are computed from what the embed stage has of a row:
            they cost nothing, and by default all rows have one.
        default_objective: what its subset is selected by where the settings do not say, if that is
            possible: one that has the targets take turns needs some. None: coverage.
        Settings: its own section of the settings, `teacher.NAME`; None: it has none.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    unit: ClassVar[Literal["pair", "point"]]
    pairwise: ClassVar[bool] = True
    seeded: ClassVar[bool] = False
    shares_candidate: ClassVar[bool] = False
    default_model: ClassVar[Mapping[str, Any] | None] = None
    reads_language_model: ClassVar[bool] = False
    worst: ClassVar[Literal["low", "high"]] = "low"
    from_embeddings: ClassVar[bool] = False
    default_objective: ClassVar[str | None] = None
    Settings: ClassVar[type[Section] | None] = None

    @classmethod
    def further_models(cls, config: TeacherConfig) -> Sequence[ModelConfig]:
        """Models that it reads beside `teacher.model`; `identity` has theirs as further_models."""
        return ()


TEACHERS = Kind("teacher", "engine.teachers", TeacherFacts)
