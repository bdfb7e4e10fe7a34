"""A row of a subset as what was said: the conversation that it was, or a question and an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from engine.corpus.column_names import ANSWERS, QUESTIONS
from engine.corpus.conversations import (
    as_turns,
    history_turns,
    read_conversation,
    system_of,
    tools_of,
    turns_of_both,
)
from engine.corpus.problems import RowError
from engine.corpus.turns import called, role_of

__all__ = ["MEDIA", "Spoken", "spoken"]

MEDIA = ("images", "videos", "audios", "image", "video", "audio")
_SPOKEN = {
    "human": "user",
    "prompter": "user",
    "function_call": "assistant",
    "tool_call": "assistant",
}
_SPOKEN |= dict.fromkeys(("gpt", "chatgpt", "model", "bot", "chatbot", "ai"), "assistant")
_SPOKEN |= dict.fromkeys(("function", "observation", "ipython", "tool_response"), "tool")


class Spoken(NamedTuple):
    """What a row says.

    Attributes:
        turns: OpenAI's form, {role, content} and whatever else each turn came with (tool calls,
            reasoning, weight); roles are system, developer, user, assistant and tool.
        tools: what may be called, as it came.
        media: columns of images and the like, by name.
        was_conversation: whether the row was read from turns.
    """

    turns: list[dict[str, Any]]
    tools: list[Any]
    media: dict[str, Any]
    was_conversation: bool

    @property
    def to_last_answer(self) -> list[dict[str, Any]]:
        """Without turns after the last answer, which no score of the row knows."""
        last = max(i for i, turn in enumerate(self.turns) if turn["role"] == "assistant")
        return self.turns[: last + 1]


def spoken(row: Mapping[str, Any], messages: str | None = None) -> Spoken:
    """The turns of a row of subset.jsonl; `messages` is the column that a setting named.

    The engine keeps turns in the column that they came in, and a row was read from a column if its
    turns make the row's very instruction and output; so no other setting is needed to find it, and
    a column of turns that was only carried along is not mistaken for it. Any other row is a user's
    prompt, instruction and input as the engine joins them, and an answer; with an Alpaca row's
    system prompt and history before them.
    """
    media = {name: row[name] for name in MEDIA if row.get(name)}
    found = next((t for n, t in _candidates(row) if n == messages or _makes(t, n, row)), None)
    was_conversation = found is not None
    if found is None:
        text, more = row["instruction"], row.get("input")
        prompt = f"{text} {more}" if more else text
        found = [
            *history_turns(row.get("history")),
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": row["output"]},
        ]
    turns = [_message(turn) for turn in found]
    system = system_of(row)
    if system and turns[0] != {"role": "system", "content": system}:
        turns.insert(0, {"role": "system", "content": system})
    return Spoken(turns, tools_of(row), media, was_conversation)


def _candidates(row: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """Columns of turns, and pairs of columns that make turns together."""
    lists = {name: turns for name, value in row.items() if (turns := as_turns(value))}
    yield from lists.items()
    # Of two lists first: instruction and output are also texts that were made of them.
    texts = [name for name in ("output", *ANSWERS, "chosen") if isinstance(row.get(name), str)]
    prompts = [name for name in QUESTIONS if isinstance(row.get(name), str)]
    pairs = [(q, a) for q in lists for a in lists if q != a]
    pairs += [(q, a) for q in prompts for a in lists] + [(q, a) for q in lists for a in texts]
    for question, answer in pairs:
        turns = turns_of_both(row[question], row[answer])
        if turns:
            yield question, turns


def _makes(turns: list[Any], name: str, row: Mapping[str, Any]) -> bool:
    """Whether turns make the row's instruction and output, its reasoning read or not."""
    wanted = row["instruction"], row["output"]
    for reasoning in (True, False):
        try:
            found = read_conversation(turns, name, row, reasoning)
        except RowError:
            return False
        if (found.instruction.replace("\0", ""), found.output.replace("\0", "")) == wanted:
            return True
    return False


def _message(turn: Mapping[str, Any]) -> dict[str, Any]:
    """A turn in OpenAI's form, with all else that it came with."""
    role, text_key = role_of(turn, "turn")
    rest = {
        key: value
        for key, value in turn.items()
        if key not in ("role", "from", "content", "value") and value is not None
    }
    content = turn.get(text_key)
    calls = list(called(turn, role, text_key))
    if role in ("function_call", "tool_call") and calls:
        rest.setdefault("tool_calls", [{"type": "function", "function": call} for call in calls])
        content = None
    if isinstance(content, str):
        content = content.replace("\0", "")
    elif isinstance(content, dict):
        content = json.dumps(content, ensure_ascii=False)
    return {"role": _SPOKEN.get(role, role), "content": content, **rest}
