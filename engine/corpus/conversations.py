"""Conversations: turns, tools and a system prompt become one instruction and one output.

The form, which encoders and teachers read. The answer is the last assistant turn that is trained
on; turns after it are not read. Neighbouring turns of one side are one, a blank line between. Where
one user turn and nothing else comes before the answer, its text is the instruction. Else

    Tools:
    {"name": "weather", ...}             a line for each tool

    System: You answer in one word.      also the column `system`, and developer turns

    User: Weather in Graz?

    Assistant: <think>
    ...                                  reasoning, unless `reasoning: skip`
    </think>

    Let me look.
    <tool_call>
    {"name": "weather", "arguments": {"city": "Graz"}}
    </tool_call>

    Tool: {"t": 21}

Images and other media are `<image>` there. An answer is in the form of an assistant turn, without
its mark.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from engine.corpus.problems import RowError, kind_of
from engine.corpus.turns import ASSISTANT, SYSTEM, TOOL, USER, Turn, as_value, is_turn, read_turn

__all__ = [
    "Conversation",
    "as_turns",
    "history_turns",
    "media_columns",
    "read_conversation",
    "system_of",
    "tools_of",
    "turns_of_both",
]

_MEDIA_COLUMNS = {
    f"{name}{plural}": name for name in ("image", "audio", "video") for plural in ("", "s")
}


NO_MEDIA: Counter[str] = Counter()  # of almost every row; never changed


class Conversation(NamedTuple):
    """What is read of a conversation.

    Attributes:
        instruction: all before the answer, in the form above.
        output: the answer.
        media: parts that are no text, by type.
        unread: it holds what the two texts do not show, so equal texts do not make equal rows.
    """

    instruction: str
    output: str
    media: Counter[str]
    unread: bool


def read_conversation(
    turns: Any, column: str, row: Mapping[str, Any] | None = None, reasoning: bool = True
) -> Conversation:
    """A list of turns as the schema needs it; of `row` the columns `system` and `tools` are read.

    Raises RowError for turns that cannot be read, and for a conversation without an assistant turn
    that is trained on, or with nothing before it.
    """
    if not isinstance(turns, (list, tuple)):
        raise RowError(f"{column} must be a list of turns, got {kind_of(turns)}")
    said = [read_turn(turn, f"{column}[{i}]", reasoning) for i, turn in enumerate(turns)]
    system = system_of(row) if row else ""
    if system and Turn(SYSTEM, system) not in said[:1]:
        said.insert(0, Turn(SYSTEM, system))
    spoken = _joined(said)
    last = len(spoken) - 1
    while last >= 0 and not (spoken[last].speaker == ASSISTANT and spoken[last].trained):
        last -= 1
    if last < 0:
        if all(turn.speaker != ASSISTANT for turn in spoken):
            raise RowError(f"{column} has no assistant turn")
        raise RowError(f"{column} has no assistant turn that is trained on: all have weight 0")
    if last == 0:
        raise RowError(f"{column} has no user turn before the last assistant turn")
    media = NO_MEDIA
    unread = len(spoken) > last + 1
    for turn in said:
        if turn.media:
            media = media + Counter(turn.media)
        unread = unread or turn.unread or not turn.trained
    tools = tools_of(row) if row else []
    return Conversation(_rendered(spoken[:last], tools), spoken[last].text, media, unread)


def as_turns(value: Any) -> Any:
    """A column of turns as a list, JSON text read; None if it is no list that starts with one."""
    if isinstance(value, str):
        value = as_value(value)
    is_list = isinstance(value, (list, tuple)) and len(value) > 0
    return value if is_list and is_turn(value[0]) else None


def turns_of_both(question: Any, answer: Any) -> list[Any] | None:
    """The turns of a prompt and its completion, one of which is a list of turns; else None.

    A completion that repeats the prompt, as preferences have it, is the whole conversation.
    """
    before, after = as_turns(question), as_turns(answer)
    if before is None and after is None:
        return None
    if before is None and isinstance(question, str):
        before = [{"role": "user", "content": question}]
    if after is None and isinstance(answer, str):
        after = [{"role": "assistant", "content": answer}]
    if before is None or after is None:
        return None
    repeated = list(after[: len(before)]) == list(before)
    return [*(() if repeated else before), *after]


def system_of(row: Mapping[str, Any]) -> str:
    """The system prompt in a row's own column; "" for none."""
    system = row.get("system")
    return system if isinstance(system, str) and system.strip() else ""


def tools_of(row: Mapping[str, Any]) -> list[Any]:
    """The tools that a row names under `tools` or `functions`, as objects or as JSON text."""
    given = row.get("tools") or row.get("functions")
    if not given:
        return []
    tools = as_value(given)
    if not isinstance(tools, (list, tuple)):
        return []
    return [tool for tool in map(as_value, tools) if isinstance(tool, dict)]


def history_turns(value: Any) -> list[dict[str, str]]:
    """Alpaca's `history`, a list of [question, answer], as turns; empty if it is none."""
    pairs = as_value(value)
    if not isinstance(pairs, (list, tuple)):
        return []
    turns: list[dict[str, str]] = []
    for pair in pairs:
        is_pair = isinstance(pair, (list, tuple)) and len(pair) == 2
        if not is_pair or not all(isinstance(text, str) for text in pair):
            return []
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return turns


def media_columns(row: Mapping[str, Any]) -> Counter[str]:
    """How many images, sounds and films lie in a row's own columns, by type."""
    if row.keys().isdisjoint(_MEDIA_COLUMNS):
        return NO_MEDIA
    found: Counter[str] = Counter()
    for column in row.keys() & _MEDIA_COLUMNS.keys():
        value = row[column]
        if value is not None and (not hasattr(value, "__len__") or len(value)):
            many = isinstance(value, (list, tuple))
            found[_MEDIA_COLUMNS[column]] += len(value) if many else 1
    return found


def _joined(turns: Sequence[Turn]) -> list[Turn]:
    """Neighbouring turns of one side as one; results of tools stay apart."""
    joined: list[Turn] = []
    for turn in turns:
        before = joined[-1] if joined else None
        if (
            before is not None
            and (before.speaker, before.trained) == (turn.speaker, turn.trained)
            and turn.speaker != TOOL
        ):
            text = "\n\n".join(text for text in (before.text, turn.text) if text)
            joined[-1] = Turn(turn.speaker, text, turn.trained)
        else:
            joined.append(turn)
    return joined


def _rendered(turns: Sequence[Turn], tools: Sequence[Any]) -> str:
    users = [turn.text for turn in turns if turn.speaker == USER]
    asked = users or [turn.text for turn in turns if turn.speaker != ASSISTANT]
    if not any(text.strip() for text in asked):
        return ""  # which the schema rejects as a blank instruction
    if len(turns) == 1 and turns[0].speaker == USER and not tools:
        return turns[0].text
    blocks = [f"{turn.speaker}: {turn.text}" for turn in turns]
    if tools:
        lines = (json.dumps(tool, ensure_ascii=False, default=str) for tool in tools)
        blocks.insert(0, "\n".join(("Tools:", *lines)))
    return "\n\n".join(blocks)
