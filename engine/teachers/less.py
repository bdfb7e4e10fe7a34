"""LESS: does one row's gradient point the way of another's?

Source: LESS (arXiv 2402.04333). A LoRA warm-up on a share of the pool leaves one checkpoint i per
epoch. With g_i(z) the gradient of the mean cross-entropy of z's response over the adapters, P
one fixed random projection and Gamma_i(c) the step that Adam would take from checkpoint i with
the gradient g_i(c):

    S[c, t] = sum_i w_i cos(P Gamma_i(c), P g_i(t)), in [-1, 1]

w_i is the mean learning rate of epoch i, over their sum. A candidate's influence on a sub-task T is
its mean over the targets (`aggregation: mean_of_cos`). In `cos_of_mean` gradients are averaged
first; a pair's score is then the target's share, of which the mean over T is

    sum_i w_i cos(P Gamma_i(c), mean_t P g_i(t))

The text of a row is its data text z in
three pieces, each stripped and tokenised alone (template version 1), of which only the last is
learned:

    {bos}{x}   \\n##Answer:    {space}{y}{eos}

A row costs one forward and backward pass per checkpoint, whatever number of pairs it is in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from engine.artifacts.files import atomic_path
from engine.config import Section, TeacherConfig
from engine.config.facts import LANGUAGE_MODEL
from engine.errors import InputError
from engine.example import Example, order_hash
from engine.models.prompt_tokenizer import TrainingRow, tokenised_row
from engine.teachers.teacher import (
    Features,
    FloatArray,
    Scores,
    Side,
    Teacher,
    Usage,
    model_settings,
)

if TYPE_CHECKING:
    from torch import Tensor

    from engine.kernels.adam import AdamForm, AdamStep
    from engine.kernels.projection import SignProjection
    from engine.models.lora import LoraCheckpoint, LoraModel

__all__ = ["PROJECTION_SEED", "TEMPLATE_VERSION", "LessSettings", "LessTeacher"]

TEMPLATE_VERSION = 1  # raise it when the same texts would give other ids
PROJECTION_SEED = 20402  # the same matrix in all runs; its form is part of the template version

_SCORED_TARGETS = 64  # rows of float64 held at a time
_NO_GRADIENT = "the gradient is zero or not finite"
_NO_FEATURE = "one of the two has no gradient"
_METADATA = "epochs"


@dataclass(frozen=True, slots=True)
class _Asked:
    """Examples as token ids: rows by position, in the order of their keys."""

    rows: dict[int, TrainingRow]
    problems: list[str | None]
    num_truncated: int

    def usage(self, num_passes: int) -> Usage:
        tokens = sum(row.size for row in self.rows.values())
        num_rows = len(self.rows)
        return Usage(num_rows * num_passes, tokens * num_passes, self.num_truncated * num_passes)


class LessSettings(Section):
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
    aggregation: Literal["mean_of_cos", "cos_of_mean"] = Field(
        "mean_of_cos",
        description="a candidate's influence on a sub-task (influence.subtask_column): the mean of "
        "its cosines with the targets' gradients, or its cosine with the mean of their gradients, "
        "in which those of large gradients weigh more; a pair's score is the target's share of it",
    )


class LessTeacher(Teacher):
    """Weighted cosine of a candidate's Adam step and a target's gradient, in [-1, 1].

    A feature is one unit vector per checkpoint, (E * projection_dim) float16; of a target whose
    gradient is averaged with others the gradient as it is, float32. A prompt too long is
    cut from its head, a response never: one that does not fit is NaN.

    Args:
        load_model: makes the language model with its adapters, when features are first asked for.
        checkpoints: what `prepare` wrote.
        adam_form: of the candidates' steps.
        projection_dim: size of a projected gradient.
        max_tokens: longest row; the model's context may allow less.
        batch_size: rows per pass, at most; they never have more positions than one longest row.
        averages_first: candidates are compared with the mean gradient of a sub-task.
    """

    name = "less"
    label = "LESS"
    unit = "point"
    default_model = LANGUAGE_MODEL
    reads_language_model = True
    default_objective = "top_mean"  # as published
    Settings = LessSettings
    feature_sides = ("candidate", "target")

    def __init__(
        self,
        load_model: Callable[[], LoraModel],
        checkpoints: Path,
        adam_form: AdamForm,
        projection_dim: int,
        max_tokens: int,
        batch_size: int,
        averages_first: bool = False,
    ) -> None:
        self._load_model = load_model
        self._checkpoints = checkpoints
        self._adam_form: AdamForm = adam_form
        self._dim = projection_dim
        self._max_tokens = max_tokens
        self._batch_size = batch_size
        self._averages_first = averages_first
        rates = [epoch["learning_rate"] for epoch in _read_epochs(checkpoints)]
        self._weights = np.array(rates) / sum(rates)

    @cached_property
    def _model(self) -> LoraModel:
        return self._load_model()

    @cached_property
    def _projection(self) -> SignProjection:
        from engine.kernels.projection import SignProjection

        return SignProjection(self._dim, PROJECTION_SEED, self._model.device)

    @property
    def _limit(self) -> int:
        return min(self._max_tokens, self._model.context_size)

    @classmethod
    def load(cls, config: TeacherConfig, seed: int, prepared: Path | None = None) -> LessTeacher:
        assert prepared is not None, "less needs the file that `prepare` writes"
        return cls(
            partial(_load_model, config, seed),
            prepared,
            config.own(LessSettings).adam_form,
            config.own(LessSettings).projection_dim,
            config.max_tokens,
            config.batch_size,
            cls.joins_targets(config),
        )

    @classmethod
    def identity(cls, config: TeacherConfig) -> dict[str, Any]:
        from engine.kernels.adam import BETAS, EPSILON

        # Answers of the published aggregation are stored under a name without it.
        left_out = set() if cls.joins_targets(config) else {"aggregation"}
        return {
            **model_settings(config),
            "template": TEMPLATE_VERSION,
            "projection_seed": PROJECTION_SEED,
            "adam": [*BETAS, EPSILON],
            **config.own(LessSettings).model_dump(mode="json", exclude=left_out),
        }

    @classmethod
    def joins_targets(cls, config: TeacherConfig) -> bool:
        return config.own(LessSettings).aggregation == "cos_of_mean"

    def joined(self, features: FloatArray, subtask: FloatArray) -> FloatArray:
        """Gradients over the length of the sub-task's mean at each checkpoint.

        NaN rows take no part in the mean; all are NaN where there is none, or it is zero.
        """
        gradients, others = (
            some.reshape(len(some), len(self._weights), self._dim) for some in (features, subtask)
        )
        known = others[np.isfinite(others).all(axis=(1, 2))]
        if not len(known):
            return np.full_like(features, np.nan)
        lengths = np.linalg.norm(known.mean(axis=0, dtype=np.float64), axis=1)
        lengths[lengths == 0] = np.nan
        return np.asarray((gradients / lengths[:, None]).reshape(features.shape), np.float32)

    @classmethod
    def preparation_share(cls, config: TeacherConfig) -> float:
        return config.own(LessSettings).warmup_fraction

    @classmethod
    def prepare(
        cls, config: TeacherConfig, seed: int, examples: Sequence[Example], path: Path
    ) -> Usage:
        """The warm-up: adapters and Adam's moments after each epoch, into one safetensors file.

        Each epoch goes through the examples in another hash order. Rows without a response, or
        with one too long, are left out; raises InputError when none is left. The file takes
        12 bytes per adapter weight and epoch.
        """
        from engine.models.lora import learning_rates

        settings = config.own(LessSettings)
        model = _load_model(config, seed)
        limit = min(config.max_tokens, model.context_size)
        asked = _ask(model, limit, examples)
        if not asked.rows:
            raise InputError(
                f"the warm-up of the less teacher was given {len(examples)} candidates and can "
                "learn from none of them; raise teacher.less.warmup_fraction or teacher.max_tokens"
            )
        keys = [examples[i].key for i in asked.rows]
        orders = [
            sorted(range(len(keys)), key=lambda i: order_hash(seed, f"less epoch {e}", keys[i]))
            for e in range(settings.warmup_epochs)
        ]
        num_steps = settings.warmup_epochs * -(-len(keys) // settings.warmup_batch_size)
        checkpoints = model.fit(
            list(asked.rows.values()),
            orders,
            settings.warmup_batch_size,
            learning_rates(settings.learning_rate, settings.warmup_ratio, num_steps),
            config.batch_size,
            limit,
            _torch_seed(seed, "dropout"),
        )
        _write_checkpoints(checkpoints, path)
        return asked.usage(settings.warmup_epochs)

    def features(self, side: Side, examples: Sequence[Example]) -> Features:
        """Adam's steps or gradients (n, E * projection_dim), unit vectors; see the class."""
        asked = _ask(self._model, self._limit, examples)
        positions, rows = list(asked.rows), list(asked.rows.values())
        kind = np.float32 if self._averages_first and side == "target" else np.float16
        values = np.full((len(examples), len(self._weights), self._dim), np.nan, kind)
        for epoch in range(len(self._weights)):
            values[positions, epoch] = self._directions(epoch, side, rows)
        problems = asked.problems
        for i in positions:
            if not np.isfinite(values[i]).all():
                values[i], problems[i] = np.nan, _NO_GRADIENT
        usage = asked.usage(len(self._weights))
        return Features(values.reshape(len(examples), -1), problems, usage)

    def score(
        self,
        candidate: Example,
        candidate_feature: FloatArray | None,
        targets: Sequence[Example],
        target_features: FloatArray | None,
    ) -> Scores:
        """Weighted inner products of the unit vectors; calls no model."""
        assert candidate_feature is not None and target_features is not None, "needs gradients"
        weighted = candidate_feature * np.repeat(self._weights, self._dim)
        values = np.empty(len(targets), np.float32)
        # Row by row in float64, so that a target's score does not depend on how many are asked for.
        for start in range(0, len(targets), _SCORED_TARGETS):
            part = slice(start, start + _SCORED_TARGETS)
            values[part] = (target_features[part] * weighted).sum(axis=1)
        problems = [None if np.isfinite(value) else _NO_FEATURE for value in values]
        return Scores(values, problems, Usage())

    def _directions(
        self, epoch: int, side: Side, rows: Sequence[TrainingRow]
    ) -> NDArray[np.float32]:
        """Vectors (n, projection_dim) of one checkpoint, of unit length unless they are averaged.

        NaN for a gradient of zero.
        """
        directions = np.empty((len(rows), self._dim), np.float32)
        steps = self._enter(epoch, side)
        projection = self._projection
        for batch in self._model.batches(rows, self._batch_size, self._limit):
            sums = projection.start(len(batch))

            def receive(number: int, gradients: Tensor, sums: Tensor = sums) -> None:
                values = steps[number].of(gradients) if steps else gradients
                projection.add(sums, number, values)

            self._model.example_gradients([rows[i] for i in batch], receive)
            projected = projection.finish(sums)
            lengths = projected.norm(dim=1, keepdim=True)
            if self._averages_first and side == "target":
                lengths = lengths / lengths  # 1, and NaN for 0
            directions[batch] = (projected / lengths).cpu().numpy()
        return directions

    def _enter(self, epoch: int, side: Side) -> list[AdamStep]:
        """Put a checkpoint into the model; for candidates, Adam's step of each matrix."""
        from safetensors import safe_open

        from engine.kernels.adam import AdamStep

        names = list(self._model.matrices)
        num_steps = int(_read_epochs(self._checkpoints)[epoch]["num_steps"])
        with safe_open(self._checkpoints, "pt") as file:

            def read(what: str, name: str) -> Tensor:
                tensor: Tensor = file.get_tensor(f"{epoch}/{what}/{name}")
                return tensor.to(self._model.device)

            self._model.load({name: read("weights", name) for name in names})
            if side == "target":
                return []
            return [
                AdamStep(
                    read("first_moments", name).flatten(),
                    read("second_moments", name).flatten(),
                    num_steps,
                    self._adam_form,
                )
                for name in names
            ]


