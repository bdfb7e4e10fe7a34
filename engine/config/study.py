"""How the settings of students are studied."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from engine.config.base import Section

__all__ = [
    "SearchRange",
    "StudyConfig",
]


class SearchRange(Section):
    """Where a setting is drawn from."""

    low: float = Field(description="least value")
    high: float = Field(description="largest value")
    log: bool = Field(False, description="drawn evenly by order of magnitude")

    @model_validator(mode="after")
    def _check(self) -> SearchRange:
        if self.low > self.high or (self.log and self.low <= 0):
            raise ValueError("low must not be above high, and with log it must be above 0")
        return self


class StudyConfig(Section):
    """Of `jobs/tune.py`: many students fitted on labels of a teacher asked about everything."""

    grid: dict[str, tuple[Any, ...]] = Field(
        default_factory=dict,
        description="values of features and of settings below student., network. and sample., "
        "every combination of them, e.g. "
        "{network.hidden: [[100], [500]], sample.fraction: [0.05, 0.1]}",
    )
    search: dict[str, SearchRange | tuple[Any, ...]] = Field(
        default_factory=dict,
        description="settings to draw: {low, high, log} or a list of values; each `samples` times "
        "with every combination of the grid",
    )
    samples: int = Field(1, ge=1, description="draws of the search")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="of every trial")
    scheduler: Literal["fifo", "asha"] = Field(
        "fifo", description="asha stops trials that fall behind; which ones depends on the timing"
    )
    objective: str = Field(
        "unseen student mse_std",
        description="measure that the best trial has least of, of candidates not asked about",
    )
    fractions: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (), description="v, shares to select, for the agreement of subsets with the teacher's"
    )
    log_likelihood: Literal["icl", "qlora"] | None = Field(
        None,
        description="also ask evaluation.model how likely the references of evaluation.test are, "
        "with every subset shown in the prompt or trained on",
    )
    pairs_per_quadrant: int = Field(1_000, ge=10, description="labels that judge a student")
    cpus_per_trial: float = Field(0.5, gt=0, description="fractions share one")
    gpus_per_trial: float = Field(0.0, ge=0, description="fractions share one")
    max_concurrent: int | None = Field(None, ge=1, description="trials at a time")
    tracker: Literal["mlflow", "wandb"] | None = Field(
        None, description="where trials are logged too; TensorBoard's events are always written"
    )
    tracking_uri: str | None = Field(None, description="of MLflow; default: its own")
    project: str = Field("nn-cift", description="of the tracker")
