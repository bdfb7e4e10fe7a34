"""Which pairs are asked about, and which teacher is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from engine.config.base import (
    PACKAGED_ENCODER,
    PACKAGED_LANGUAGE_MODEL,
    Execution,
    ModelConfig,
    Section,
    with_model,
)

__all__ = [
    "LANGUAGE_MODEL_TEACHERS",
    "POINTWISE_TEACHERS",
    "RANKING_TEACHERS",
    "TEACHER_MODELS",
    "TURN_TEACHERS",
    "AuditConfig",
    "LessConfig",
    "SampleConfig",
    "SelectITConfig",
    "TeacherConfig",
    "TeacherName",
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


class SelectITConfig(Section):
    """The SelectIT teacher: a model rates rows; its hesitation counts against them."""

    models: tuple[ModelConfig, ...] = Field(
        (), description="further models beside teacher.model; each weighs by its parameters"
    )
    rating_prompts: tuple[str, ...] = Field(
        (
            "Rate the quality of the response to the instruction below on a scale from 1 to 5, "
            "where 1 is very poor and 5 is excellent. Reply with the number only.",
            "How well does the response below follow its instruction? Give a score from 1 (not at "
            "all) to 5 (perfectly). Reply with the number only.",
            "Judge how accurate, complete and helpful the response below is for its instruction. "
            "Score it from 1 (useless) to 5 (ideal). Reply with the number only.",
            "Would the instruction and response below make a good training example? Grade them "
            "from 1 (certainly not) to 5 (certainly). Reply with the number only.",
            "Read the instruction and the response below and grade the response from 1 to 5: the "
            "better it is, the higher the number. Reply with the number only.",
        ),
        min_length=1,
        description="k sentences that ask for a rating from 1 to `levels`",
    )
    levels: int = Field(5, ge=2, le=9, description="digits 1..levels that are read as a rating")
    alpha: float = Field(0.2, ge=0, description="weight of the spread over rating prompts")
    prob_form: Literal["normalised", "reference"] = Field(
        "normalised", description="reference: a softmax over the normalised probabilities"
    )


class LessConfig(Section):
    """The LESS teacher: similarity of gradients along a LoRA warm-up."""

    lora_rank: int = Field(128, ge=1, description="of the adapters of the warm-up")
    lora_alpha: float = Field(512, gt=0, description="their scale, divided by the rank")
    lora_dropout: float = Field(0.1, ge=0, lt=1, description="during the warm-up only")
    lora_targets: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj"), min_length=1, description="names of linear layers"
    )
    warmup_fraction: float = Field(0.05, gt=0, le=1, description="share of the pool")
    warmup_epochs: int = Field(4, ge=1, description="checkpoints: one per epoch")
    warmup_batch_size: int = Field(32, ge=1, description="rows per optimiser step")
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="share of steps with rising rate")
    learning_rate: float = Field(2e-5, gt=0, description="peak; then linear decay to 0")
    adam_form: Literal["corrected", "reference"] = Field(
        "corrected", description="reference: Adam's moments without bias correction"
    )
    projection_dim: int = Field(
        8192, ge=64, le=16384, description="size of a projected gradient; multiple of 64"
    )


# The module of each is engine/teachers/NAME.py (docs/extending.md).
TeacherName = Literal[
    "delift",
    "delift_se",
    "less",
    "rds",
    "selectit",
    "random",
]
# Teachers that score a row alone, without a target.
POINTWISE_TEACHERS = ("selectit",)
LANGUAGE_MODEL_TEACHERS = ("delift", "less", "rds", "selectit")  # teacher.model is a causal one
RANKING_TEACHERS = ("less", "selectit")  # published with "take the best", not with coverage
TURN_TEACHERS = ("rds",)  # published with round robin
# What `teacher.model` is where the settings do not say; a teacher that is not here needs no model.
TEACHER_MODELS: dict[str, dict[str, Any]] = {
    "delift": {"path": PACKAGED_LANGUAGE_MODEL, "dtype": "bfloat16"},
    "delift_se": {"path": PACKAGED_ENCODER},
    "less": {"path": PACKAGED_LANGUAGE_MODEL, "dtype": "bfloat16"},
    "rds": {"path": PACKAGED_LANGUAGE_MODEL, "dtype": "bfloat16"},
    "selectit": {"path": PACKAGED_LANGUAGE_MODEL, "dtype": "bfloat16"},
}


class TeacherConfig(Section):
    """The expensive oracle whose scores the network learns."""

    name: TeacherName = Field("delift", description="docs/choosing.md says which when")
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
    max_example_tokens: int = Field(512, ge=8, description="delift: longest in-context example")
    batch_size: int = Field(16, ge=1, description="sequences or texts per forward pass")
    similarity: Literal["cosine", "dot", "euclidean", "rbf"] = Field(
        "cosine", description="delift_se: benefit of a pair from its two embeddings"
    )
    centred: bool | None = Field(
        None,
        description="rds, delift_se by cosine: take the mean vector of the asked candidates off "
        "every vector first. Default: rds does, since states of language models all point one way",
    )
    less: LessConfig = LessConfig()
    selectit: SelectITConfig = SelectITConfig()
    execution: Execution = Execution()

    @model_validator(mode="before")
    @classmethod
    def _complete_model(cls, values: Any) -> Any:
        name = str(values.get("name", "delift")) if isinstance(values, Mapping) else ""
        return with_model(values, TEACHER_MODELS.get(name, {"path": ""}))
