"""What is picked, and by which objective."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from engine.config.base import Execution, NameOf, Section
from engine.config.facts import OBJECTIVES
from engine.config.own import OwnSettings

__all__ = [
    "OBJECTIVE_SETTINGS",
    "Cover",
    "QuotaConfig",
    "SelectionConfig",
]


class QuotaConfig(Section):
    """The most rows to select of each group of the candidates."""

    column: str = Field(description="column of the candidates that names the group, such as source")
    most: int | dict[str, int] = Field(
        description="rows of each group: one number for all, or a mapping by group, where a group "
        "that is left out is not limited"
    )

    def times(self, factor: float) -> QuotaConfig:
        """Quotas that are larger by a factor, rounded up."""
        most = self.most
        if isinstance(most, int):
            return QuotaConfig(column=self.column, most=math.ceil(factor * most))
        larger = {name: math.ceil(factor * rows) for name, rows in most.items()}
        return QuotaConfig(column=self.column, most=larger)


Cover = Literal["target", "self"]
# Settings that only some objectives have: keyword arguments of their constructors.
OBJECTIVE_SETTINGS = ("form", "eta", "nu", "trade_off")


class SelectionConfig(OwnSettings):
    """What is picked, and by which objective."""

    components = OBJECTIVES
    naming = "objective"

    budget: int | float | None = Field(
        None,
        description="rows to select: a share below 1, or a number of rows (500); "
        "default: 0.3, or with max_tokens as many as it allows",
    )
    max_tokens: int | None = Field(
        None,
        ge=1,
        description="most tokens of all selected rows together, prompt and answer, counted by the "
        "teacher's tokenizer (the encoder's where the teacher has none)",
    )
    quotas: QuotaConfig | None = None
    objective: Annotated[str, NameOf(OBJECTIVES)] | None = Field(
        None,
        description="default: that of the teacher (docs/choosing.md), where it has one and, if it "
        "has targets take turns, there is a target; else facility_location, or its conditional "
        "gain where there are `owned` rows",
    )
    cover: Cover | None = Field(
        None,
        description="what the picks are to cover: the targets, or the candidates themselves; "
        "default: the targets where the objective can. Beside a target set, candidates are "
        "compared with each other by the cosine of their embeddings, since the network knows "
        "influence on targets only",
    )
    form: Literal[1, 2] | None = Field(
        None,
        description="of facility_location_mutual_information, default 2: cover the targets, and "
        "prefer what is relevant to one; 1: cover the candidates as far as they are relevant",
    )
    eta: float | None = Field(
        None, ge=0, description="of mutual information, default 1: weight of relevance"
    )
    nu: float | None = Field(
        None,
        ge=0,
        description="where rows are owned, default 1: how strictly to keep away from what they "
        "cover, in conditional gain and mutual information",
    )
    trade_off: float | None = Field(
        None, ge=0, description="of graph_cut, default 0.5: weight of redundancy"
    )
    relevant_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="of mutual information of form 1: the share of the candidates that count as "
        "relevant at all; relevance is measured from the least relevant of them",
    )
    floor: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="cosine up to which two candidates do not cover each other at all, where they "
        "are compared by it",
    )
    scaling: Literal["minmax", "clip0", "quantile", "none"] = Field(
        "minmax",
        description="of influence before selection, fitted to the labels and frozen; minmax: their "
        "range becomes 0 to 1; clip0: what is above 0 of it; quantile: the share of them that are "
        "lower, so that a few extreme ones count like any other",
    )
    zero_gain_tail: Literal["cover_again", "by_mean_influence", "random", "stop"] | None = Field(
        None,
        description="how to go on when no candidate adds anything; cover_again: the next round of "
        "coverage, as if nothing had been picked, among those that are left. Default: cover_again "
        "for the three of facility_location, then by_mean_influence",
    )
    optimizer: Literal["lazy", "naive", "stochastic"] = Field(
        "lazy", description="naive: the same result, slowly; stochastic: a little less, sooner"
    )
    epsilon: float = Field(
        0.01, gt=0, lt=1, description="of stochastic: share of the optimum given up"
    )
    max_kernel_gib: float = Field(
        4.0,
        gt=0,
        description="memory of one worker for a kernel; a larger one is cut into partitions of "
        "neighbouring candidates, selected side by side and again from what they picked",
    )
    partitions: int | None = Field(
        None, ge=1, description="default: as many as max_kernel_gib needs, usually 1"
    )
    pool: Literal["all", "exclude_labelled"] = Field(
        "all",
        description="exclude_labelled: rows that the student learned from are not for selection, "
        "as published; all: they compete with the others, by what is predicted of them",
    )
    second_look: float = Field(
        0.0,
        ge=0,
        description="ask the teacher about the best so many budgets of candidates once they are "
        "predicted, and select again among those by its answers: 2.0, say; 0 is off",
    )
    second_look_targets: int = Field(
        20,
        ge=1,
        description="of the second look: targets that a teacher of pairs is asked about for each "
        "candidate; the others follow the prediction, shifted by what the answers say",
    )
    execution: Execution = Execution()

    @model_validator(mode="after")
    def _check_second_look(self) -> SelectionConfig:
        if 0 < self.second_look < 1:
            raise ValueError(
                "second_look counts budgets: 0 turns it off, and anything below 1 would leave too "
                f"few rows to select from, got {self.second_look:g}"
            )
        return self

    @field_validator("budget", mode="before")
    @classmethod
    def _check_kind_of_budget(cls, budget: Any) -> Any:
        share = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", str(budget))
        if share:
            raise ValueError(f"a share is a number: write {float(share[1]) / 100:g}")
        if isinstance(budget, bool):
            raise ValueError("must be a share (0.3) or a whole number of rows (500), got a boolean")
        return budget

    @model_validator(mode="after")
    def _check_budget(self) -> SelectionConfig:
        if self.budget is None:
            return self
        whole = isinstance(self.budget, int)
        if (whole and self.budget < 1) or (not whole and not 0 < self.budget <= 1):
            raise ValueError(
                "must be a share above 0 and at most 1.0 (0.3), or a whole number of rows (500)"
            )
        return self
