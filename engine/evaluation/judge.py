"""LLM as a judge: an instruct model grades an answer from 1 to 5 against the reference.

Source: the publication's judge is Prometheus-7B v2 (Kim et al. 2024) with one rubric; ours is
`rubric.txt`. The judge sees the bare prompt of the row, never what was shown in context. Only what
the judge itself writes is read as a grade: nothing in a row's texts can forge one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Protocol

import numpy as np

from engine.artifacts.files import digest
from engine.errors import ModelError
from engine.kernels.arrays import FloatArray
from engine.models.prompt_tokenizer import CHARACTERS_PER_TOKEN, ChatFrame

__all__ = ["RUBRIC_VERSION", "Grades", "JudgedRow", "grade", "judge_prompts", "parse_grade"]

RUBRIC = files("engine.evaluation").joinpath("rubric.txt").read_text(encoding="utf-8").strip()
_FORMAT = (
    'Write one sentence of feedback, then "[RESULT]" and the grade, a whole number from 1 to 5.'
)
_MARKS = ("Instruction", "Reference answer", "Answer to grade")
RUBRIC_VERSION = digest(RUBRIC, _FORMAT, _MARKS)
_SHARES = (0.5, 0.25, 0.25)  # of the room for texts, where they do not all fit
_RESULT = re.compile(r"\[RESULT\]\s*\(?([0-9]+(?:\.[0-9]+)?)")
_LONE = re.compile(r"^\W*([0-9]+(?:\.[0-9]+)?)(?:\s*/\s*5)?\W*(?:$|\s)")
_NAMED = re.compile(r"\b(?:grade|score|rating)\b\W*(?:is\W*)?([0-9]+(?:\.[0-9]+)?)", re.IGNORECASE)


class GradingModel(Protocol):
    """What is needed of `engine.models.generating_model.GeneratingModel`."""

    @property
    def bos(self) -> int | None:
        """Id put before a prompt, if any."""

    @property
    def context_size(self) -> int:
        """Most tokens of prompt and grade together."""

    def tokenize(self, text: str) -> list[int]:
        """Ids of a piece of text, special tokens not read from it."""

    def chat_frame(self) -> ChatFrame:
        """What the model's chat template puts around question and answer."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        batch_size: int,
        stop: Sequence[int] = (),
    ) -> list[str]:
        """The text that follows each prompt."""


@dataclass(frozen=True, slots=True)
class JudgedRow:
    """The bare prompt of a test row, its reference, and the answer to grade."""

    prompt: str
    reference: str
    answer: str


@dataclass(frozen=True, slots=True)
class Grades:
    """Grades (n,) float32 from 1 to 5, NaN where none could be read, and how many those are."""

    values: FloatArray
    num_unparsed: int


def grade(
    model: GradingModel,
    rows: Sequence[JudgedRow],
    max_new_tokens: int,
    batch_size: int,
    max_tokens: int,
) -> Grades:
    """Grade answers. One generation per row of up to `max_new_tokens`."""
    prompts = judge_prompts(model, rows, max_tokens - max_new_tokens)
    try:
        stop = model.chat_frame().end[:1]
    except ModelError:
        stop = []
    said = [parse_grade(text) for text in model.generate(prompts, max_new_tokens, batch_size, stop)]
    values = np.array([np.nan if found is None else found for found in said], np.float32)
    return Grades(values, sum(found is None for found in said))


def judge_prompts(
    model: GradingModel, rows: Sequence[JudgedRow], max_tokens: int
) -> list[list[int]]:
    """The judge's prompts as ids, in the model's chat template where it has one.

    Of texts too long together the instruction keeps its end and half of the room, reference and
    answer keep their beginnings and a quarter each, more where another needs less. Rubric and
    format are never cut.
    """
    try:
        frame = model.chat_frame()
    except ModelError:
        bos = [] if model.bos is None else [model.bos]
        frame = ChatFrame(bos, model.tokenize("\n\nFeedback:"), [])
    marks = [model.tokenize(f"\n\n### {mark}:\n") for mark in _MARKS]
    head = [*frame.before, *model.tokenize(RUBRIC)]
    tail = [*model.tokenize(f"\n\n### End of the texts\n{_FORMAT}"), *frame.between]
    fixed = len(head) + len(tail) + sum(map(len, marks))
    room = max(0, min(max_tokens, model.context_size) - fixed)
    prompts = []
    for row in rows:
        longest = (room + 1) * CHARACTERS_PER_TOKEN
        texts = [row.prompt.strip()[-longest:]]
        texts += [text.strip()[:longest] for text in (row.reference, row.answer)]
        ids = [model.tokenize(text) for text in texts]
        sizes = _fit([len(text) for text in ids], room)
        cut = [ids[0][len(ids[0]) - sizes[0] :], ids[1][: sizes[1]], ids[2][: sizes[2]]]
        body = [i for mark, text in zip(marks, cut, strict=True) for i in (*mark, *text)]
        prompts.append([*head, *body, *tail])
    return prompts


def _fit(sizes: list[int], room: int) -> list[int]:
    """How much of each text is kept: all, or what its share and the others' rest allow."""
    kept = [min(size, int(share * room)) for size, share in zip(sizes, _SHARES, strict=True)]
    for i, size in enumerate(sizes):
        kept[i] += min(size - kept[i], room - sum(kept))
    return kept


def parse_grade(text: str) -> int | None:
    """The grade that a judge wrote, or None.

    The last "[RESULT] n" counts; without any, a number that opens the text, or the first that
    follows "grade", "score" or "rating". Only whole numbers from 1 to 5 are grades.
    """
    if results := _RESULT.findall(text):
        return _whole(results[-1])
    if "[RESULT]" in text:
        return None
    found = _LONE.match(text) or _NAMED.search(text)
    return _whole(found.group(1)) if found else None


def _whole(number: str) -> int | None:
    return int(number) if number in ("1", "2", "3", "4", "5") else None
