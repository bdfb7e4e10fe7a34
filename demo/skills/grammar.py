"""Correcting grammar, spelling and punctuation, with or without the reason."""

from __future__ import annotations

from random import Random

from .content import Record, pick, read_records
from .item import Item


def make_grammar(rng: Random) -> list[Item]:
    """One correction per record, then one punctuation task per record."""
    records = read_records("grammar")
    return [correction_item(rng, record) for record in records] + [
        punctuation_item(rng, record) for record in records if len(record.one("right").split()) > 9
    ]


def correction_item(rng: Random, record: Record) -> Item:
    """A faulty sentence to correct; the wrong twin declares it to be right."""
    wrong, right, why = record.one("wrong"), record.one("right"), record.one("why")
    if rng.random() < 0.6:
        lead = pick(rng, "grammar_reason")
        output = pick(rng, "grammar_explained", right=right, why=why)
    else:
        lead, output = pick(rng, "grammar"), right
    instruction, text = (f'{lead} "{wrong}"', "") if rng.random() < 0.2 else (lead, wrong)
    missed = pick(rng, "grammar_missed", wrong=wrong)
    return Item(record.key, instruction, text, output, missed, answer=right)


def punctuation_item(rng: Random, record: Record) -> Item:
    """The right sentence in lower case and without marks, to be restored."""
    right = record.one("right")
    stripped = "".join(ch for ch in right.lower() if ch not in ',.;?!:"')
    return Item(record.key, pick(rng, "grammar_punctuation"), stripped, right)
