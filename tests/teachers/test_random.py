"""The random teacher is uniform, keyed by content, and seeded."""

import numpy as np
import pytest

from engine.config import TeacherConfig
from engine.errors import SettingsError
from engine.example import Example, content_key
from engine.teachers.teacher import load_teacher, teacher_class

CONFIG = TeacherConfig.model_validate({"name": "random"})


def example(text: str, id: str | None = None) -> Example:
    return Example(id or text, content_key(text, "", "y"), text, "", "y")


TARGETS = [example(str(i)) for i in range(2000)]


def scores(seed: int, candidate: str, targets: list[Example]) -> np.ndarray:
    return load_teacher(CONFIG, seed).score(example(candidate), None, targets, None).values


def test_uniform_in_zero_to_one():
    values = scores(0, "c", TARGETS)
    assert values.dtype == np.float32 and values.min() >= 0 and values.max() < 1
    counts, _ = np.histogram(values, bins=10, range=(0, 1))
    assert counts.min() > 140 and counts.max() < 260


def test_depends_on_seed_and_both_texts_only():
    first = scores(0, "c", TARGETS[:50])
    np.testing.assert_array_equal(first[::-1], scores(0, "c", TARGETS[:50][::-1]))
    renamed = [example(target.instruction, id="other") for target in TARGETS[:50]]
    np.testing.assert_array_equal(first, scores(0, "c", renamed))
    assert not np.array_equal(first, scores(1, "c", TARGETS[:50]))
    assert not np.array_equal(first, scores(0, "d", TARGETS[:50]))


def test_needs_no_model_and_no_feature():
    teacher = teacher_class("random")
    assert teacher.feature_sides == () and teacher.unit == "pair"
    assert teacher.identity(CONFIG) == {"teacher": "random", "version": 1}
    with pytest.raises(AssertionError, match="no features"):
        load_teacher(CONFIG, 0).features("target", TARGETS)


def test_unknown_teacher():
    with pytest.raises(SettingsError, match="unknown teacher 'gradients'; known: delift"):
        teacher_class("gradients")
