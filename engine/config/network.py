"""What a student reads, how it is fitted and trusted, how it is spread over all pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from engine.config.base import (
    PACKAGED_ENCODER,
    Execution,
    ModelConfig,
    NameOf,
    Section,
    with_model,
)
from engine.config.facts import STUDENTS
from engine.config.own import OwnSettings

__all__ = [
    "LANGUAGE_MODEL_FEATURES",
    "NETWORK_PRESETS",
    "DriftConfig",
    "EmbeddingConfig",
    "FeatureName",
    "GateConfig",
    "InfluenceConfig",
    "NetworkConfig",
    "StudentConfig",
]

# What engine/features can give of a row.
FeatureName = Literal["text", "prompt", "response", "agreement", "length", "states", "losses"]
LANGUAGE_MODEL_FEATURES = ("states", "losses")  # those that teacher.model reads


class EmbeddingConfig(Section):
    """The sentence encoder whose vectors the InfluenceNetwork reads."""

    model: ModelConfig = Field(description="any encoder of sentence-transformers")
    max_tokens: int | None = Field(None, ge=8, description="default: the encoder's own limit")
    batch_size: int = Field(32, ge=1, description="texts per forward pass, sorted by length")
    execution: Execution = Execution()

    @model_validator(mode="before")
    @classmethod
    def _complete_model(cls, values: Any) -> Any:
        return with_model(values, {"path": PACKAGED_ENCODER})


NETWORK_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "members": 1,
        "main_effects": False,
        "standardise_labels": False,
        "epochs": 20,
        "learning_rate": 1e-4,
        "weight_decay": 0.0,
        "batch_size": 64,
        "input_dropout": 0.0,
        "validation_fraction": 0.0,
        "patience": None,
    },
    "default": {
        "members": 5,
        "main_effects": True,
        "standardise_labels": True,
        "epochs": 300,
        "learning_rate": 4e-3,
        "weight_decay": 1e-2,
        "batch_size": 256,
        "input_dropout": 0.5,
        "validation_fraction": 0.15,
        "patience": 30,
    },
}


class NetworkConfig(Section):
    """The InfluenceNetwork and how it is fitted; `preset` fills in what is not given."""

    preset: Literal["default", "paper"] = Field(
        "default", description="paper: the published recipe; default: what our studies found best"
    )
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (100,), description="units of each hidden layer; [] is a linear model"
    )
    members: int = Field(
        ge=1,
        description="networks that share the hidden units, each with a fold of the candidates held "
        "out; all train for as many epochs as serve what they hold out best, and their mean is the "
        "network. Needs exactly one hidden layer",
    )
    main_effects: bool = Field(description="add a linear term of each embedding to the output")
    standardise_labels: bool = Field(description="fit (label - mean) / std of the training labels")
    loss: Literal["mse", "huber"] = Field(
        "mse",
        description="huber: an error beyond 1 (a standard deviation, if labels are standardised) "
        "counts by its size, not its square",
    )
    epochs: int = Field(ge=1, description="at most, of each member")
    learning_rate: float = Field(gt=0, description="of AdamW")
    weight_decay: float = Field(ge=0, description="of AdamW; 0 is Adam")
    batch_size: int = Field(ge=1, description="pairs per step over all workers")
    input_dropout: float = Field(ge=0, lt=1, description="share of the inputs set to 0")
    validation_fraction: float = Field(
        ge=0,
        lt=1,
        description="share of the sampled candidates that a single member holds out for early "
        "stopping; several hold out a fold each, unless it is 0",
    )
    patience: int | None = Field(ge=1, description="epochs without progress before stopping")
    num_workers: int = Field(
        2, ge=1, description="Ray Train workers; recorded, rounding depends on it"
    )
    execution: Execution = Execution()

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        preset = dict(NETWORK_PRESETS.get(values.get("preset", "default"), {}))
        if len(values.get("hidden", (100,))) != 1:
            preset["members"] = 1
        return {**preset, **values}

    @model_validator(mode="after")
    def _check_members(self) -> NetworkConfig:
        if self.members > 1 and (len(self.hidden) != 1 or self.hidden[0] < self.members):
            raise ValueError(
                f"network.members {self.members} share one hidden layer of at least as many units, "
                f"got network.hidden {list(self.hidden)}: set network.members 1"
            )
        return self


class StudentConfig(OwnSettings):
    """What learns the teacher's answers and predicts the rest."""

    components = STUDENTS

    name: Annotated[str, NameOf(STUDENTS, also=("auto",))] = Field(
        "auto",
        description="auto: the first, in the order of preference (docs/choosing.md), that does not "
        "predict held-out labelled candidates significantly worse than the best, by order within a "
        "target and by their means",
    )
    contenders: tuple[Annotated[str, NameOf(STUDENTS)], ...] | None = Field(
        None,
        min_length=1,
        description="auto: what is tried; default: all that can learn from the teacher's answers, "
        "the network only of a teacher paid by the pair, vector_network only of thousands of rows, "
        "the kernel only where there are no vectors. In the order of preference",
    )
    labels: Literal["auto", "raw", "clipped", "ranks"] = Field(
        "auto",
        description="what is learned of single pairs: the scores, those beyond the 2 % at either "
        "end moved there, or their ranks as normal scores; auto: what predicts best",
    )
    targets: Literal["exact", "student"] | None = Field(
        None,
        description="of a teacher that was asked about all targets: what it said of each, or what "
        "the student makes of it, which smooths a noisy teacher on both sides. Default: student of "
        "a teacher's vectors, exact of its scores",
    )
    max_landmarks: int = Field(
        4096, ge=16, description="labelled rows that the kernels compare a new row with, at most"
    )
    vector_units: int = Field(
        1000,
        ge=1,
        description="hidden units of vector_network; all else of its fit is as `network` says",
    )
    folds: int = Field(5, ge=2, description="auto: parts that the labelled candidates are cut into")


