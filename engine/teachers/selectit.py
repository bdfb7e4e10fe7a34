"""SelectIT: a model rates rows on its own, and its hesitation counts against them.

Source: SelectIT (arXiv 2402.16705); the formulas are in `engine.kernels.rating`. A score belongs to
one candidate: targets play no part. The model reads k rating prompts per row (template version 1,
texts stripped), and the probabilities of the digits 1..L as the next token are its rating:

    {bos}{rating sentence}\\nInstruction: {x}\\nResponse: {y}\\nThe answer is:

They are joined from pieces that are tokenised one by one. How a digit continues the prompt
depends on the tokenizer: as " 1" where that is one token, else as "1" behind a prompt that ends
in a space, else as "1" alone; the first form that gives each digit one token of its own is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from pydantic import Field

from engine.config import ModelConfig, Section, TeacherConfig
from engine.config.facts import LANGUAGE_MODEL
from engine.errors import ModelError
from engine.example import Example
from engine.kernels.rating import ProbabilityForm, model_score, sentence_score, token_score
from engine.models.prompt_tokenizer import CHARACTERS_PER_TOKEN
from engine.teachers.teacher import (
    Features,
    FloatArray,
    RowTeacher,
    Side,
    Usage,
    model_settings,
)

if TYPE_CHECKING:
    from engine.models.language_model import NextTokenProbabilities

__all__ = ["TEMPLATE_VERSION", "RatingModel", "SelectITSettings", "SelectITTeacher"]

TEMPLATE_VERSION = 1  # raise it when the same texts would give other ids

_ANSWER_MARK = "\nThe answer is:"
# What ends the prompt after the mark, and what is put before a digit.
_DIGIT_FORMS = (("", " "), (" ", ""), ("", ""))
_NO_RATING = "the model gave no usable probability to the ratings"


class SelectITSettings(Section):
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


class RatingModel(Protocol):
    """What this teacher needs of `engine.models.language_model.LanguageModel`."""

    @property
    def name(self) -> str:
        """What the settings call it, for messages."""

    @property
    def num_parameters(self) -> int:
        """How much its opinion weighs beside other models."""

    @property
    def bos(self) -> int | None:
        """Id put before a prompt, if any."""

    @property
    def context_size(self) -> int:
        """Most tokens of a prompt."""

    def tokenize(self, text: str) -> list[int]:
        """Ids of a piece of text, without special tokens."""

    def next_token_probabilities(
        self, prompts: Sequence[Sequence[int]], tokens: Sequence[int], batch_size: int
    ) -> NextTokenProbabilities:
        """Probability of each token right after each prompt."""


@dataclass(frozen=True, slots=True)
class _Prompts:
    """The k rating prompts of one row as ids, with the instruction cut to fit."""

    ids: list[list[int]]
    truncated: bool


class SelectITTeacher(RowTeacher):
    """Quality of a candidate as models see it, in [0, levels]; the same for every target.

    `features` does the work: k sequences per row and model, in batches over rows and prompts;
    `score` calls no model. All models are loaded side by side, so an actor holds all their
    weights. A prompt that is too long loses the instruction's head, alike in all k prompts; the
    rating sentence, the response and the closing words never lose anything: a response that does
    not fit is NaN, since half an answer would be rated as a bad one.

    Args:
        load_models: makes at least one model, when features are first asked for; each weighs by its
            number of parameters.
        rating_prompts: k sentences that ask for a rating from 1 to `levels`.
        levels: L, at most 9.
        alpha: weight of the spread over the k prompts.
        form: of the probabilities, see `engine.kernels.rating.token_score`.
        max_tokens: longest prompt; a model's context may allow less.
        batch_size: sequences per forward pass.

    Raises ModelError for a model whose tokenizer has no single token for one of the digits.
    """

    name = "selectit"
    label = "SelectIT"
    unit = "point"
    default_model = LANGUAGE_MODEL
    reads_language_model = True
    default_objective = "top_mean"  # as published
    Settings = SelectITSettings

    def __init__(
        self,
        load_models: Callable[[], Sequence[RatingModel]],
        rating_prompts: Sequence[str],
        levels: int,
        alpha: float,
        form: ProbabilityForm,
        max_tokens: int,
        batch_size: int,
    ) -> None:
        self._load_models = load_models
        self._rating = (rating_prompts, levels, max_tokens)
        self._alpha = alpha
        self._form = form
        self._batch_size = batch_size

    @cached_property
    def _raters(self) -> list[_Rater]:
        return [_Rater(model, *self._rating) for model in self._load_models()]

    @classmethod
    def load(
        cls, config: TeacherConfig, seed: int, prepared: Path | None = None
    ) -> SelectITTeacher:
        from engine.models.language_model import LanguageModel

        settings = config.own(SelectITSettings)
        return cls(
            lambda: [LanguageModel(model) for model in _models(config)],
            settings.rating_prompts,
            settings.levels,
            settings.alpha,
            settings.prob_form,
            config.max_tokens,
            config.batch_size,
        )

    @classmethod
    def further_models(cls, config: TeacherConfig) -> Sequence[ModelConfig]:
        return config.own(SelectITSettings).models

    @classmethod
    def identity(cls, config: TeacherConfig) -> dict[str, Any]:
        from engine.models.resolve import model_identity

        settings = config.own(SelectITSettings)
        return {
            **model_settings(config),
            "template": TEMPLATE_VERSION,
            "further_models": [
                {
                    "model": model_identity(model),
                    "dtype": model.dtype,
                    "quantization": model.quantization,
                }
                for model in settings.models
            ],
            "rating_prompts": list(settings.rating_prompts),
            "levels": settings.levels,
            "alpha": settings.alpha,
            "prob_form": settings.prob_form,
        }

    def features(self, side: Side, examples: Sequence[Example]) -> Features:
        """Scores (n, 1) of the candidates."""
        assert side == "candidate", "selectit needs no feature of a target"
        values = np.full((len(examples), 1), np.nan, np.float32)
        problems: list[str | None] = [None] * len(examples)
        asked: dict[int, list[_Prompts]] = {}
        # By key, so that equal lengths are batched alike whatever order they are asked in.
        for i in sorted(range(len(examples)), key=lambda i: examples[i].key):
            made = [rater.prompts(examples[i]) for rater in self._raters]
            problems[i] = next((prompts for prompts in made if isinstance(prompts, str)), None)
            if problems[i] is None:
                asked[i] = [prompts for prompts in made if isinstance(prompts, _Prompts)]
        scores, usage = self._scores(list(asked.values()))
        for i, score in zip(asked, scores, strict=True):
            values[i] = score
            problems[i] = None if np.isfinite(score) else _NO_RATING
        return Features(values, problems, usage)

    def _scores(self, asked: list[list[_Prompts]]) -> tuple[FloatArray, Usage]:
        """S_model (n,) of n rows, given their prompts for each model."""
        if not asked:
            return np.empty(0, np.float32), Usage()
        per_model = []
        usage = Usage()
        for rater, prompts in zip(self._raters, zip(*asked, strict=True), strict=True):
            probabilities, used = rater.rate(prompts, self._batch_size)
            usage += used
            per_model.append(sentence_score(token_score(probabilities, self._form), self._alpha))
        sizes = [rater.num_parameters for rater in self._raters]
        return model_score(np.stack(per_model), sizes).astype(np.float32), usage


class _Rater:
    """One model with the pieces of the rating prompts as its ids."""

    def __init__(
        self, model: RatingModel, rating_prompts: Sequence[str], levels: int, max_tokens: int
    ) -> None:
        self._model = model
        self._limit = min(max_tokens, model.context_size)
        bos = [] if model.bos is None else [model.bos]
        self._heads = [[*bos, *model.tokenize(sentence.strip())] for sentence in rating_prompts]
        self._instruction_mark = model.tokenize("\nInstruction:")
        self._response_mark = model.tokenize("\nResponse:")
        self._closing, self._digits = _resolve_digits(model, levels)

    @property
    def num_parameters(self) -> int:
        return self._model.num_parameters

    def prompts(self, example: Example) -> _Prompts | str:
        """The k prompts of a row, or why it cannot be rated."""
        answer = example.output.strip()
        if not answer:
            return "the response is empty"
        too_long = f"the response does not fit in max_tokens ({self._limit})"
        most_characters = self._limit * CHARACTERS_PER_TOKEN
        if len(answer) > most_characters:
            return too_long
        response = [*self._response_mark, *self._model.tokenize(" " + answer), *self._closing]
        # The longest sentence decides for all, so that they show the same part of the row.
        longest = max(len(head) for head in self._heads)
        room = self._limit - longest - len(self._instruction_mark) - len(response)
        if room < 0:
            num_tokens = len(response) - len(self._response_mark) - len(self._closing)
            return f"{too_long}: it has {num_tokens} tokens"
        text = " " + example.prompt.strip()
        ids = self._model.tokenize(text[-most_characters:])
        kept = ids[max(0, len(ids) - room) :]
        rest = [*self._instruction_mark, *kept, *response]
        truncated = len(kept) < len(ids) or len(text) > most_characters
        return _Prompts([[*head, *rest] for head in self._heads], truncated)

    def rate(self, rows: Sequence[_Prompts], batch_size: int) -> tuple[FloatArray, Usage]:
        """Probabilities (n, k, L) of the digits after each prompt of n rows."""
        sequences = [ids for row in rows for ids in row.ids]
        answer = self._model.next_token_probabilities(sequences, self._digits, batch_size)
        shape = (len(rows), len(self._heads), len(self._digits))
        num_truncated = len(self._heads) * sum(row.truncated for row in rows)
        usage = Usage(len(sequences), answer.num_tokens, num_truncated)
        return answer.values.reshape(shape), usage


def _models(config: TeacherConfig) -> list[ModelConfig]:
    """All models; threads are a process's, so those of the first count for all."""
    threads = {"threads": config.model.threads}
    further = [model.model_copy(update=threads) for model in config.own(SelectITSettings).models]
    return [config.model, *further]


def _resolve_digits(model: RatingModel, levels: int) -> tuple[list[int], list[int]]:
    """Ids of the words that close a prompt, and of each digit 1..levels right after them."""
    digits = [str(level) for level in range(1, levels + 1)]
    split = digits[0]
    for ending, lead in _DIGIT_FORMS:
        closing = model.tokenize(_ANSWER_MARK + ending)
        found: list[int] = []
        for digit in digits:
            ids = model.tokenize(_ANSWER_MARK + ending + lead + digit)
            if ids[:-1] != closing or ids[-1] in found:
                split = digit
                break
            found.append(ids[-1])
        else:
            return closing, found
    raise ModelError(
        f"model {model.name}: its tokenizer has no token of its own for the digit {split} after "
        f"{_ANSWER_MARK.strip()!r}, so it cannot rate from 1 to {levels}; use another model"
    )
