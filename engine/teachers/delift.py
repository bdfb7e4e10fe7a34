"""DELIFT: by how much does one row, shown as an example, help a model with another?

Source: DELIFT (arXiv 2411.04425), section 3.1. Over the T response tokens of target t, the final
eos included, with p_k the probability of token k given everything before it:

    d(t) = sqrt(mean_k (1 - p_k)^2)      u(c -> t) = d_without(t) - d_with(t | c), in [-1, 1]

The two prompts of a pair differ in the example only (template version 2, texts stripped):

    {bos}{instruction}[\\n\\nExample: {x_c} {y_c}]\\n\\nQuery: {x_t}\\nAnswer: {y_t}{eos}

They are joined from pieces that are tokenised one by one, so that everything after the
example is the same ids in both, and what comes before is a prefix shared by all targets.
That is `prompt_style: shared`. In `reference`, as in the published code, the two have different
instructions (`REFERENCE_INSTRUCTIONS`), so that a benefit is also one of the wording. In `chat`
the model's chat template is round the same pieces, without the words of an answer's mark:

    {before}{instruction}[\\n\\nExample: {x_c} {y_c}]\\n\\nQuery: {x_t}{between}{y_t}{end}

An example that is too long loses the head of its prompt x_c, and of its response only what alone is
too long: what it shows is the response. (Version 1 cut its end.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from engine.config import TeacherConfig
from engine.config.facts import LANGUAGE_MODEL
from engine.example import Example
from engine.kernels.response_error import response_error
from engine.models.prompt_tokenizer import CHARACTERS_PER_TOKEN, ChatFrame, Suffix
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
    from engine.models.language_model import ResponseProbabilities

__all__ = [
    "REFERENCE_INSTRUCTIONS",
    "TEMPLATE_VERSION",
    "DeliftTeacher",
    "PromptStyle",
    "ResponseModel",
]

PromptStyle = Literal["shared", "reference", "chat"]
TEMPLATE_VERSION = 2  # raise it when the same texts would give other ids
# Our wording of the two sentences of the published code: without, and with an example.
REFERENCE_INSTRUCTIONS = (
    "Answer the following query:",
    "Use the example below to answer the query that follows:",
)

_NOT_FINITE = "the model gave a probability that is not finite"


class ResponseModel(Protocol):
    """What this teacher needs of `engine.models.language_model.LanguageModel`."""

    @property
    def bos(self) -> int | None:
        """Id put before a prompt, if any."""

    @property
    def eos(self) -> int:
        """Id that ends a response."""

    @property
    def context_size(self) -> int:
        """Most tokens of prompt and response together."""

    def tokenize(self, text: str) -> list[int]:
        """Ids of a piece of text, without special tokens."""

    def chat_frame(self) -> ChatFrame:
        """What the model's chat template puts around question and answer."""

    def response_probabilities(
        self, prefix: Sequence[int], suffixes: Sequence[Suffix], batch_size: int
    ) -> ResponseProbabilities:
        """Probability of every response token."""


@dataclass(frozen=True, slots=True)
class _Template:
    """Ids of the pieces between the texts; the two heads start with `num_common` same ids."""

    head_without: list[int]
    head_with: list[int]
    example_mark: list[int]
    query_mark: list[int]
    answer_mark: list[int]
    answer_lead: str
    end: list[int]

    @property
    def num_common(self) -> int:
        pairs = zip(self.head_without, self.head_with, strict=False)
        same = [a == b for a, b in pairs]
        return same.index(False) if False in same else len(same)


@dataclass(frozen=True, slots=True)
class _Question:
    """One target as ids: query and response, cut to fit without an example."""

    query: list[int]
    response: list[int]
    truncated: bool

    @property
    def size(self) -> int:
        return len(self.query) + len(self.response)