class GateConfig(Section):
    """What happens when the audit says that the network cannot be trusted; changes no artifact."""

    on_low_fidelity: Literal["warn", "fail", "extend"] = Field(
        "warn",
        description="warn: go on, and say so first; fail: stop after the fit; extend: ask the "
        "teacher about more, until the network can be trusted or max_fraction is reached",
    )
    growth: float = Field(1.5, gt=1, description="extend: factor on sample.fraction each time")
    max_fraction: float = Field(
        0.2, gt=0, le=1, description="extend: the budget, as the largest sample.fraction"
    )


class InfluenceConfig(Section):
    """How the fitted network is spread over all pairs."""

    max_dense_gib: float = Field(
        1.0, gt=0, description="largest matrix written in full; above it, the neighbours only"
    )
    neighbours: int = Field(
        64, ge=1, description="K: candidates kept per target of a sparse kernel"
    )
    recall: float = Field(
        1.0,
        gt=0,
        le=1,
        description="least share of their true best candidates that the targets of a sparse kernel "
        "must find, on average; below 1 most targets are compared with a pool of candidates only",
    )
    subtask_column: str | None = Field(
        None,
        description="column of the targets that names their sub-task: a candidate's mean influence "
        "is then its best mean over one of them, as LESS has it; default: one sub-task",
    )
    execution: Execution = Execution()


class DriftConfig(Section):
    """Of `jobs/score_new.py`: whether the network may judge rows that it was not fitted on."""

    audit_candidates: int = Field(
        20, ge=0, description="new rows that the teacher is asked about; 0: it is not asked"
    )
    audit_targets: int = Field(16, ge=2, description="targets that it is asked about for each")
    max_far_share: float = Field(
        0.15,
        gt=0,
        le=1,
        description="share of new rows that may lie farther from the training rows than 95 % of "
        "the old rows do, before the network counts as out of its depth; 0.05 is no drift at all",
    )
