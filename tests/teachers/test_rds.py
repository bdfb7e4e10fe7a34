"""RDS+ against a plain forward pass, and what it says of rows that it cannot read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.config import TeacherConfig
from engine.example import Example, content_key
from engine.teachers.rds import RdsTeacher
from engine.teachers.teacher import load_teacher, teacher_class
from tests.tiny_models import build_tiny_language_model


def example(instruction: str, output: str = "yes") -> Example:
    return Example(instruction, content_key(instruction, "", output), instruction, "", output)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_language_model(tmp_path_factory.mktemp("lm"))


@pytest.fixture(scope="module")
def teacher(model_path: Path) -> RdsTeacher:
    settings = {"name": "rds", "model": {"path": str(model_path), "dtype": "float32"}}
    loaded = load_teacher(TeacherConfig.model_validate({**settings, "max_tokens": 64}), 0)
    assert isinstance(loaded, RdsTeacher)
    return loaded


@torch.no_grad()
def by_hand(model_path: Path, instruction: str, output: str) -> np.ndarray:
    """Position-weighted mean of the last hidden states, one row at a time, no batching."""
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    text = f"{instruction}\n##Answer: {output}"
    ids = [*tokenizer(text, add_special_tokens=True).input_ids, tokenizer.eos_token_id]
    assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id
    states = model.base_model(torch.tensor([ids])).last_hidden_state[0].double().numpy()
    weights = np.arange(1, len(ids) + 1)
    pooled = (weights[:, None] * states).sum(axis=0) / weights.sum()
    return pooled / np.linalg.norm(pooled)


def test_vectors_are_those_of_a_plain_forward_pass(teacher: RdsTeacher, model_path: Path) -> None:
    texts = [("Say it.", "yes"), ("Which colour has the sky?", "blue"), ("a", "b")]
    found = teacher.features("candidate", [example(*text) for text in texts])
    expected = np.stack([by_hand(model_path, *text) for text in texts])
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    assert found.problems == [None] * 3 and found.usage.calls == 3


def test_a_pair_is_the_cosine_and_costs_nothing(teacher: RdsTeacher) -> None:
    rows = [example("Say it."), example("Which colour has the sky?", "blue")]
    vectors = teacher.features("target", rows).values
    answer = teacher.score(rows[0], vectors[0], rows, vectors)
    np.testing.assert_allclose(answer.values, [1.0, vectors[0] @ vectors[1]], atol=1e-6)
    assert answer.usage.calls == 0


def test_rows_that_cannot_be_read_have_a_reason_and_long_ones_are_cut(teacher: RdsTeacher) -> None:
    rows = [example("x", "  "), example("long " * 100), example("x", "long " * 100), example("x")]
    found = teacher.features("candidate", rows)
    assert found.problems == ["the response is empty", None, None, None]
    assert np.isnan(found.values[0]).all() and np.isfinite(found.values[1:]).all()
    assert found.usage.num_truncated == 2
    alone = teacher.features("candidate", rows[3:])
    np.testing.assert_allclose(found.values[3], alone.values[0], atol=1e-6)


def test_it_is_asked_about_rows_alone_and_centred() -> None:
    kind = teacher_class("rds")
    config = TeacherConfig.model_validate({"name": "rds", "model": {"path": "x"}})
    assert kind.unit == "point" and kind.same_features and kind.centred
    assert kind.vector_similarity(config) == "cosine"
