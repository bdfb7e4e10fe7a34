"""The documented rules of engine/corpus/schema.py, one by one."""

from __future__ import annotations

import datetime
import decimal
import math
from typing import Any

import numpy as np
import pytest

from engine.artifacts.rows import read_extra
from engine.corpus.schema import (
    ParsedRow,
    explain_missing_columns,
    extra_as_json,
    matches,
    parse,
)
from engine.example import content_key

ROW = {"id": "a", "instruction": "Add.", "input": "1 2", "output": "3"}
INVISIBLE = ["", " ", "\n\t ", "\u200b", "\u00a0\u3000", "\ufeff", "\u2060\u200d", "\x00", "\x07"]


def accepted(values: dict[str, Any], **columns: str) -> ParsedRow:
    row = parse(values, columns)
    assert isinstance(row, ParsedRow), row
    return row


def rejected(values: dict[str, Any], **columns: str) -> str:
    reason = parse(values, columns)
    assert isinstance(reason, str)
    return reason


def test_a_full_row_keeps_its_texts_and_carries_the_rest():
    row = accepted({**ROW, "source": "x", "meta": {"a": [1]}})
    example = row.example
    assert (example.id, example.instruction, example.input, example.output) == tuple(ROW.values())
    assert example.key == content_key("Add.", "1 2", "3")
    assert row.extra == {"source": "x", "meta": {"a": [1]}}
    assert row.num_nul == 0


@pytest.mark.parametrize("value", [None, ""])
def test_no_input_is_the_empty_input(value: str | None):
    missing = {name: text for name, text in ROW.items() if name != "input"}
    assert accepted({**ROW, "input": value}) == accepted(missing)


@pytest.mark.parametrize("column", ["instruction", "output"])
@pytest.mark.parametrize("text", [None, *INVISIBLE])
def test_blank_texts_are_rejected(column: str, text: str | None):
    assert rejected({**ROW, column: text}) == f"{column} is blank"


@pytest.mark.parametrize("text", ["?", "\u200bx", "\U0001f44d", "\u0301", "0"])
def test_one_visible_character_is_not_blank(text: str):
    assert accepted({**ROW, "instruction": text}).example.instruction == text


@pytest.mark.parametrize("column", ["instruction", "input", "output"])
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1, "a number"),
        (math.nan, "a number"),
        (True, "a boolean"),
        (["a"], "a list"),
        ({"a": 1}, "an object"),
        (b"a", "a value of type bytes"),
    ],
)
def test_what_is_no_text_is_rejected(column: str, value: Any, kind: str):
    assert rejected({**ROW, column: value}) == f"{column} must be text, got {kind}"


@pytest.mark.parametrize(
    ("value", "expected"), [("x", "x"), (" ", " "), (7, "7"), (-1, "-1"), (3.0, "3")]
)
def test_ids_that_are_kept(value: Any, expected: str):
    assert accepted({**ROW, "id": value}).example.id == expected


@pytest.mark.parametrize("value", [None, "", "\0", math.nan])
def test_without_an_id_the_content_key_is_the_id(value: str | None):
    example = accepted({**ROW, "id": value}).example
    assert example.id == example.key


@pytest.mark.parametrize("value", [1.5, math.inf, 2.0**60, True, [1]])
def test_other_ids_are_rejected(value: Any):
    assert "id must be text or an integer" in rejected({**ROW, "id": value})


def test_nul_characters_are_taken_out_and_counted():
    row = accepted({"id": "a\0", "instruction": "\0b\0", "output": "c", "input": "d\0"})
    assert row.num_nul == 4
    assert (row.example.id, row.example.instruction, row.example.input) == ("a", "b", "d")


@pytest.mark.parametrize("column", ["id", "instruction", "input", "output"])
def test_half_characters_are_rejected(column: str):
    assert "lone surrogate \\ud83d" in rejected({**ROW, column: "x\ud83d"})


def test_other_characters_come_back_as_they_were():
    twins = ["caf\u00e9", "cafe\u0301", " a\u200f\r\n", "\ufeffb"]
    rows = [accepted({**ROW, "id": None, "output": text}) for text in twins]
    assert [row.example.output for row in rows] == twins
    assert len({row.example.id for row in rows}) == len(twins)


def test_mapped_columns_are_used_and_not_carried():
    values = {"n": 1, "prompt": "p", "instruction": "not this", "answer": "a", "input": None}
    row = accepted(values, id="n", instruction="prompt", output="answer")
    assert (row.example.id, row.example.instruction, row.example.output) == ("1", "p", "a")
    assert row.extra == {"instruction": "not this"}


def test_a_column_called_input_can_be_the_instruction():
    row = accepted({"input": "p", "output": "a"}, instruction="input")
    assert (row.example.instruction, row.example.input) == ("p", "")


def test_missing_columns_are_named_with_those_found_and_a_mapping():
    expected = (
        "missing columns instruction, output; found task, label; name the right ones "
        "with the option columns: {instruction: NAME, output: label}"
    )
    assert rejected({"task": "p", "label": "c"}) == expected
    assert explain_missing_columns(["task", "label"], {}) == expected
    assert "missing column output; found id, instruction, input;" in rejected(
        {"id": "a", "instruction": "b", "input": ""}
    )


def test_a_table_must_have_every_mapped_column():
    found = ["instruction", "output"]
    assert explain_missing_columns(found, {}) is None
    assert "missing column ctx" in str(explain_missing_columns(found, {"input": "ctx"}))
    assert explain_missing_columns(["conversations", "id"], {}) is None
    assert "missing column chat" in str(explain_missing_columns(found, {"messages": "chat"}))


