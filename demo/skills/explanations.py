"""General-knowledge questions with hand-written explanations."""

from __future__ import annotations

from random import Random

from .content import Record, read_records
from .item import Item

LEADS = (
    "", "", "", "", "", "Answer the question in a few sentences.",
    "Give a clear and short explanation.", "Please answer the following question.",
)
SHORT_TAILS = (" Answer in two sentences.", " Keep it to two sentences, please.", " A brief answer will do.")


def make_explanations(rng: Random) -> list[Item]:
    """One item per topic; then second wordings and short versions."""
    records = read_records("explanations")
    first = [full_item(rng, r, 0) for r in records]
    second = [full_item(rng, r, 1) for r in records if len(r.all("ask")) > 1]
    return first + second + [short_item(rng, r) for r in records]


def full_item(rng: Random, record: Record, wording: int) -> Item:
    """A topic under one of its wordings, with the whole answer."""
    lead, question = rng.choice(LEADS), record.all("ask")[wording]
    instruction, text = (lead, question) if lead else (question, "")
    answer = record.one("answer")
    return Item(record.key, instruction, text, answer, record.spoiled(answer))


def short_item(rng: Random, record: Record) -> Item:
    """A topic with a request for brevity, and the first two sentences of the answer."""
    sentences = record.one("answer").split(". ")
    answer = ". ".join(sentences[:2])
    return Item(record.key, record.all("ask")[0] + rng.choice(SHORT_TAILS), "", answer if answer.endswith(".") else f"{answer}.")