def _load_model(config: TeacherConfig, seed: int) -> LoraModel:
    from engine.models.lora import LoraModel

    settings = config.own(LessSettings)
    return LoraModel(
        config.model,
        settings.lora_rank,
        settings.lora_alpha,
        settings.lora_dropout,
        settings.lora_targets,
        _torch_seed(seed, "adapters"),
    )


def _torch_seed(seed: int, purpose: str) -> int:
    return order_hash(seed, f"less {purpose}") >> 1  # torch takes 63 bits


def _ask(model: LoraModel, limit: int, examples: Sequence[Example]) -> _Asked:
    """Examples as ids, or why not; by key, so that equal lengths are always batched alike."""
    rows: dict[int, TrainingRow] = {}
    problems: list[str | None] = [None] * len(examples)
    num_truncated = 0
    for i in sorted(range(len(examples)), key=lambda i: examples[i].key):
        row, truncated = tokenised_row(model.tokenizer, limit, examples[i])
        if isinstance(row, str):
            problems[i] = row
        else:
            rows[i] = row
            num_truncated += truncated
    return _Asked(rows, problems, num_truncated)


# --- the file of a warm-up -----------------------------------------------------------------------


def _write_checkpoints(checkpoints: Sequence[LoraCheckpoint], path: Path) -> None:
    """Tensors EPOCH/KIND/MATRIX, and what is not a tensor as JSON."""
    from safetensors.torch import save_file

    tensors = {}
    for epoch, checkpoint in enumerate(checkpoints):
        for what in ("weights", "first_moments", "second_moments"):
            for name, tensor in getattr(checkpoint, what).items():
                tensors[f"{epoch}/{what}/{name}"] = tensor
    epochs = [
        {"num_steps": checkpoint.num_steps, "learning_rate": checkpoint.learning_rate}
        for checkpoint in checkpoints
    ]
    with atomic_path(path) as temporary:  # one entry: safetensors writes several in any order
        save_file(tensors, temporary, metadata={_METADATA: json.dumps(epochs)})


def _read_epochs(path: Path) -> list[dict[str, float]]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        epochs: list[dict[str, float]] = json.loads(file.metadata()[_METADATA])
    return epochs
