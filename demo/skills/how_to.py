"""Everyday how-to questions with hand-written answers, as prose or as a numbered list."""

from __future__ import annotations

from random import Random

from .content import Record, pick, read_records
from .item import Item


def make_how_to(rng: Random) -> list[Item]:
    """One item per question, then, as a second choice, one that asks for a form."""
    records = read_records("how_to")
    return [full_item(rng, r) for r in records] + [reworded_item(rng, r) for r in records]


def full_item(rng: Random, record: Record) -> Item:
    """The question with all of its steps."""
    lead, question = pick(rng, "how_to"), record.one("ask")
    render = rng.choice((paragraph, paragraph, numbered, dashed))
    answer = record.one("answer")
    wrong = record.spoiled(answer)
    instruction, text = (lead, question) if lead else (question, "")
    return Item(record.key, instruction, text, render(answer), render(wrong) if wrong else "")


def reworded_item(rng: Random, record: Record) -> Item:
    """The question with a wish for the form of the answer."""
    tail, render = rng.choice(TAILS)
    return Item(record.key, f"{record.one('ask')} {tail}", "", render(record.one("answer")))


def paragraph(steps: str) -> str:
    """All steps in one paragraph."""
    return " ".join(steps.split("\n"))


def numbered(steps: str) -> str:
    """One numbered line per step."""
    return "\n".join(f"{i}. {step}" for i, step in enumerate(steps.split("\n"), 1))


def dashed(steps: str) -> str:
    """One line with a dash per step."""
    return "\n".join(f"- {step}" for step in steps.split("\n"))


TAILS = (
    ("Please give me a list.", dashed),
    ("Number the steps, please.", numbered),
    ("Answer in one paragraph.", paragraph),
    ("I would like to do it today.", paragraph),
    ("What are the steps?", numbered),
)
