"""Conversations in the forms of 2026, as one instruction and one output: the documented form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.corpus.schema import ParsedRow, Rules, parse

CALL = {"name": "weather", "arguments": {"city": "Graz"}}
CALLED = '<tool_call>\n{"name": "weather", "arguments": {"city": "Graz"}}\n</tool_call>'
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]


def accepted(values: dict[str, Any], **rules: Any) -> ParsedRow:
    row = parse(values, {}, Rules(**rules))
    assert isinstance(row, ParsedRow), row
    return row


def texts(messages: Any, /, **beside: Any) -> tuple[str, str]:
    example = accepted({"messages": messages, **beside}).example
    return example.instruction, example.output


def said(*turns: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in turns]


@pytest.mark.parametrize("asks", ["user", "User", "human", " HUMAN "])
@pytest.mark.parametrize("answers", ["assistant", "Assistant", "gpt", "model", "bot", "AI"])
def test_roles_by_any_of_their_names(asks: str, answers: str):
    assert texts(said((asks, "q"), (answers, "a"))) == ("q", "a")
    assert texts([{"from": asks, "value": "q"}, {"from": answers, "value": "a"}]) == ("q", "a")


@pytest.mark.parametrize("role", ["tool", "function", "observation", "ipython"])
def test_results_of_tools(role: str):
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [{"function": CALL}]},
        {"role": role, "content": "21", "tool_call_id": "1"},
        {"role": role, "content": {"t": 22}},
        {"role": "assistant", "content": "a"},
    ]
    shown = f'User: q\n\nAssistant: {CALLED}\n\nTool: 21\n\nTool: {{"t": 22}}'
    assert texts(turns) == (shown, "a")


@pytest.mark.parametrize(
    "answer",
    [
        {"role": "assistant", "content": None, "tool_calls": [{"function": CALL}]},
        {"role": "assistant", "tool_calls": [{"type": "function", "id": "1", "function": CALL}]},
        {"role": "assistant", "content": "", "tool_calls": json.dumps([{"function": CALL}])},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"function": {**CALL, "arguments": '{"city": "Graz"}'}}],
        },
        {"role": "assistant", "content": None, "function_call": CALL, "name": None},
        {"from": "function_call", "value": json.dumps(CALL)},
        {
            "role": "tool_call",
            "content": json.dumps({"name": "weather", "parameters": {"city": "Graz"}}),
        },
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "1", "name": "weather", "input": {"city": "Graz"}}
            ],
        },
    ],
)
def test_a_call_is_the_same_text_in_every_spelling(answer: dict[str, Any]):
    assert texts([{"role": "user", "content": "q"}, answer]) == ("q", CALLED)


def test_a_call_beside_text_and_two_calls():
    answer = {
        "role": "assistant",
        "content": "Let me look.",
        "tool_calls": [{"function": CALL}] * 2,
    }
    assert texts([*said(("user", "q")), answer])[1] == f"Let me look.\n{CALLED}\n{CALLED}"


@pytest.mark.parametrize("tools", [TOOLS, json.dumps(TOOLS), [json.dumps(TOOLS[0])]])
def test_tools_stand_before_all_else(tools: Any):
    shown = f"Tools:\n{json.dumps(TOOLS[0])}\n\nSystem: s\n\nUser: q"
    assert texts(said(("user", "q"), ("assistant", "a")), tools=tools, system="s") == (shown, "a")


def test_parts_of_text_are_joined_and_others_counted_by_type():
    parts = [
        {"type": "image_url", "image_url": {"url": "file:///x.png"}},
        {"type": "text", "text": "What "},
        {"type": "text", "text": "is it?"},
        {"type": "input_audio", "input_audio": {"data": "AAAA"}},
        {"type": "image"},
    ]
    row = accepted(
        {"messages": said(("user", parts), ("assistant", [{"type": "text", "text": "a"}]))}
    )
    assert (
        row.example.instruction == "<image>What is it?<audio><image>" and row.example.output == "a"
    )
    assert row.media == {"image": 2, "audio": 1}
    reason = parse(
        {"messages": said(("user", parts), ("assistant", "a"))}, {}, Rules(media="refuse")
    )
    assert reason == "the row holds 1 audio, 2 image, which nothing reads (media: refuse)"


def test_images_in_columns_are_counted():
    plain = {"instruction": "<image>q", "output": "a"}
    assert accepted({**plain, "images": ["a.png", "b.png"]}).media == {"image": 2}
    assert accepted({**plain, "image": {"bytes": b"x"}, "videos": [], "audio": None}).media == {
        "image": 1
    }


@pytest.mark.parametrize(
    "answer",
    [
        {"role": "assistant", "content": "a", "reasoning_content": "r"},
        {"role": "assistant", "content": "<think>\nr\n</think>\n\na"},
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "r"}, {"type": "text", "text": "a"}],
        },
    ],
)
def test_reasoning_is_read_or_not_in_every_spelling(answer: dict[str, Any]):
    row = {"messages": [{"role": "user", "content": "q"}, answer]}
    assert accepted(row).example.output == "<think>\nr\n</think>\n\na"
    assert accepted(row, reasoning="skip").example.output == "a"
    assert accepted(row, reasoning="skip").extra == row  # it stays in the data


def test_an_answer_that_is_reasoning_alone():
    answer = {"role": "assistant", "content": "", "reasoning_content": "r"}
    row = {"messages": [{"role": "user", "content": "q"}, answer]}
    assert accepted(row).example.output == "<think>\nr\n</think>\n\n"
    assert parse(row, {}, Rules(reasoning="skip")) == "output is blank"


def test_neighbouring_turns_of_one_side_are_one():
    turns = said(("user", "q"), ("user", "r"), ("assistant", "a"), ("assistant", "b"))
    assert texts(turns) == ("q\n\nr", "a\n\nb")


def test_the_answer_is_the_last_turn_that_is_trained_on():
    bad = [{**turn, "weight": 0} for turn in said(("assistant", "bad"))]
    turns = [*said(("user", "q"), ("assistant", "a"), ("user", "r")), *bad]
    assert texts(turns) == ("q", "a")
    for key in ("train", "loss"):
        turns[-1] = {"role": "assistant", "content": "bad", key: False}
        assert texts(turns) == ("q", "a")
    turns = [*said(("user", "q")), *bad, *said(("user", "r"), ("assistant", "a"))]
    assert texts(turns) == ("User: q\n\nAssistant: bad\n\nUser: r", "a")


def test_a_system_prompt_in_its_own_column():
    turns = said(("user", "q"), ("assistant", "a"))
    assert texts(turns, system="s") == ("System: s\n\nUser: q", "a")
    assert texts([*said(("system", "s")), *turns], system="s") == ("System: s\n\nUser: q", "a")
    assert texts([*said(("developer", "d")), *turns], system="") == ("System: d\n\nUser: q", "a")
    assert texts(said(("system", "s"), ("assistant", "a"))) == ("System: s", "a")


def test_history_and_system_of_an_alpaca_row_are_scored_and_come_back():
    row = {"instruction": "q", "input": "i", "output": "a", "system": "s", "history": [["p", "b"]]}
    parsed = accepted(row)
    assert parsed.example.instruction == "System: s\n\nUser: p\n\nAssistant: b\n\nUser: q i"
    assert (parsed.example.input, parsed.example.output) == ("", "a")
    assert parsed.extra == row
    assert accepted({**row, "history": [], "system": None}).example.input == "i"
    assert accepted({**row, "history": "long", "system": 5}).example.instruction == "q"


@pytest.mark.parametrize("answer", ["completion", "chosen"])
@pytest.mark.parametrize("as_text", [False, True])
def test_prompt_and_answer_as_lists_of_turns(answer: str, as_text: bool):
    row: dict[str, Any] = {"prompt": said(("user", "q")), answer: said(("assistant", "a"))}
    if as_text:
        row = {name: json.dumps(turns) for name, turns in row.items()}
    parsed = accepted(row, preference="chosen")
    assert (parsed.example.instruction, parsed.example.output) == ("q", "a")
    assert parsed.extra == row


def test_preferences_are_read_if_the_settings_say_so():
    whole = said(("user", "q"), ("assistant", "a"))
    worse = said(("user", "q"), ("assistant", "b"))
    rows = [
        {"chosen": whole, "rejected": worse},
        {"prompt": said(("user", "q")), "chosen": whole, "rejected": worse},
        {"prompt": "q", "chosen": "a", "rejected": "b"},
    ]
    for row in rows:
        example = accepted(row, preference="chosen").example
        assert (example.instruction, example.output) == ("q", "a")
        assert "preference: chosen takes the chosen answer" in str(parse(row, {}))
    alone = parse({"chosen": "a", "rejected": "b"}, {}, Rules(preference="chosen"))
    assert alone == "chosen is no list of turns, and no prompt says what it answers"


@pytest.mark.parametrize("question", ["prompt", "question", "query"])
@pytest.mark.parametrize("answer", ["completion", "response", "answer"])
def test_common_names_are_taken_and_told(question: str, answer: str):
    row = accepted({question: "q", answer: "a", "id": 1})
    assert (row.example.instruction, row.example.output) == ("q", "a")
    assert row.read_as == {"instruction": question, "output": answer} and row.extra == {}
    mixed = accepted({"instruction": "q", answer: "a"})
    assert mixed.read_as == {"output": answer}


def test_no_guess_between_two_candidates():
    reason = str(parse({"prompt": "p", "question": "q", "answer": "a"}, {}))
    assert "prompt and question may both be it: say which one" in reason
    assert "answer and response" not in str(
        parse({"instruction": "q", "output": "a", "answer": 1}, {})
    )
    assert isinstance(parse({"prompt": "p", "question": None, "answer": "a"}, {}), ParsedRow)
    assert "text alone does not say where the answer starts" in str(parse({"text": "t"}, {}))


def test_rows_without_ids_differ_if_anything_differs():
    """Of equal texts: another image, another turn that is not read, another hidden thought."""
    base = said(("user", [{"type": "text", "text": "q"}]), ("assistant", "a"))
    picture = {"type": "image_url", "image_url": {"url": "1"}}
    other = {"type": "image_url", "image_url": {"url": "2"}}
    rows = [
        {"messages": said(("user", [picture]), ("assistant", "a"))},
        {"messages": said(("user", [other]), ("assistant", "a"))},
        {"messages": [*base, *said(("user", "r"))]},
        {"messages": [*base, *said(("user", "s"))]},
        {"messages": [base[0], {**base[1], "reasoning_content": "r"}]},
        {"messages": [base[0], {**base[1], "reasoning_content": "s"}]},
        {"messages": base},
    ]
    examples = [accepted(row, reasoning="skip").example for row in rows]
    assert len({example.id for example in examples}) == len(rows)
    assert examples[-1].id == examples[-1].key


def test_turns_may_be_json_text_and_null_is_told():
    turns = said(("user", "q"), ("assistant", "a"))
    assert texts(json.dumps(turns)) == ("q", "a")
    assert parse({"messages": None}, {}) == "messages is null"
    assert parse({"messages": []}, {}) == "messages has no assistant turn"
