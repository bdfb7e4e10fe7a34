"""Correcting grammar, spelling and punctuation, with or without the reason."""

from __future__ import annotations

from random import Random

from .content import Record, read_records
from .item import Item

LEADS = (
    "Correct the grammar.", "Fix the mistakes in this sentence.", "Please proofread the following.", "Is this English correct? If not, improve it.",
    "Find and correct the errors.", "My English is not perfect. Please correct this sentence.", "Edit the sentence so that it is correct.",
)
REASON_LEADS = (
    "Correct the sentence and explain the mistake.", "What is wrong with this sentence?", "Fix the error and give the rule.",
    "Correct this and tell me why it was wrong.",
)
PUNCTUATION_LEADS = (
    "Add the missing capitals and punctuation.", "Put in capital letters, commas and full stops.", "Restore punctuation and capitalisation.",
)
EXPLAINED_STYLES = (
    "{right}\nReason: {why}.", "{right} ({why})", "Correct: {right}\nWhy: {why}.", "It should be: \"{right}\" The reason: {why}.",
)
MISSED_STYLES = (
    "The sentence is fine as it stands: \"{wrong}\"", "There is no mistake in \"{wrong}\", so nothing has to be changed.",
    "{wrong}\nThis is correct English; only the style could be a little livelier.",
)


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
        lead, output = rng.choice(REASON_LEADS), rng.choice(EXPLAINED_STYLES).format(right=right, why=why)
    else:
        lead, output = rng.choice(LEADS), right
    instruction, text = (f"{lead} \"{wrong}\"", "") if rng.random() < 0.2 else (lead, wrong)
    return Item(record.key, instruction, text, output, rng.choice(MISSED_STYLES).format(wrong=wrong), answer=right)


def punctuation_item(rng: Random, record: Record) -> Item:
    """The right sentence in lower case and without marks, to be restored."""
    right = record.one("right")
    stripped = "".join(ch for ch in right.lower() if ch not in ",.;?!:\"")
    return Item(record.key, rng.choice(PUNCTUATION_LEADS), stripped, right)
