"""RDS+: similarity of a language model's own view of two rows.

Source: Large-Scale Data Selection for Instruction Tuning (arXiv 2503.01807). A row is its data text
z (`engine.models.prompt_tokenizer.tokenised_row`, template version 1); its vector is the mean of
the last hidden states over prompt and response, token i of n weighed by i / (1 + ... + n), so that
later tokens, which have seen more, count for more. The influence of a pair is the cosine of the
two vectors, in [-1, 1]. One forward pass per row, on either side, none per pair.

The states of a causal model share a few huge coordinates, so all cosines are near to one another
and their order by mean is that of lengths and noise. The mean vector of the asked candidates is
therefore taken off first (`teacher.centred`; off: as published).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from engine.config import TeacherConfig
from engine.config.facts import LANGUAGE_MODEL
from engine.example import Example
from engine.kernels.similarity import similarities
from engine.models.prompt_tokenizer import PromptTokenizer, TrainingRow, tokenised_row
from engine.teachers.teacher import (
    Features,
    FloatArray,
    Scores,
    Side,
    Teacher,
    Usage,
    VectorSimilarity,
    model_settings,
)

if TYPE_CHECKING:
    from engine.models.language_model import RowReadings

__all__ = ["TEMPLATE_VERSION", "RdsTeacher"]

TEMPLATE_VERSION = 1  # raise it when the same texts would give other ids
_NOT_FINITE = "the model gave a state that is zero or not finite"


class ReadingModel(Protocol):
    """What this teacher needs of `engine.models.language_model.LanguageModel`."""

    @property
    def tokenizer(self) -> PromptTokenizer:
        """Makes rows of ids."""

    @property
    def context_size(self) -> int:
        """Most tokens of a row."""

    @property
    def state_size(self) -> int:
        """H."""

    def read_rows(self, rows: Sequence[TrainingRow], batch_size: int, losses: bool) -> RowReadings:
        """Pooled states of rows."""


class RdsTeacher(Teacher):
    """Cosine of two rows' position-weighted hidden states, in [-1, 1].

    A prompt too long is cut from its head, a response that alone does not fit at its end. An empty
    response is NaN.

    Args:
        load_model: makes the language model, when features are first asked for.
        max_tokens: longest row; the model's context may allow less.
        batch_size: rows per forward pass.
    """

    name = "rds"
    label = "RDS+"
    unit = "point"
    default_model = LANGUAGE_MODEL
    reads_language_model = True
    default_objective = "round_robin"  # as published
    feature_sides = ("candidate", "target")
    same_features = True
    centred = True

    def __init__(
        self, load_model: Callable[[], ReadingModel], max_tokens: int, batch_size: int
    ) -> None:
        self._load_model = load_model
        self._max_tokens = max_tokens
        self._batch_size = batch_size

    @cached_property
    def _model(self) -> ReadingModel:
        return self._load_model()

    @classmethod
    def load(cls, config: TeacherConfig, seed: int, prepared: Path | None = None) -> RdsTeacher:
        from engine.models.language_model import LanguageModel

        return cls(lambda: LanguageModel(config.model), config.max_tokens, config.batch_size)

    @classmethod
    def vector_similarity(cls, config: TeacherConfig) -> VectorSimilarity | None:
        return "cosine"

    @classmethod
    def identity(cls, config: TeacherConfig) -> dict[str, Any]:
        return {**model_settings(config), "template": TEMPLATE_VERSION}

    def features(self, side: Side, examples: Sequence[Example]) -> Features:
        """Unit vectors (n, H) of the rows, the same on both sides."""
        limit = min(self._max_tokens, self._model.context_size)
        problems: list[str | None] = [None] * len(examples)
        asked: dict[int, TrainingRow] = {}
        num_truncated = 0
        # By key, so that equal lengths are batched alike whatever order they are asked in.
        for i in sorted(range(len(examples)), key=lambda i: examples[i].key):
            row, truncated = tokenised_row(self._model.tokenizer, limit, examples[i], True)
            if isinstance(row, str):
                problems[i] = row
            else:
                asked[i] = row
                num_truncated += truncated
        values = np.full((len(examples), self._model.state_size), np.nan, np.float32)
        read = self._model.read_rows(list(asked.values()), self._batch_size, False)
        for i, state in zip(asked, read.weighted_states.astype(np.float64), strict=True):
            norm = np.sqrt(state @ state)
            if np.isfinite(norm) and norm > 0:
                values[i] = state / norm
            else:
                problems[i] = _NOT_FINITE
        return Features(values, problems, Usage(len(asked), read.num_tokens, num_truncated))

    def score(
        self,
        candidate: Example,
        candidate_feature: FloatArray | None,
        targets: Sequence[Example],
        target_features: FloatArray | None,
    ) -> Scores:
        """Cosine of the pair's vectors as they are; calls no model."""
        assert candidate_feature is not None and target_features is not None, "needs vectors"
        values = similarities(candidate_feature[None], target_features, "cosine")
        problems = [None if np.isfinite(value) else _NOT_FINITE for value in values]
        return Scores(values, problems, Usage())
