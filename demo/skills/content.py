"""Reads the hand-written texts in demo/content.

The format is plain text, made for people to edit: `== key` begins a record, `@field value` begins a
field, and every other line continues the field above it. A field may be repeated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random

CONTENT_DIR = Path(__file__).resolve().parent.parent / "content"


@dataclass(frozen=True)
class Record:
    """One record of a content file: its key and its fields, each a list in order of appearance."""

    key: str
    fields: dict[str, list[str]] = field(default_factory=dict)

    def all(self, name: str) -> list[str]:
        """All values of a field, possibly none."""
        return self.fields.get(name, [])

    def one(self, name: str) -> str:
        """The value of a field that must occur exactly once."""
        values = self.all(name)
        if len(values) != 1:
            raise ValueError(
                f"record {self.key!r} has {len(values)} fields @{name}, expected 1: "
                "edit demo/content"
            )
        return values[0]

    def spoiled(self, text: str) -> str:
        """`text` with the record's `@bug OLD => NEW` applied, or "" when there is no bug."""
        bugs = self.all("bug")
        if not bugs:
            return ""
        old, new = (part.strip(" ") for part in f"{bugs[0]} ".split(" => ", 1))
        if text.count(old) != 1:
            raise ValueError(
                f"record {self.key!r}: @bug {old!r} occurs {text.count(old)} times in the text, "
                "expected 1: edit demo/content"
            )
        return text.replace(old, new)


@cache
def read_records(name: str) -> tuple[Record, ...]:
    """The records of demo/content/NAME.txt in file order."""
    records: list[Record] = []
    for line in (CONTENT_DIR / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("== "):
            records.append(Record(line[3:].strip()))
        elif line.startswith("@"):
            key, _, value = line[1:].partition(" ")
            records[-1].fields.setdefault(key, []).append(value)
        elif records and records[-1].fields:
            last = next(reversed(records[-1].fields.values()))
            last[-1] = f"{last[-1]}\n{line}"
    for values in (values for record in records for values in record.fields.values()):
        values[:] = [value.strip("\n") for value in values]
    return tuple(records)


@cache
def phrases(name: str) -> tuple[str, ...]:
    """A list of demo/content/phrases.txt: sentences (@say), words (@words), empty ones (@blank)."""
    record = next(record for record in read_records("phrases") if record.key == name)
    blank = [""] * sum(int(count) for count in record.all("blank"))
    words = [word for line in record.all("words") for word in line.split("; ")]
    return (*blank, *record.all("say"), *words)


def pick(rng: Random, name: str, /, **values: object) -> str:
    """One entry of a list of phrases, filled with values."""
    return filled(rng.choice(phrases(name)), values)


def filled(text: str, values: Mapping[str, object]) -> str:
    """`text` with every `{name}` replaced; other braces stay as they are."""
    return re.sub(
        r"\{([\w' -]+)\}",
        lambda match: str(values[match[1]]) if match[1] in values else match[0],
        text,
    )
