"""The quality gate: a teacher of rows beside the main one, and what becomes of the bad rows."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from engine.config.base import Section
from engine.config.network import StudentConfig
from engine.config.teacher import SampleConfig, TeacherConfig, with_whole_sample

__all__ = ["QualityConfig"]

_MODES = ("drop_worst", "below", "above", "weight")


class QualityConfig(Section):
    """Which rows are not for selection, however well they fit the targets."""

    teacher: TeacherConfig = Field(
        default_factory=lambda: TeacherConfig.model_validate({"name": "ifd"}),
        description="scores rows alone: ifd, fit, selectit, given",
    )
    sample: SampleConfig = Field(
        SampleConfig(), description="share of the candidates that it is asked about, and its audit"
    )
    student: StudentConfig = Field(StudentConfig(), description="learns the rest from `features`")
    drop_worst: float | None = Field(
        None, gt=0, lt=1, description="drop this share of the rows, the worst by its scores"
    )
    below: float | None = Field(None, description="drop rows with scores below this")
    above: float | None = Field(None, description="drop rows with scores above this")
    weight: float | None = Field(
        None,
        gt=0,
        description="drop none; lower the influence of the worst row by so many standard "
        "deviations of the candidates' mean influence, and of the others by their rank",
    )
    untrusted: Literal["asked", "all", "none"] = Field(
        "asked",
        description="what is dropped where the audit does not trust the gate's student: only rows "
        "that the teacher itself was asked about, as if it were trusted, or nothing",
    )

    @model_validator(mode="before")
    @classmethod
    def _ask_for_what_is_free(cls, values: Any) -> Any:
        return with_whole_sample(values)

    @model_validator(mode="after")
    def _check(self) -> QualityConfig:
        named = [name for name in _MODES if getattr(self, name) is not None]
        if len(named) != 1:
            got = " and ".join(named) or "none of them"
            raise ValueError(f"set one of {', '.join(_MODES)}; got {got}")
        if self.teacher.facts.pairwise:
            raise ValueError(
                f"teacher {self.teacher.name} scores pairs, and a gate judges rows: use ifd, fit "
                "or selectit"
            )
        return self

    @property
    def rule(self) -> str:
        """What becomes of the rows, in words."""
        if self.drop_worst is not None:
            return f"the worst {self.drop_worst:.0%} are dropped"
        if self.weight is not None:
            return f"the worst weigh less, by up to {self.weight:g} standard deviations"
        side, limit = ("below", self.below) if self.above is None else ("above", self.above)
        return f"rows {side} {limit:g} are dropped"
