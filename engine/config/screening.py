"""Which candidates are left out before anything is paid for: leaks and duplicates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from engine.config.base import Section

__all__ = ["DuplicatesConfig", "LeakAction", "LeakConfig", "LeakKind", "as_corpora"]

LeakAction = Literal["warn", "drop", "fail"]
LeakKind = Literal["exact", "13-gram", "near"]


class LeakConfig(Section):
    """What a candidate that repeats a target or a protected row does; one word is for both."""

    protected: LeakAction = Field(
        "drop", description="a candidate repeats a row of `protect` or of evaluation.test"
    )
    targets: LeakAction = Field("warn", description="a candidate repeats a target")
    kinds: tuple[LeakKind, ...] = Field(
        ("exact", "13-gram"),
        description="what is acted on: the prompt is the same but for case, space and punctuation; "
        "13 words in a row are; most pairs of words are (near). The others are told",
    )
    near: float | None = Field(
        0.7,
        ge=0.3,
        le=1,
        description="Jaccard similarity of the prompts' pairs of words from which a row is near; "
        "null: do not look",
    )

    @model_validator(mode="before")
    @classmethod
    def _for_both(cls, values: Any) -> Any:
        is_word = isinstance(values, str) and values in get_args(LeakAction)
        return {"protected": values, "targets": values} if is_word else values


class DuplicatesConfig(Section):
    """Candidates that say the same; a word alone is `drop`, or `stays` of near ones."""

    drop: Literal["keep", "exact", "near"] = Field(
        "keep",
        description="of each group leave out all rows but one, where prompt and answer are the "
        "same but for case, space and punctuation (exact), also where most pairs of words are "
        "(near), or keep all",
    )
    stays: Literal["first", "longest", "best"] = Field(
        "first",
        description="which row of a group: the first of the corpus, the longest, or the one with "
        "the highest number in score_column",
    )
    score_column: str | None = Field(None, description="column of the candidates for stays: best")
    near: float = Field(
        0.8,
        ge=0.3,
        le=1,
        description="Jaccard similarity of two rows' pairs of words from which they are near",
    )

    @model_validator(mode="before")
    @classmethod
    def _a_word(cls, values: Any) -> Any:
        if isinstance(values, str) and values in ("keep", "exact", "near"):
            return {"drop": values}
        if isinstance(values, str) and values in ("first", "longest", "best"):
            return {"drop": "near", "stays": values}
        return values

    @model_validator(mode="after")
    def _check(self) -> DuplicatesConfig:
        if (self.stays == "best") != (self.score_column is not None):
            raise ValueError(
                "duplicates.stays: best and duplicates.score_column, the column that says which "
                "row is best, belong together: set both or neither"
            )
        return self


def as_corpora(values: Any) -> Any:
    """The files of `protect` as sets of rows: a path alone is one of them."""
    if isinstance(values, str | Mapping):
        values = [values]
    if not isinstance(values, list | tuple):
        return values
    return [{"path": value} if isinstance(value, str) else value for value in values]
