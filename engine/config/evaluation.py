"""Whether a model does better with the subset: arms, methods, judge."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from engine.config.base import (
    PACKAGED_LANGUAGE_MODEL,
    CorpusConfig,
    Execution,
    ModelConfig,
    Section,
    with_model,
)
from engine.config.teacher import TeacherConfig

__all__ = [
    "ArmKind",
    "BaselineName",
    "EvaluationConfig",
    "FineTuningConfig",
    "JudgeConfig",
]

# Arms that choose without influence: engine/selection/baselines.py has a function for each.
BaselineName = Literal[
    "balanced",
    "length",
    "perplexity_middle",
    "perplexity_top",
    "bm25",
    "bm25_round_robin",
    "tf_idf",
    "tf_idf_round_robin",
    "cosine",
]
ArmKind = Literal["initial", "random", BaselineName, "rds", "teacher", "small", "network", "full"]


class FineTuningConfig(Section):
    """QLoRA of the evaluated model on a subset."""

    quantization: Literal["nf4", "int8"] | None = Field(
        "nf4", description="of the frozen weights; null trains plain LoRA"
    )
    lora_rank: int = Field(8, ge=1, description="of the adapters")
    lora_alpha: float = Field(16.0, gt=0, description="their scale, divided by the rank")
    lora_dropout: float = Field(0.05, ge=0, lt=1, description="on what goes into them")
    lora_targets: tuple[str, ...] | None = Field(
        None, description="names of linear layers; default: all but the LM head"
    )
    learning_rate: float = Field(2e-4, gt=0, description="at the start; then linear decay to 0")
    epochs: int = Field(3, ge=1, description="passes over the subset")
    batch_size: int = Field(4, ge=1, description="rows per optimiser step")
    max_tokens: int = Field(1024, ge=16, description="longest row; a prompt is cut from its head")
    max_seeds: dict[ArmKind, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict,
        description="trainings of each arm of a kind, e.g. {full: 1}; default: one per seed",
    )
    execution: Execution = Field(
        Execution(max_actors=1),
        description="max_actors: Ray Train workers, each of which trains adapters of its own",
    )


class JudgeConfig(Section):
    """The language model that grades answers from 1 to 5 against the reference."""

    model: ModelConfig = Field(
        ModelConfig(
            path="prometheus-eval/prometheus-7b-v2.0", dtype="bfloat16", quantization="nf4"
        ),
        description="an instruct model",
    )
    max_new_tokens: int = Field(256, ge=1, description="feedback and grade")
    max_tokens: int = Field(4096, ge=512, description="longest prompt")
    batch_size: int = Field(8, ge=1, description="answers per forward pass")
    rows: int | None = Field(None, ge=1, description="test rows to judge; default: all")


class EvaluationConfig(Section):
    """Of `jobs/evaluate.py`: does a model do better with the subset, and with whose?"""

    test: CorpusConfig = Field(description="rows to answer, seen by nothing else")
    model: ModelConfig = Field(description="the model that is shown or trained on the subsets")
    teachers: tuple[TeacherConfig, ...] = Field(
        (), description="whose subsets to compare; default: `teacher` alone"
    )
    small_model: ModelConfig | None = Field(
        None, description="asked in the place of each teacher's model, for the arms `small`"
    )
    arms: tuple[ArmKind, ...] = Field(
        ("initial", "random", "teacher", "small", "network", "full"),
        description="ways to choose that are compared: docs/evaluation.md",
    )
    source_column: str | None = Field(
        None,
        description="of the arm `balanced`: column of the candidates that says where a row is "
        "from; default: the file that it was read from",
    )
    methods: tuple[Literal["icl", "qlora"], ...] = Field(
        ("icl", "qlora"), min_length=1, description="show rows in the prompt, or train on them"
    )
    seeds: tuple[int, ...] = Field(
        (0, 1, 2), min_length=1, description="of random draws, samples, networks and trainings"
    )
    prompt_style: Literal["chat", "plain"] = Field(
        "chat", description="the model's chat template, or Query: ... Answer: ..."
    )
    instruction: str = Field(
        "Answer the query below as well as you can.",
        description="icl: the sentence that opens the prompt",
    )
    num_examples: int = Field(5, ge=1, description="icl: k nearest rows of the subset")
    max_tokens: int = Field(
        2048, ge=64, description="longest prompt with answer; examples are dropped to fit"
    )
    max_new_tokens: int = Field(150, ge=1, description="longest answer")
    batch_size: int = Field(8, ge=1, description="prompts per forward pass")
    sampling: Literal["greedy", "reference"] = Field(
        "greedy", description="reference: temperature 0.2, min_p 0.1"
    )
    similarity_model: ModelConfig | None = Field(
        None, description="encoder of the similarity metric; default: embedding.model"
    )
    qlora: FineTuningConfig = FineTuningConfig()
    judge: JudgeConfig | None = Field(None, description="default: no judge")
    execution: Execution = Execution()

    @model_validator(mode="before")
    @classmethod
    def _complete_model(cls, values: Any) -> Any:
        return with_model(values, {"path": PACKAGED_LANGUAGE_MODEL, "dtype": "bfloat16"})

    @model_validator(mode="after")
    def _check(self) -> EvaluationConfig:
        names = [teacher.name for teacher in self.teachers]
        if len(set(names)) < len(names):
            raise ValueError("evaluation.teachers names a teacher twice")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("evaluation.seeds names a seed twice")
        return self
