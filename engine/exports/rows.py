"""A row of a subset as what was said: the conversation that it was, or a question and an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from engine.corpus.conversations import Turn, read_turns, split_conversation
from engine.corpus.problems import RowError
from engine.example import Example

__all__ = ["Spoken", "spoken"]


class Spoken(NamedTuple):
    """What a row says.

    Attributes:
        turns: System, User and Assistant, as they came.
        was_conversation: whether the row was read from turns.
    """

    turns: list[Turn]
    was_conversation: bool

    @property
    def to_last_answer(self) -> list[Turn]:
        """Without turns after the last answer, which no score of the row knows."""
        last = max(i for i, turn in enumerate(self.turns) if turn.speaker == "Assistant")
        return self.turns[: last + 1]


def spoken(row: Mapping[str, Any]) -> Spoken:
    """The turns of a row of subset.parquet.

    The engine keeps turns in the column that they came in, and a row was read from a column if its
    turns make the row's very instruction and output; so no setting is needed to find it, and a
    column of turns that was only carried along is not mistaken for it. Any other row is a user's
    prompt, instruction and input as the engine joins them, and an answer.
    """
    if not row["input"]:
        for name, value in row.items():
            turns = _turns(value)
            if turns is not None and _makes(turns, name, row):
                said = read_turns(turns, name)
                return Spoken([Turn(t.speaker, t.text.replace("\0", "")) for t in said], True)
    example = Example("", "", row["instruction"], row["input"], row["output"])
    return Spoken([Turn("User", example.prompt), Turn("Assistant", row["output"])], False)


def _turns(value: Any) -> list[Any] | None:
    """A list of objects, or the JSON of one: what turns of no common type are kept as."""
    if isinstance(value, str) and value.startswith("[{"):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    is_list = isinstance(value, list) and value and isinstance(value[0], dict)
    return value if is_list else None


def _makes(turns: list[Any], name: str, row: Mapping[str, Any]) -> bool:
    try:
        texts = split_conversation(turns, name)
    except RowError:
        return False
    return [text.replace("\0", "") for text in texts] == [row["instruction"], row["output"]]
