"""IFD against plain forward passes, and what it says of rows that it cannot judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.config import TeacherConfig
from engine.errors import ModelError
from engine.example import Example, content_key
from engine.teachers.ifd import IfdTeacher
from engine.teachers.teacher import load_teacher
from tests.tiny_models import build_tiny_language_model

ROWS = [("Say it.", "yes it is"), ("Which colour has the sky?", "blue"), ("a", "b c d")]


def example(instruction: str, output: str = "yes") -> Example:
    return Example(instruction, content_key(instruction, "", output), instruction, "", output)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_language_model(tmp_path_factory.mktemp("lm"))


def teacher(model_path: Path, **settings: Any) -> IfdTeacher:
    model = {"path": str(model_path), "dtype": "float32"}
    values = {"name": "ifd", "model": model, "max_tokens": 64, "batch_size": 2, "ifd": settings}
    loaded = load_teacher(TeacherConfig.model_validate(values), 0)
    assert isinstance(loaded, IfdTeacher)
    return loaded


@torch.no_grad()
def loss_by_hand(model_path: Path, before: str, response: str) -> float:
    """Mean cross-entropy of the response's tokens, one row, as Hugging Face counts it."""
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    head = tokenizer(before, add_special_tokens=True).input_ids
    tail = tokenizer(" " + response, add_special_tokens=False).input_ids
    ids = torch.tensor([[*head, *tail, tokenizer.eos_token_id]])
    labels = ids.clone()
    labels[0, : len(head)] = -100
    return float(model(ids, labels=labels).loss)


@pytest.mark.parametrize("form", ["perplexity", "loss"])
def test_scores_are_those_of_plain_forward_passes(model_path: Path, form: str) -> None:
    found = teacher(model_path, form=form).features("candidate", [example(*row) for row in ROWS])
    expected = []
    for instruction, output in ROWS:
        given = loss_by_hand(model_path, f"{instruction}\n##Answer:", output)
        alone = loss_by_hand(model_path, "\n##Answer:", output)
        expected.append(np.exp(given) / np.exp(alone) if form == "perplexity" else given / alone)
    np.testing.assert_allclose(found.values[:, 0], expected, rtol=1e-4)
    assert found.problems == [None] * 3 and found.usage.calls == 6
    assert found.usage.num_truncated == 0


def test_what_is_asked_together_changes_nothing(model_path: Path) -> None:
    rows = [example(*row) for row in ROWS]
    whole = teacher(model_path).features("candidate", rows).values
    one_by_one = [teacher(model_path).features("candidate", [row]).values[0] for row in rows]
    np.testing.assert_allclose(whole, one_by_one, rtol=1e-5)
    backwards = teacher(model_path).features("candidate", rows[::-1]).values
    np.testing.assert_array_equal(whole, backwards[::-1])


def test_rows_that_it_cannot_judge(model_path: Path) -> None:
    rows = [example("Say it.", ""), example("Say it.", "word " * 100), example("Say it.", "no")]
    found = teacher(model_path, min_response_tokens=5).features("candidate", rows)
    assert np.isnan(found.values).all() and found.usage.calls == 0
    assert found.problems[0] == "the response is empty"
    assert "does not fit in max_tokens (64)" in str(found.problems[1])
    assert found.problems[2] == "the response has fewer than 5 tokens (ifd.min_response_tokens)"


def test_a_long_prompt_loses_its_head(model_path: Path) -> None:
    tail = "and this is the end of the question"
    long, short = example("word " * 200 + tail), example("word " * 100 + tail)
    found = teacher(model_path).features("candidate", [long, short])
    assert found.usage.num_truncated == 2 and np.isfinite(found.values).all()
    np.testing.assert_allclose(found.values[0], found.values[1], rtol=1e-5)


def test_a_model_without_a_chat_template(model_path: Path) -> None:
    with pytest.raises(ModelError, match="no chat template"):
        teacher(model_path, template="chat").features("candidate", [example("Say it.")])


def test_in_a_chat_template(tmp_path: Path) -> None:
    path = build_tiny_language_model(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} ; {% endfor %}"
    )
    tokenizer.save_pretrained(path)
    rows = [example(*row) for row in ROWS]
    chat = teacher(path, template="chat").features("candidate", rows)
    plain = teacher(path).features("candidate", rows)
    assert np.isfinite(chat.values).all() and chat.problems == [None] * 3
    assert chat.usage.tokens > plain.usage.tokens
    assert not np.allclose(chat.values, plain.values)