@dataclass(frozen=True, slots=True)
class _Shown:
    """One candidate as ids: what opens the prefix, its prompt and response, cut to the longest."""

    opening: list[int]
    prompt: list[int]
    response: list[int]
    truncated: bool

    @property
    def prefix(self) -> list[int]:
        return [*self.opening, *self.prompt, *self.response]

    @property
    def size(self) -> int:
        return len(self.opening) + len(self.prompt) + len(self.response)

    def within(self, room: int) -> list[int]:
        """As much of the example as fits: the prompt gives way from its head, then the response
        from its end.
        """
        response = self.response[:room]
        spare = room - len(response)
        return [*self.prompt[max(0, len(self.prompt) - spare) :], *response]


class DeliftTeacher(Teacher):
    """Benefit of a candidate as an in-context example, in [-1, 1].

    One forward pass per target (`features`) and one per pair (`score`), each over the suffix
    only; the example is read once per candidate, and anew for a target beside which it does not
    fit. When prompt and response are too long together, the example is shortened, for that target
    alone, its prompt from its head first, then the query from its head, the response never: a
    response that does not fit is NaN.

    Args:
        model: the language model.
        instruction: sentence that opens the prompt, the same with and without example.
        max_tokens: longest prompt with response; the model's context may allow less.
        max_example_tokens: longest example.
        batch_size: targets per forward pass.
        prompt_style: as described at the top of this module; "reference" has its own instructions.

    Raises ModelError for "chat" and a model without a chat template.
    """

    name = "delift"
    label = "DELIFT"
    unit = "pair"
    shares_candidate = True
    default_model = LANGUAGE_MODEL
    reads_language_model = True
    feature_sides = ("target",)

    def __init__(
        self,
        model: ResponseModel,
        instruction: str,
        max_tokens: int,
        max_example_tokens: int,
        batch_size: int,
        prompt_style: PromptStyle = "shared",
    ) -> None:
        self._model = model
        self._limit = min(max_tokens, model.context_size)
        self._max_example_tokens = max_example_tokens
        self._batch_size = batch_size
        instructions = (instruction.strip(), instruction.strip())
        if prompt_style == "reference":
            instructions = REFERENCE_INSTRUCTIONS
        self._template = _template(model, *instructions, chat=prompt_style == "chat")

    @classmethod
    def load(cls, config: TeacherConfig, seed: int, prepared: Path | None = None) -> DeliftTeacher:
        from engine.models.language_model import LanguageModel

        return cls(
            LanguageModel(config.model),
            config.instruction,
            config.max_tokens,
            config.max_example_tokens,
            config.batch_size,
            config.prompt_style,
        )

    @classmethod
    def identity(cls, config: TeacherConfig) -> dict[str, Any]:
        identity = {
            **model_settings(config),
            "template": TEMPLATE_VERSION,
            "instruction": config.instruction,
            "max_example_tokens": config.max_example_tokens,
        }
        # Answers in the default style are stored under a name without it.
        if config.prompt_style != "shared":
            identity["prompt_style"] = config.prompt_style
        if config.prompt_style == "reference":
            identity["instruction"] = list(REFERENCE_INSTRUCTIONS)
        return identity

    def features(self, side: Side, examples: Sequence[Example]) -> Features:
        """d_without (n, 1) of the targets."""
        assert side == "target", "delift needs no feature of a candidate"
        head = self._template.head_without
        bare = _Shown(head, [], [], False)
        errors, problems, usage = self._errors(bare, examples, [None] * len(examples))
        return Features(errors[:, None], problems, usage)

    def score(
        self,
        candidate: Example,
        candidate_feature: FloatArray | None,
        targets: Sequence[Example],
        target_features: FloatArray | None,
    ) -> Scores:
        """u = d_without - d_with of one candidate for n targets; a target without d stays NaN."""
        assert target_features is not None, "delift needs d_without of the targets"
        without = target_features[:, 0]
        known: list[str | None] = [
            None if np.isfinite(d) else "the target has no error without an example"
            for d in without
        ]
        errors, problems, usage = self._errors(self._show(candidate), targets, known)
        return Scores(without - errors, problems, usage)

    def _errors(
        self, shown: _Shown, targets: Sequence[Example], known_problems: Sequence[str | None]
    ) -> tuple[FloatArray, list[str | None], Usage]:
        """d (n,) of the targets behind a prefix; those with a known problem are not asked."""
        errors = np.full(len(targets), np.nan, np.float32)
        problems = list(known_problems)
        asked: dict[int, Suffix] = {}
        num_truncated = 0
        # By key, so that equal lengths are batched alike whatever order they are asked in.
        for i in sorted(range(len(targets)), key=lambda i: targets[i].key):
            question = self._ask(targets[i])
            if isinstance(question, str):
                problems[i] = question
            elif problems[i] is None:
                asked[i], truncated = self._fit(shown, question)
                num_truncated += truncated
        answer = self._model.response_probabilities(
            shown.prefix, list(asked.values()), self._batch_size
        )
        for i, probabilities in zip(asked, answer.values, strict=True):
            errors[i] = response_error(probabilities)
            problems[i] = None if np.isfinite(errors[i]) else _NOT_FINITE
        return errors, problems, Usage(len(asked), answer.num_tokens, num_truncated)

    def _show(self, candidate: Example) -> _Shown:
        """The example, of which `max_example_tokens` are kept."""
        most = self._max_example_tokens
        texts = f" {candidate.prompt.strip()}", f" {candidate.output.strip()}"
        characters = most * CHARACTERS_PER_TOKEN
        whole = _Shown(
            [*self._template.head_with, *self._template.example_mark],
            self._model.tokenize(texts[0][-characters:]),
            self._model.tokenize(texts[1][:characters]),
            max(map(len, texts)) > characters,
        )
        response = whole.response[:most]
        kept = whole.within(most)
        truncated = whole.truncated or len(kept) < len(whole.prompt) + len(whole.response)
        return _Shown(whole.opening, kept[: len(kept) - len(response)], response, truncated)

    def _ask(self, target: Example) -> _Question | str:
        """Query and response of a target, or why it cannot be asked about."""
        answer = target.output.strip()
        if not answer:
            return "the response is empty"
        template = self._template
        # The longer head counts in both prompts, so that they are cut alike.
        head = max(len(template.head_without), len(template.head_with))
        room = self._limit - head - len(template.query_mark) - len(template.answer_mark)
        too_long = f"the response does not fit in max_tokens ({self._limit})"
        if len(answer) > self._limit * CHARACTERS_PER_TOKEN:
            return too_long
        response = [*self._model.tokenize(template.answer_lead + answer), *template.end]
        room -= len(response)
        if room < 0:
            return f"{too_long}: it has {len(response)} tokens"
        text = " " + target.prompt.strip()
        ids = self._model.tokenize(text[-self._limit * CHARACTERS_PER_TOKEN :])
        kept = ids[max(0, len(ids) - room) :]
        truncated = len(kept) < len(ids) or len(text) > self._limit * CHARACTERS_PER_TOKEN
        query = [*template.query_mark, *kept, *template.answer_mark]
        return _Question(query, response, truncated)

    def _fit(self, shown: _Shown, question: _Question) -> tuple[Suffix, bool]:
        """The question behind as much of the example as fits; an example of no token is dropped."""
        length, opening = shown.size, len(shown.opening)
        room = self._limit - question.size
        if length <= room:
            truncated = shown.truncated or question.truncated
            return Suffix(question.query, question.response, length), truncated
        example = shown.within(room - opening) if room > opening else []
        if example:  # behind the opening that is shared, the rest of the example is this one's own
            return Suffix([*example, *question.query], question.response, opening), True
        length = self._template.num_common
        rest = self._template.head_without[length:]
        return Suffix([*rest, *question.query], question.response, length), True


def _template(model: ResponseModel, without: str, with_example: str, chat: bool) -> _Template:
    """The pieces of a prompt with one instruction for each arm."""
    bos = [] if model.bos is None else [model.bos]
    frame = ChatFrame(bos, model.tokenize("\nAnswer:"), [model.eos])
    if chat:
        frame = model.chat_frame()
    return _Template(
        head_without=[*frame.before, *model.tokenize(without)],
        head_with=[*frame.before, *model.tokenize(with_example)],
        example_mark=model.tokenize("\n\nExample:"),
        query_mark=model.tokenize("\n\nQuery:"),
        answer_mark=frame.between,
        answer_lead="" if chat else " ",
        end=frame.end,
    )
