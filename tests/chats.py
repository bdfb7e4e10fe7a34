"""Rows in the chat formats that are in use, made up: what was said, and each in some spelling."""

from __future__ import annotations

import json
import random
from typing import Any

WORDS = ["red", "blue", "stone", "river", "cloud", "seven", "apple", "Graz", "naïve", "北京", "🙂"]
Turn = dict[str, Any]
SPELLINGS = ("openai", "openai_text", "parts", "sharegpt", "prompt_completion", "chosen", "alpaca")


def chats(count: int, seed: int) -> list[tuple[dict[str, Any], list[Turn], list[Any]]]:
    """Rows, each with what it says: (row, turns, tools).

    A turn has role, text and, if it likes, calls ({name, arguments}), reasoning and weight.
    """
    draw = random.Random(seed)
    made = []
    for i in range(count):
        spelling = draw.choice(SPELLINGS)
        turns, tools = _conversation(draw, spelling)
        row = {"id": f"r{i}", **_SPELLERS[spelling](turns, tools)}
        row |= {"source": draw.choice("ab"), "score": draw.choice([1, 0.5, 2**40]), "n": i}
        row |= {"meta": {draw.choice(WORDS): i, "deep": [{"k": None}]}, "big": 2**63 + i}
        made.append((row, turns, tools))
    return made


def _text(draw: random.Random) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, 8)))


def _conversation(draw: random.Random, spelling: str) -> tuple[list[Turn], list[Any]]:
    turns: list[Turn] = []
    if draw.random() < 0.4:
        turns.append({"role": "system", "text": _text(draw)})
    has_tools = spelling not in ("alpaca", "parts") and draw.random() < 0.4
    for _ in range(draw.randint(1, 3)):
        turns.append({"role": "user", "text": _text(draw)})
        if has_tools and draw.random() < 0.7:
            calls = [_call(draw) for _ in range(draw.randint(1, 2))]
            turns.append({"role": "assistant", "text": "", "calls": calls})
            turns += [{"role": "tool", "text": _text(draw)} for _ in calls]
        turns.append({"role": "assistant", "text": _text(draw)})
        if spelling.startswith("openai"):
            if draw.random() < 0.2:
                turns[-1]["reasoning"] = _text(draw)
            if draw.random() < 0.2:
                turns[-1]["weight"] = draw.choice([0, 1])
    turns[-1].pop("weight", None)
    if spelling.startswith("openai") and draw.random() < 0.2:
        turns.append({"role": "user", "text": _text(draw)})
    tools = [_tool(draw) for _ in range(draw.randint(1, 2))] if has_tools else []
    return turns, tools


def _call(draw: random.Random) -> dict[str, Any]:
    arguments = {draw.choice(WORDS): draw.choice([1, 2.5, "x", [1], None, {"y": True}])}
    return {"name": draw.choice(WORDS), "arguments": arguments}


def _tool(draw: random.Random) -> dict[str, Any]:
    properties = {draw.choice(WORDS): {"type": draw.choice(["string", "integer"])}}
    function = {"name": draw.choice(WORDS), "parameters": {"properties": properties}}
    return {"type": "function", "function": function}


def _openai(turns: list[Turn], arguments_as_text: bool = False) -> list[dict[str, Any]]:
    return [_openai_turn(turn, arguments_as_text) for turn in turns]


def _openai_turn(turn: Turn, as_text: bool) -> dict[str, Any]:
    made: dict[str, Any] = {"role": turn["role"], "content": turn["text"]}
    if "calls" in turn:
        made["content"] = None
        made["tool_calls"] = [
            {
                "id": f"c{i}",
                "type": "function",
                "function": {
                    "name": call["name"],
                    "arguments": json.dumps(call["arguments"]) if as_text else call["arguments"],
                },
            }
            for i, call in enumerate(turn["calls"])
        ]
    if "reasoning" in turn:
        made["reasoning_content"] = turn["reasoning"]
    if "weight" in turn:
        made["weight"] = turn["weight"]
    return made


def _as_openai(turns: list[Turn], tools: list[Any]) -> dict[str, Any]:
    return {"messages": _openai(turns), **({"tools": tools} if tools else {})}


def _as_openai_text(turns: list[Turn], tools: list[Any]) -> dict[str, Any]:
    beside = {"tools": json.dumps(tools)} if tools else {}
    return {"messages": _openai(turns, arguments_as_text=True), **beside}


def _as_parts(turns: list[Turn], tools: list[Any]) -> dict[str, Any]:
    messages = [
        {"role": turn["role"], "content": [{"type": "text", "text": turn["text"]}]}
        for turn in turns
    ]
    return {"messages": messages}


def _as_sharegpt(turns: list[Turn], tools: list[Any]) -> dict[str, Any]:
    names = {"user": "human", "assistant": "gpt", "tool": "observation"}
    row: dict[str, Any] = {"conversations": [], "tools": json.dumps(tools) if tools else ""}
    for turn in turns:
        if turn["role"] == "system":
            row["system"] = turn["text"]
        elif "calls" in turn:
            calls = turn["calls"]
            value = json.dumps(calls[0] if len(calls) == 1 else calls)
            row["conversations"].append({"from": "function_call", "value": value})
        else:
            row["conversations"].append({"from": names[turn["role"]], "value": turn["text"]})
    return row


def _as_prompt_and(answer: str, turns: list[Turn], tools: list[Any]) -> dict[str, Any]:
    messages = _openai(turns)
    row: dict[str, Any] = {"prompt": messages[:-1], answer: messages[-1:]}
    return row | ({"tools": tools} if tools else {})


def _as_alpaca(turns: list[Turn], tools: list[Any]) -> dict[str, Any]:
    texts = [turn["text"] for turn in turns if turn["role"] != "system"]
    system = turns[0]["text"] if turns[0]["role"] == "system" else ""
    history = [list(pair) for pair in zip(texts[:-2:2], texts[1:-2:2], strict=True)]
    last = {"instruction": texts[-2], "input": "", "output": texts[-1]}
    return {**last, "system": system, "history": history}


_SPELLERS = {
    "openai": _as_openai,
    "openai_text": _as_openai_text,
    "parts": _as_parts,
    "sharegpt": _as_sharegpt,
    "prompt_completion": lambda turns, tools: _as_prompt_and("completion", turns, tools),
    "chosen": lambda turns, tools: {
        **_as_prompt_and("chosen", turns, tools),
        "rejected": [{"role": "assistant", "content": "no"}],
    },
    "alpaca": _as_alpaca,
}
