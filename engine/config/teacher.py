"""Which pairs are asked about, and which teacher is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from engine.components import component, component_names
from engine.config.base import Execution, ModelConfig, NameOf, Section, with_model
from engine.config.facts import TEACHERS, TeacherFacts
from engine.config.own import OwnSettings

__all__ = [
    "AuditConfig",
    "SampleConfig",
    "TeacherConfig",
]


class AuditConfig(Section):
    """Fresh teacher labels, outside the training sample, that judge the network."""

    candidates: int = Field(40, ge=2, description="unseen candidates, rows of quadrants 3 and 4")
    targets: int = Field(
        16,
        ge=2,
        description="unseen targets, columns of quadrants 2 and 4; quadrant 3: as many seen ones",
    )
    max_share: float = Field(
        0.33,
        gt=0,
        lt=1,
        description="of the teacher's calls that the audit may take, so that most of a small "
        "sample is learned from; beyond it the audit has fewer candidates and targets",
    )


class SampleConfig(Section):
    """Which pairs the teacher is asked about."""

    fraction: float = Field(
        0.05,
        gt=0,
        le=1,
        description="u: share of the points per side; u^2 of the pairs are asked. 1 asks about "
        "everything: the full teacher, and no network",
    )
    design: Literal["block", "scattered", "stratified"] | None = Field(
        None,
        description="default: scattered for a teacher paid by the pair, stratified for one paid by "
        "the point. block: all pairs of u*M candidates and u*N targets, as published; "
        "scattered: as many pairs spread over more candidates and targets; stratified: spread in "
        "the proportions of the clusters of the embeddings",
    )
    targets_per_candidate: int = Field(20, ge=1, description="of the spread designs")
    num_strata: int = Field(32, ge=2, description="clusters of the stratified design")
    max_targets: int = Field(
        1000,
        ge=2,
        description="of a teacher paid by the point: it is asked about all targets up to so many, "
        "whatever the fraction, which is then a share of the candidates; design block keeps to u "
        "of both sides",
    )
    held_out: float = Field(0.1, ge=0, lt=1, description="share of the pairs kept for quadrant 1")
    audit: AuditConfig = AuditConfig()


class TeacherConfig(OwnSettings):
    """The expensive oracle whose scores the network learns."""

    components = TEACHERS

    name: Annotated[str, NameOf(TEACHERS)] = Field(
        "delift", description="docs/choosing.md says which when"
    )
    model: ModelConfig = Field(description="language model, or the encoder of delift_se")
    instruction: str = Field(
        "Answer the query below as well as you can.",
        description="delift: the sentence that opens the prompt, the same with and without example",
    )
    prompt_style: Literal["shared", "reference", "chat"] = Field(
        "shared",
        description="delift: one sentence for both arms, the published two different ones, or the "
        "model's chat template",
    )
    max_tokens: int = Field(2048, ge=64, description="longest prompt with response")
    max_example_tokens: int = Field(
        512,
        ge=8,
        description="delift: longest in-context example; a longer one loses the head of its prompt",
    )
    batch_size: int = Field(16, ge=1, description="sequences or texts per forward pass")
    similarity: Literal["cosine", "dot", "euclidean", "rbf"] = Field(
        "cosine", description="delift_se: benefit of a pair from its two embeddings"
    )
    centred: bool | None = Field(
        None,
        description="rds, delift_se by cosine: take the mean vector of the asked candidates off "
        "every vector first. Default: rds does, since states of language models all point one way",
    )
    execution: Execution = Execution()

    @property
    def facts(self) -> type[TeacherFacts]:
        """The class of the teacher, of which settings know the facts alone."""
        return component(TEACHERS, self.name)

    @model_validator(mode="before")
    @classmethod
    def _complete_model(cls, values: Any) -> Any:
        name = values.get("name", "delift") if isinstance(values, Mapping) else None
        model = None
        if isinstance(name, str) and name in component_names(TEACHERS):
            model = component(TEACHERS, name).default_model
        return with_model(values, model or {"path": ""})


def with_whole_sample(values: Any) -> Any:
    """Settings of a run or a gate, whose sample is everything where the teacher costs nothing."""
    if not isinstance(values, Mapping):
        return values
    teacher, sample = values.get("teacher"), values.get("sample", {})
    if isinstance(teacher, Mapping):
        name = teacher.get("name")
        is_free = (
            isinstance(name, str)
            and name in component_names(TEACHERS)
            and component(TEACHERS, name).from_embeddings
        )
    else:
        is_free = isinstance(teacher, TeacherConfig) and teacher.facts.from_embeddings
    if not is_free or not isinstance(sample, Mapping) or "fraction" in sample:
        return values
    return {**values, "sample": {**sample, "fraction": 1.0}}
