"""What students read of a row: sizes, weights, and rows out of parts."""

from __future__ import annotations

import numpy as np
import pytest

from engine.config import parse_config
from engine.errors import SettingsError
from engine.example import Example, content_key
from engine.features.feature import FEATURES, assembled, sources_of, text_lengths
from engine.features.rows import FeatureRows
from engine.kernels.product import unit_rows
from engine.stages.pipeline import run

ALL = tuple(FEATURES)


def sources(count=5, dim=4, states=3):
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(3, count, dim)).astype(np.float32)
    unit = [np.asarray(unit_rows(side)) for side in drawn]
    return {
        "text": unit[0],
        "prompt": unit[1],
        "response": unit[2],
        "length": np.full((count, 2), 2.0, np.float32),
        "reading": np.abs(rng.normal(size=(count, states + 2))).astype(np.float32),
    }


def test_features_lie_side_by_side_the_text_first():
    made = sources()
    found = assembled(ALL, made)
    assert found.shape == (5, 3 * 4 + 1 + 2 + 3 + 2) and found.dtype == np.float32
    np.testing.assert_array_equal(found[:, :4], made["text"])
    agreement = (made["prompt"] * made["response"]).sum(axis=1)
    np.testing.assert_allclose(found[:, 12], 3 * agreement, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found[:, 15:18], axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found[:, 18:], np.log1p(made["reading"][:, -2:]), rtol=1e-5)
    assert assembled(tuple(reversed(ALL)), made).tobytes() == found.tobytes()


def test_what_there_was_is_the_text_alone():
    assert sources_of(["text"]) == ["text"]
    made = sources()
    assert assembled(["text"], made) is made["text"]
    assert sources_of(["agreement"]) == ["text", "prompt", "response"]
    assert sources_of(["losses", "states"]) == ["text", "reading"]


def test_lengths_are_those_of_prompt_and_response():
    row = Example("a", content_key("ab", "c", "defg"), "ab", "c", "defg")
    np.testing.assert_allclose(text_lengths([row]), np.log1p([[4, 4]]))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"features": ["text", "text"]}, "features names one twice"),
        ({"features": ["txt"]}, "features"),
        (
            {"features": ["states"], "teacher": {"name": "delift_se"}},
            "states is read by the teacher's language model, and teacher delift_se has none",
        ),
    ],
)
def test_features_that_cannot_be_are_one_sentence(settings, sentence):
    with pytest.raises(SettingsError, match=sentence):
        parse_config({"corpus": {"path": "x"}, **settings})


def test_the_cosine_without_the_text_is_refused_before_anything_is_read(tmp_path):
    job = {"corpus": {"path": "x"}, "features": ["prompt"], "student": {"name": "cosine"}}
    with pytest.raises(SettingsError, match="add text to features"):
        run(parse_config({**job, "run_dir": str(tmp_path / "run")}))


def test_a_run_with_every_feature(small_job, tmp_path, monkeypatch):
    teacher = {**small_job["teacher"], "name": "rds"}
    config = parse_config(
        {**small_job, "run_dir": str(tmp_path / "run"), "teacher": teacher, "features": list(ALL)}
    )
    directory = run(config)
    embeddings = directory.artifact("2-embeddings")
    rows = FeatureRows(embeddings, "candidates", ALL)
    assert len(rows) == 300 and rows.dim == 3 * 32 + 1 + 2 + 32 + 2 and rows.text_dim == 32
    some = np.array([299, 0, 7])
    np.testing.assert_array_equal(rows.take(some), rows.all()[some])
    assert embeddings.counts["features"] == list(ALL)
    fit = directory.artifact("5-student")
    assert fit.counts["student"] in ("vectors", "kernel", "linear", "cosine")
    passed = fit.counts["student"] == "vectors"
    assert fit.counts["targets"] == ("student" if passed else "exact")
    assert "target_vectors" not in fit.manifest["parts"], "the targets pass through it too"


@pytest.mark.parametrize(
    ("teacher", "student", "why"),
    [
        ("delift", "vectors", "no similarity of two vectors"),
        ("less", "vectors", "no similarity of two vectors"),
        ("less", "vector_network", "no similarity of two vectors"),
        ("selectit", "cosine", "scores rows, not pairs"),
    ],
)
def test_a_student_that_cannot_learn_the_teacher_is_refused_before_it_is_paid(
    small_job, tmp_path, teacher, student, why
):
    job = {**small_job, "run_dir": str(tmp_path / "run"), "student": {"name": student}}
    job["teacher"] = {**job["teacher"], "name": teacher}
    with pytest.raises(SettingsError, match=f"{student} cannot learn teacher {teacher}, .*{why}"):
        run(parse_config(job))
    assert not (tmp_path / "run").exists()
