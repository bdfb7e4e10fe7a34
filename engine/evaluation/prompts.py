"""Prompts of the evaluation as token ids: bare, with examples, and with the answer to learn.

    bare         {before}{x}{between}{y}{end}
    in context   {before}{instruction}[\\n\\nExample: {x_c} {y_c}]*\\n\\nQuery: {x}{between}{y}{end}

`before`, `between` and `end` are the model's chat template, or bos, "\\nAnswer:" and eos. Texts are
stripped, and pieces tokenised one by one, so the answer is the same ids whatever comes before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from engine.errors import ModelError
from engine.example import Example
from engine.models.prompt_tokenizer import CHARACTERS_PER_TOKEN, ChatFrame, TrainingRow

__all__ = ["TEMPLATE_VERSION", "Prompt", "PromptBuilder", "PromptModel"]

TEMPLATE_VERSION = 1  # raise it when the same texts would give other ids


class PromptModel(Protocol):
    """What is needed of a tokenizer: `PromptTokenizer` has it, and `LanguageModel`."""

    @property
    def bos(self) -> int | None:
        """Id put before a prompt, if any."""

    @property
    def eos(self) -> int:
        """Id that ends a response."""

    def tokenize(self, text: str) -> list[int]:
        """Ids of a piece of text."""

    def chat_frame(self) -> ChatFrame:
        """What the model's chat template puts around question and answer."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked; `shown` is how many examples found room."""

    ids: list[int]
    shown: int


class PromptBuilder:
    """Makes prompts for one model.

    Args:
        model: its tokenizer.
        style: "chat" for the model's template, which must exist, or "plain".
        instruction: opens a prompt with examples.

    Raises ModelError for "chat" and a model without a chat template.
    """

    def __init__(
        self, model: PromptModel, style: Literal["chat", "plain"], instruction: str
    ) -> None:
        self._model = model
        bos = [] if model.bos is None else [model.bos]
        self._frame = ChatFrame(bos, model.tokenize("\nAnswer:"), [model.eos])
        if style == "chat":
            try:
                self._frame = model.chat_frame()
            except ModelError as error:
                message = str(error).replace("teacher.prompt_style", "evaluation.prompt_style")
                raise ModelError(message) from None
        self._plain = style == "plain"
        self._head = [*self._frame.before, *model.tokenize(instruction.strip())]

    @property
    def stop(self) -> list[int]:
        """Ids that end an answer."""
        return self._frame.end[:1]

    def response(self, example: Example) -> list[int]:
        """The reference answer as ids, its end included."""
        lead = " " if self._plain else ""
        return [*self._model.tokenize(lead + example.output.strip()), *self._frame.end]

    def bare(self, example: Example) -> list[int]:
        """The prompt x alone."""
        query = self._model.tokenize(example.prompt.strip())
        return [*self._frame.before, *query, *self._frame.between]

    def with_examples(self, query: Example, shown: Sequence[Example], room: int) -> Prompt | None:
        """The query behind examples, most similar first; the least similar are left out to fit.

        The query is never cut: None when it does not fit into `room` tokens without any example.
        """
        asked = self._model.tokenize("\n\nQuery:") + self._model.tokenize(
            " " + query.prompt.strip()
        )
        tail = [*asked, *self._frame.between]
        pieces = [self._example(example, room) for example in shown]
        left = room - len(self._head) - len(tail)
        if left < 0:
            return None
        kept: list[int] = []
        count = 0
        for piece in pieces:
            if len(kept) + len(piece) > left:
                break
            kept += piece
            count += 1
        return Prompt([*self._head, *kept, *tail], count)

    def training_row(self, example: Example, max_tokens: int) -> TrainingRow | None:
        """Prompt and response to learn; None when the response alone does not fit.

        A prompt too long is cut from the head of its text, a response never.
        """
        response = self.response(example)
        room = max_tokens - len(response) - len(self._frame.before) - len(self._frame.between)
        if room < 1:
            return None
        query = self._model.tokenize(example.prompt.strip()[-max_tokens * CHARACTERS_PER_TOKEN :])
        prompt = [*self._frame.before, *query[-room:], *self._frame.between]
        return TrainingRow(prompt, response)

    def _example(self, example: Example, room: int) -> list[int]:
        text = f" {example.prompt.strip()} {example.output.strip()}"
        # one token more than fits is enough to know that it does not
        cut = text[: (room + 1) * CHARACTERS_PER_TOKEN]
        return [*self._model.tokenize("\n\nExample:"), *self._model.tokenize(cut)]
