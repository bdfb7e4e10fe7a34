"""One turn of a conversation, in any of the spellings that are in use, as who says which text.

Read are OpenAI's `{role, content}` and ShareGPT's `{from, value}`, content as text or as a list of
parts, tool calls as objects or JSON text (`tool_calls`, the older `function_call`, ShareGPT's turn
`function_call`, parts of type `tool_use`), reasoning as `reasoning_content`, `reasoning`,
`thinking`, as a part, or as a <think> block in the text. Null counts as absent: Arrow gives every
turn the keys of all turns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from engine.corpus.problems import RowError, kind_of

__all__ = ["ASSISTANT", "ROLES", "Turn", "as_value", "called", "is_turn", "read_turn", "role_of"]

SYSTEM, USER, ASSISTANT, TOOL = "System", "User", "Assistant", "Tool"
ROLES = {
    "system": SYSTEM,
    "developer": SYSTEM,
    "user": USER,
    "human": USER,
    "prompter": USER,
    "assistant": ASSISTANT,
    "gpt": ASSISTANT,
    "chatgpt": ASSISTANT,
    "model": ASSISTANT,
    "bot": ASSISTANT,
    "chatbot": ASSISTANT,
    "ai": ASSISTANT,
    "function_call": ASSISTANT,
    "tool_call": ASSISTANT,
    "tool": TOOL,
    "function": TOOL,
    "observation": TOOL,
    "ipython": TOOL,
    "tool_response": TOOL,
}
_CALLS = ("function_call", "tool_call")  # roles whose text is the call
_TEXT_PARTS = ("text", "input_text", "output_text")
_REASONING_PARTS = ("thinking", "reasoning")
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_THINK = re.compile(r"<think>.*?(?:</think>\s*|\Z)", re.DOTALL)
_PLAIN_KEYS = ({"role", "content"}, {"from", "value"})


class Turn(NamedTuple):
    """What one side says.

    Attributes:
        speaker: System, User, Assistant or Tool.
        text: all that is read of it: reasoning, text with media as `<image>`, tool calls.
        trained: False where `weight` is 0, or `train` or `loss` false.
        media: types of the parts that are no text, in order: image, audio, video, ...
        unread: it holds what the text does not show.
    """

    speaker: str
    text: str
    trained: bool = True
    media: tuple[str, ...] = ()
    unread: bool = False


def is_turn(value: Any) -> bool:
    """Whether an element of a list looks like a turn at all."""
    return isinstance(value, dict) and ("role" in value or "from" in value)


def read_turn(turn: Any, place: str, reasoning: bool = True) -> Turn:
    """A turn as text; `place` names it in a RowError, which says what is wrong with it.

    `reasoning` off leaves reasoning out. Text parts are joined as they stand. A turn that has tool
    calls or reasoning needs no text.
    """
    if not isinstance(turn, dict):
        raise RowError(f"{place} must be an object, got {kind_of(turn)}")
    role, text_key = role_of(turn, place)
    speaker, content = ROLES[role], turn.get(text_key)
    is_plain = turn.keys() in _PLAIN_KEYS and role not in _CALLS
    if is_plain and isinstance(content, str) and (reasoning or "<think>" not in content):
        return Turn(speaker, content)
    thoughts = [turn[key] for key in _REASONING_KEYS if isinstance(turn.get(key), str)][:1]
    calls = list(called(turn, role, text_key))
    if role in _CALLS and calls:
        content = ""
    media: list[str] = []
    text = _content(content, f"{place}.{text_key}", speaker, media, thoughts, calls)
    if text is None and not (thoughts or calls):
        raise RowError(f"{place}.{text_key} must be text or a list of parts, got null")
    text = text or ""
    unread = bool(media)
    if reasoning:
        text = (
            "".join(f"<think>\n{thought}\n</think>\n\n" for thought in thoughts if thought) + text
        )
    else:
        shown = _THINK.sub("", text)
        unread |= bool(thoughts) or shown != text
        text = shown
    shown_calls = [f"<tool_call>\n{_as_json(call)}\n</tool_call>" for call in calls]
    text = "\n".join(([text] if text else []) + shown_calls)
    return Turn(speaker, text, _is_trained(turn), tuple(media), unread)


def role_of(turn: Mapping[str, Any], place: str) -> tuple[str, str]:
    """The role of a turn as a key of ROLES, and the key that its text stands under."""
    sharegpt = turn.get("role") is None and turn.get("from") is not None
    role_key, text_key = ("from", "value") if sharegpt else ("role", "content")
    role = turn.get(role_key)
    if not isinstance(role, str):
        raise RowError(f"{place}.{role_key} must be text, got {kind_of(role)}")
    known = role if role in ROLES else role.strip().lower()
    if known not in ROLES:
        raise RowError(f"{place}: unknown role {role!r}, known are {', '.join(ROLES)}")
    return known, text_key


def called(turn: Mapping[str, Any], role: str, text_key: str) -> Iterator[dict[str, Any]]:
    """The tool calls of a turn as {name, arguments}, but for those among its parts."""
    calls = as_value(turn.get("tool_calls")) or as_value(turn.get("function_call"))
    if not calls and role in _CALLS:
        calls = as_value(turn.get(text_key))
    for call in calls if isinstance(calls, list) else [calls]:
        if isinstance(call, dict):
            function = call.get("function")
            call = function if isinstance(function, dict) else call
            keys = (key for key in ("arguments", "parameters", "input") if key in call)
            given = call.get(next(keys, ""), {})
            yield {"name": call.get("name"), "arguments": as_value(given)}


def as_value(value: Any) -> Any:
    """What JSON text of an object or a list holds; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _content(
    content: Any,
    place: str,
    speaker: str,
    media: list[str],
    thoughts: list[str],
    calls: list[dict[str, Any]],
) -> str | None:
    """The text of a turn's content, its parts sorted into text, media, reasoning and calls."""
    if content is None or isinstance(content, str):
        return content
    is_list = isinstance(content, list)
    if is_list and all(isinstance(part, str) or _is_part(part) for part in content):
        return "".join(_part(part, media, thoughts, calls) for part in content)
    if speaker == TOOL and isinstance(content, (dict, list)):
        return _as_json(content)
    what = "a list with other things" if is_list else kind_of(content)
    raise RowError(f"{place} must be text or a list of parts, got {what}")


def _is_part(part: Any) -> bool:
    return isinstance(part, dict) and (isinstance(part.get("type"), str) or "text" in part)


def _part(part: Any, media: list[str], thoughts: list[str], calls: list[dict[str, Any]]) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") or "text"
    if kind in _TEXT_PARTS:
        text = part.get("text")
        return text if isinstance(text, str) else ""
    if kind in _REASONING_PARTS:
        thoughts.extend(part[k] for k in ("thinking", "reasoning", "text") if part.get(k))
        return ""
    if kind == "tool_use":
        calls.append({"name": part.get("name"), "arguments": part.get("input") or {}})
        return ""
    if kind == "tool_result":
        inner = part.get("content")
        return inner if isinstance(inner, str) else _as_json(inner)
    name = kind.removeprefix("input_").removesuffix("_url")
    media.append(name)
    return f"<{name}>"


def _is_trained(turn: Mapping[str, Any]) -> bool:
    weight = turn.get("weight")
    no_weight = isinstance(weight, (int, float)) and weight == 0
    return not no_weight and turn.get("train") is not False and turn.get("loss") is not False


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
