"""Scores that the user has: where they lie, and how they are read."""

from __future__ import annotations

from pydantic import Field

from engine.config.base import Section

__all__ = ["GivenConfig"]


class GivenConfig(Section):
    """The teacher `given`: scores that the user has, of rows or of pairs."""

    path: str = Field(
        description="file of the scores: .parquet, .jsonl or .csv, with the columns `id` and "
        "`score`, or `candidate_id`, `target_id` and `score`; s3://... too",
    )
    columns: tuple[str, ...] = Field(
        ("score",), min_length=1, description="scores; of several the mean is taken"
    )
    id_column: str = Field("id", description="of scores of rows: the row's id, compared as text")
    candidate_column: str = Field("candidate_id", description="of scores of pairs")
    target_column: str = Field("target_id", description="of scores of pairs")
    split_column: str | None = Field(
        None, description="column that says `train` or `audit`; default: drawn as sample.audit says"
    )
    higher_is_better: bool = Field(True, description="false: a low score is a good one")
