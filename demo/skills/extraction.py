"""Information extraction from notices and passages: as JSON, as lines, or in one line."""

from __future__ import annotations

import json
from random import Random

from .arithmetic import slip
from .content import pick, read_records
from .item import Item
from .notices import NOTICES, make_notice
from .words import joined

NUM_ROUNDS = 9


def make_extraction(rng: Random) -> list[Item]:
    """`NUM_ROUNDS` notices of every kind, mixed with the facts of the hand-written passages."""
    passages = [
        extraction_item(rng, record.one("text"), facts(record.one("facts")), record.key)
        for record in read_records("passages")
    ]
    items: list[Item] = []
    for turn in range(NUM_ROUNDS):
        for kind in NOTICES:
            text, fields = make_notice(rng, kind)
            items.append(extraction_item(rng, text, choose(rng, fields), content=text))
        items += passages[turn * 5 : turn * 5 + 5]
    return items


def facts(text: str) -> dict[str, str]:
    """The `name: value` lines of a record."""
    return dict(line.split(": ", 1) for line in text.split("\n"))


def choose(rng: Random, fields: dict[str, str]) -> dict[str, str]:
    """Three to six of the fields in random order."""
    keys = rng.sample(list(fields), min(rng.randint(3, 6), len(fields)))
    return {key: fields[key] for key in keys}


def extraction_item(rng: Random, text: str, fields: dict[str, str], content: str) -> Item:
    """One extraction with a way of answering drawn at random."""
    name, render = rng.choice(WAYS)
    names = {
        "fields": joined([f"the {key}" for key in fields]),
        "keys": ", ".join(snake(key) for key in fields),
    }
    lead = pick(rng, name, **names)
    instruction, passage = (f"{lead}\n\nText: {text}", "") if rng.random() < 0.15 else (lead, text)
    truth = json.dumps(sorted(fields.values()))
    return Item(content, instruction, passage, render(fields), render(spoiled(rng, fields)), truth)


def spoiled(rng: Random, fields: dict[str, str]) -> dict[str, str]:
    """The fields with one number changed, or with two values swapped."""
    numeric = [key for key, value in fields.items() if any(ch.isdigit() for ch in value)]
    if numeric and rng.random() < 0.5:
        key = rng.choice(numeric)
        return {**fields, key: slip(fields[key], rng)}
    first, second = rng.sample(list(fields), 2)
    return {**fields, first: fields[second], second: fields[first]}


def snake(key: str) -> str:
    """A field name as a JSON key."""
    return key.replace("'s", "").replace("-", "").replace(" ", "_").lower()


def as_json(fields: dict[str, str]) -> str:
    """A JSON object of strings."""
    return json.dumps({snake(key): value for key, value in fields.items()}, ensure_ascii=False)


def as_lines(fields: dict[str, str]) -> str:
    """`Name: value` lines."""
    return "\n".join(f"{key[:1].upper()}{key[1:]}: {value}" for key, value in fields.items())


def as_sentence(fields: dict[str, str]) -> str:
    """All facts in one line."""
    return (
        f"According to the text: {'; '.join(f'{key}: {value}' for key, value in fields.items())}."
    )


WAYS = (
    ("extract_json", as_json),
    ("extract_json", as_json),
    ("extract_lines", as_lines),
    ("extract_sentence", as_sentence),
)