def turn(role: str, text: Any) -> dict[str, Any]:
    return {"role": role, "content": text}


def test_one_question_and_one_answer_are_taken_as_they_are():
    messages = [turn("user", "q"), turn("assistant", "a")]
    row = accepted({"id": 1, "messages": messages, "source": "s"})
    assert (row.example.instruction, row.example.input, row.example.output) == ("q", "", "a")
    assert row.extra == {"messages": messages, "source": "s"}


def test_a_longer_conversation_is_rendered_up_to_its_last_answer():
    values = {
        "conversations": [
            {"from": "system", "value": "Be brief."},
            {"from": "human", "value": "q1"},
            {"from": "gpt", "value": "a1"},
            {"from": "user", "value": "q2"},
            {"from": "assistant", "value": "a2"},
            {"from": "human", "value": "not answered"},
        ]
    }
    example = accepted(values).example
    assert example.instruction == "System: Be brief.\n\nUser: q1\n\nAssistant: a1\n\nUser: q2"
    assert example.output == "a2"


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ("q", "messages must be a list of turns, got text"),
        ([], "messages has no assistant turn"),
        ([turn("user", "q")], "messages has no assistant turn"),
        ([turn("assistant", "a")], "messages has no user turn before the last assistant turn"),
        (["q"], "messages[0] must be an object, got text"),
        ([turn("user", 1)], "messages[0].content must be text or a list of parts, got a number"),
        (
            [turn("user", [1])],
            "messages[0].content must be text or a list of parts, got a list with other things",
        ),
        ([turn("user", None)], "messages[0].content must be text or a list of parts, got null"),
        (
            [turn("user", "q"), {**turn("assistant", "a"), "weight": 0}],
            "messages has no assistant turn that is trained on: all have weight 0",
        ),
        ([{"content": "q"}], "messages[0].role must be text, got null"),
        ([turn("user", " "), turn("assistant", "a")], "instruction is blank"),
        ([turn("system", "s"), turn("user", ""), turn("assistant", "a")], "instruction is blank"),
        ([turn("user", "q"), turn("assistant", "\n")], "output is blank"),
    ],
)
def test_conversations_that_cannot_be_used(messages: Any, reason: str):
    assert rejected({"messages": messages}) == reason


def test_an_unknown_role_is_named_with_the_known_ones():
    reason = rejected({"messages": [turn("bard", "t"), turn("assistant", "a")]})
    assert reason.startswith("messages[0]: unknown role 'bard', known are system, developer")


def test_when_a_row_is_a_conversation():
    chat = [turn("user", "q"), turn("assistant", "a")]
    both = {**ROW, "messages": chat}
    assert accepted(both).example.instruction == "Add."
    assert accepted({**both, "instruction": None}).example.instruction == "q"
    assert accepted({"chat": chat}, messages="chat").example.instruction == "q"
    assert accepted(both, messages="messages").example.instruction == "q"
    assert accepted({**ROW, "messages": None}).example.instruction == "Add."


def test_where_asks_for_the_same_value_and_kind():
    values = {"split": "train", "score": 1, "flag": True, "note": None, "list": [1]}
    assert matches(values, {})
    assert matches(values, {"split": "train", "score": 1})
    assert matches(values, {"split": ("valid", "train")})
    assert matches(values, {"note": None, "flag": True})
    assert not matches(values, {"split": "train", "score": 2})
    assert not matches(values, {"score": True})
    assert not matches(values, {"flag": 1})
    assert not matches(values, {"score": "1"})
    assert not matches(values, {"missing": None})
    assert not matches(values, {"list": 1})
    assert not matches(values, {"split": ()})


def test_extra_columns_as_json():
    extra = {
        "b": "caf\u00e9\0",
        "a": [1, {"x": None}],
        "day": datetime.date(2024, 1, 2),
        "time": datetime.datetime(2024, 1, 2, 3, 4, tzinfo=datetime.timezone.utc),
        "price": decimal.Decimal("1.50"),
        "raw": b"\xff\x00",
        "vector": np.array([1, 2], dtype=np.int8),
        "scalar": np.float32(0.5),
    }
    assert extra_as_json(extra) == (
        '{"b": "caf\u00e9\\u0000", "a": [1, {"x": null}], "day": "2024-01-02", '
        '"time": "2024-01-02T03:04:00+00:00", "price": "1.50", "raw": "/wA=", '
        '"vector": [1, 2], "scalar": 0.5}'
    )


def test_numbers_and_keys_that_json_lacks():
    extra = {"a": [math.nan, 1.5], "b": np.array([math.inf]), ("k", 1): {"c": -math.inf, 2: b"x"}}
    text = extra_as_json({**extra, "long": datetime.timedelta(minutes=2, microseconds=5)})
    assert '"a": [NaN, 1.5]' in text  # as Python reads it; people and pages are shown null
    assert read_extra(text) == {
        "a": [None, 1.5],
        "b": [None],
        "('k', 1)": {"c": None, "2": "eA=="},
        "long": 120.000005,
    }


def test_a_misspelt_column_is_told_with_the_one_that_was_meant():
    found = ["Prompt", "answer", "id"]
    told = str(explain_missing_columns(found, {"instruction": "promt", "output": "answer"}))
    assert "missing column promt; found Prompt, answer, id" in told
    assert "columns: {instruction: Prompt}" in told
