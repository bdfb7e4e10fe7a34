"""IFD: how much harder is a response to predict than it would be without its prompt?

Source: Instruction-Following Difficulty, arXiv 2308.12032; that small models do for it:
Superfiltering, arXiv 2402.00530. With l(y|x) the mean cross-entropy of a row's response after its
prompt, the end of the response included, and l(y) the same without the prompt:

    loss         l(y|x) / l(y)
    perplexity   exp(l(y|x)) / exp(l(y)), as published

Above 1 the prompt does not help at all: the response answers something else, or says nothing. The
published method drops those rows and takes the highest of the others, the hardest; as a gate
(`quality`) the highest are the worst.

Two forward passes per row, the second without the prompt. The texts are those of a row's data text,
template version 1 (`engine.models.prompt_tokenizer.tokenised_row`); without the prompt

    {bos}\\n##Answer:    {space}{y}{eos}

or, with `template: chat`, the model's chat template round both texts, and round an empty question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from pydantic import Field

from engine.config import Section, TeacherConfig
from engine.config.facts import LANGUAGE_MODEL
from engine.example import ANSWER_MARK, Example
from engine.models.prompt_tokenizer import (
    CHARACTERS_PER_TOKEN,
    ChatFrame,
    PromptTokenizer,
    TrainingRow,
    tokenised_row,
)
from engine.teachers.teacher import (
    Features,
    FloatArray,
    RowTeacher,
    Side,
    Usage,
    model_settings,
)

if TYPE_CHECKING:
    from engine.models.language_model import RowReadings

__all__ = ["TEMPLATE_VERSION", "IfdSettings", "IfdTeacher"]

TEMPLATE_VERSION = 1  # raise it when the same texts would give other ids
_NOT_FINITE = "the model gave a loss that is zero or not finite"

Form = Literal["perplexity", "loss"]


class IfdSettings(Section):
    """The IFD teacher: what a prompt does for the likelihood of its response."""

    form: Form = Field(
        "loss",
        description="ratio of losses, or of perplexities, as published; the first finds more bad "
        "rows (benchmarks/results/row_teachers.md)",
    )
    template: Literal["plain", "chat"] = Field(
        "plain",
        description="texts as they are, or in the model's chat template, whose own tokens help the "
        "response without a prompt too",
    )
    min_response_tokens: int = Field(
        1,
        ge=1,
        description="shorter responses have no score: of a word or two the perplexity says little",
    )


class ReadingModel(Protocol):
    """What this teacher needs of `engine.models.language_model.LanguageModel`."""

    @property
    def tokenizer(self) -> PromptTokenizer:
        """Makes rows of ids."""

    @property
    def context_size(self) -> int:
        """Most tokens of a row."""

    def read_rows(self, rows: Sequence[TrainingRow], batch_size: int, losses: bool) -> RowReadings:
        """Losses of rows."""


class IfdTeacher(RowTeacher):
    """Loss of a response with its prompt over that without; the same for every target.

    A prompt too long is cut from its head, which counts as truncated; a response that alone does
    not fit is NaN, and so are an empty one and one of fewer than `min_response_tokens` tokens.

    Args:
        load_model: makes the language model, when features are first asked for.
        settings: of the form, the template and short responses.
        max_tokens: longest row; the model's context may allow less.
        batch_size: rows per forward pass.

    Raises ModelError for `template: chat` and a model that has no chat template.
    """

    name = "ifd"
    label = "IFD"
    unit = "point"
    default_model = LANGUAGE_MODEL
    reads_language_model = True
    default_objective = "top_mean"  # as published
    worst = "high"
    Settings = IfdSettings

    def __init__(
        self,
        load_model: Callable[[], ReadingModel],
        settings: IfdSettings,
        max_tokens: int,
        batch_size: int,
    ) -> None:
        self._load_model = load_model
        self._settings = settings
        self._max_tokens = max_tokens
        self._batch_size = batch_size

    @cached_property
    def _model(self) -> ReadingModel:
        return self._load_model()

    @cached_property
    def _frame(self) -> ChatFrame | None:
        tokenizer = self._model.tokenizer
        return tokenizer.chat_frame() if self._settings.template == "chat" else None

    @classmethod
    def load(cls, config: TeacherConfig, seed: int, prepared: Path | None = None) -> IfdTeacher:
        def model() -> ReadingModel:
            from engine.models.language_model import LanguageModel

            return LanguageModel(config.model)

        return cls(model, config.own(IfdSettings), config.max_tokens, config.batch_size)

    @classmethod
    def identity(cls, config: TeacherConfig) -> dict[str, Any]:
        settings = config.own(IfdSettings).model_dump(mode="json")
        return {**model_settings(config), "row_template": TEMPLATE_VERSION, **settings}

    def features(self, side: Side, examples: Sequence[Example]) -> Features:
        """Scores (n, 1) of the candidates."""
        assert side == "candidate", "ifd needs no feature of a target"
        values = np.full((len(examples), 1), np.nan, np.float32)
        problems: list[str | None] = [None] * len(examples)
        asked: dict[int, tuple[TrainingRow, TrainingRow]] = {}
        num_truncated = 0
        # By key, so that equal lengths are batched alike whatever order they are asked in.
        for i in sorted(range(len(examples)), key=lambda i: examples[i].key):
            rows, truncated = self._rows(examples[i])
            if isinstance(rows, str):
                problems[i] = rows
            else:
                asked[i] = rows
                num_truncated += truncated
        sides = zip(*asked.values(), strict=True) if asked else ((), ())
        given, alone = (self._model.read_rows(list(s), self._batch_size, True) for s in sides)
        for i, score in zip(asked, self._scores(given.losses, alone.losses), strict=True):
            values[i] = score
            problems[i] = None if np.isfinite(score) else _NOT_FINITE
        tokens = given.num_tokens + alone.num_tokens
        return Features(values, problems, Usage(2 * len(asked), tokens, num_truncated))

    def _scores(self, given: FloatArray, alone: FloatArray) -> FloatArray:
        wide = given.astype(np.float64), alone.astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if self._settings.form == "perplexity":
                return np.exp(wide[0] - wide[1]).astype(np.float32)
            return (wide[0] / wide[1]).astype(np.float32)

    def _rows(self, example: Example) -> tuple[tuple[TrainingRow, TrainingRow] | str, bool]:
        """The row with its prompt and without, and whether it was cut; or why it has no score."""
        tokenizer = self._model.tokenizer
        limit = min(self._max_tokens, self._model.context_size)
        if self._frame is None:
            whole, truncated = tokenised_row(tokenizer, limit, example)
            head = [] if tokenizer.bos is None else [tokenizer.bos]
            before = [*head, *tokenizer.tokenize("\n" + ANSWER_MARK.rstrip())]
        else:
            whole, truncated = _in_template(tokenizer, self._frame, limit, example)
            before = [*self._frame.before, *self._frame.between]
        if isinstance(whole, str):
            return whole, False
        least = self._settings.min_response_tokens
        if len(whole.response) - 1 < least:
            return f"the response has fewer than {least} tokens (ifd.min_response_tokens)", False
        return (whole, TrainingRow(before, whole.response)), truncated


def _in_template(
    tokenizer: PromptTokenizer, frame: ChatFrame, limit: int, example: Example
) -> tuple[TrainingRow | str, bool]:
    """A row in the model's chat template; cut as `tokenised_row` cuts."""
    answer, most = example.output.strip(), limit * CHARACTERS_PER_TOKEN
    if not answer:
        return "the response is empty", False
    if len(answer) > most:
        return f"the response does not fit in max_tokens ({limit})", False
    response = [*tokenizer.tokenize(answer), *frame.end]
    room = limit - len(frame.before) - len(frame.between) - len(response)
    if room < 0:
        return f"the response does not fit in max_tokens ({limit})", False
    text = example.prompt.strip()
    ids = tokenizer.tokenize(text[-most:])
    kept = ids[max(0, len(ids) - room) :]
    truncated = len(kept) < len(ids) or len(text) > most
    return TrainingRow([*frame.before, *kept, *frame.between], response), truncated
