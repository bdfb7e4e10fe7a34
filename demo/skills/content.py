"""Reads the hand-written texts in demo/content.

The format is plain text, made for people to edit: `== key` begins a record, `@field value` begins a field,
and every other line continues the field above it. A field may be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

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
            raise ValueError(f"record {self.key!r} has {len(values)} fields @{name}, expected 1: edit demo/content")
        return values[0]

    def spoiled(self, text: str) -> str:
        """`text` with the record's `@bug OLD => NEW` applied, or "" when the record has no bug."""
        bugs = self.all("bug")
        if not bugs:
            return ""
        old, new = (part.strip(" ") for part in f"{bugs[0]} ".split(" => ", 1))
        if text.count(old) != 1:
            raise ValueError(f"record {self.key!r}: @bug {old!r} occurs {text.count(old)} times, expected 1")
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
    return tuple(Record(r.key, {k: [v.strip("\n") for v in vs] for k, vs in r.fields.items()}) for r in records)
