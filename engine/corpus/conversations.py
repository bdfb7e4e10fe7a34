"""Chat rows: a list of turns becomes one instruction and one output.

Two spellings of a turn are read: {role, content} and ShareGPT's {from, value}.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from engine.corpus.problems import RowError, kind_of

__all__ = ["Turn", "read_turns", "split_conversation"]

_SPEAKERS = {
    "system": "System",
    "user": "User",
    "human": "User",
    "assistant": "Assistant",
    "gpt": "Assistant",
}


class Turn(NamedTuple):
    """What one side says; the speaker is System, User or Assistant."""

    speaker: str
    text: str


def split_conversation(turns: Any, column: str) -> tuple[str, str]:
    """Instruction and output of one conversation, for the schema.

    The last assistant turn is the output; turns after it are not used. When exactly one user turn
    and nothing else comes before it, that turn is the instruction; otherwise all the turns before
    it are, one `System: ...` / `User: ...` / `Assistant: ...` block each, a blank line between.
    Raises RowError for turns of the wrong type or by unknown roles, and for a conversation
    without an assistant turn or without a user turn before it.
    """
    spoken = read_turns(turns, column)
    last = max((i for i, turn in enumerate(spoken) if turn.speaker == "Assistant"), default=None)
    if last is None:
        raise RowError(f"{column} has no assistant turn")
    before = spoken[:last]
    return _render(before, column), spoken[last].text


def read_turns(turns: Any, column: str) -> list[Turn]:
    """All turns of a conversation, as they are; raises RowError as `split_conversation` does."""
    if not isinstance(turns, (list, tuple)):
        raise RowError(f"{column} must be a list of turns, got {kind_of(turns)}")
    return [_read_turn(turn, f"{column}[{i}]") for i, turn in enumerate(turns)]


def _read_turn(turn: Any, place: str) -> Turn:
    if not isinstance(turn, dict):
        raise RowError(f"{place} must be an object, got {kind_of(turn)}")
    # Parquet writes both spellings as one struct with nulls, so null counts as absent.
    sharegpt = turn.get("role") is None and turn.get("from") is not None
    role_key, text_key = ("from", "value") if sharegpt else ("role", "content")
    role, text = turn.get(role_key), turn.get(text_key)
    if not isinstance(role, str):
        raise RowError(f"{place}.{role_key} must be text, got {kind_of(role)}")
    if role not in _SPEAKERS:
        raise RowError(f"{place}: unknown role {role!r}, known are {', '.join(_SPEAKERS)}")
    if not isinstance(text, str):
        raise RowError(f"{place}.{text_key} must be text, got {kind_of(text)}")
    return Turn(_SPEAKERS[role], text)


def _render(turns: list[Turn], column: str) -> str:
    users = [turn.text for turn in turns if turn.speaker == "User"]
    if not users:
        raise RowError(f"{column} has no user turn before the last assistant turn")
    if len(turns) == 1 or not any(user.strip() for user in users):
        return users[0]  # a blank one is rejected as a blank instruction
    return "\n\n".join(f"{turn.speaker}: {turn.text}" for turn in turns)
