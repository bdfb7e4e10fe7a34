"""General-knowledge questions with hand-written explanations."""

from __future__ import annotations

from random import Random

from .content import Record, pick, read_records
from .item import Item


def make_explanations(rng: Random) -> list[Item]:
    """One item per topic; then second wordings and short versions."""
    records = read_records("explanations")
    first = [full_item(rng, r, 0) for r in records]
    second = [full_item(rng, r, 1) for r in records if len(r.all("ask")) > 1]
    return first + second + [short_item(rng, r) for r in records]


def full_item(rng: Random, record: Record, wording: int) -> Item:
    """A topic under one of its wordings, with the whole answer."""
    lead, question = pick(rng, "explanation"), record.all("ask")[wording]
    instruction, text = (lead, question) if lead else (question, "")
    answer = record.one("answer")
    return Item(record.key, instruction, text, answer, record.spoiled(answer))


def short_item(rng: Random, record: Record) -> Item:
    """A topic with a request for brevity, and the first two sentences of the answer."""
    sentences = record.one("answer").split(". ")
    answer = ". ".join(sentences[:2])
    question = f"{record.all('ask')[0]} {pick(rng, 'explanation_short')}"
    return Item(record.key, question, "", answer if answer.endswith(".") else f"{answer}.")
