"""A whole evaluation on a small corpus with tiny models, without Ray."""

import copy
import json

import pyarrow.parquet as pq
import pytest

from engine.arms import arms_of, evaluate
from engine.config import parse_config
from engine.errors import RunDirectoryError, SettingsError
from tests.in_process import replace_ray
from tests.small_job import write_rows


@pytest.fixture(scope="module")
def settings(small_job, tmp_path_factory):
    """Settings of an evaluation with two teachers, as nested values."""
    folder = tmp_path_factory.mktemp("evaluation")
    write_rows(folder / "corpus.jsonl", 40, 1, "c")
    write_rows(folder / "target.jsonl", 8, 2, "t")
    write_rows(folder / "test.jsonl", 6, 3, "e")
    language_model = small_job["teacher"]["model"]
    delift = small_job["teacher"]
    return {
        **small_job,
        "run_dir": str(folder / "run"),
        "corpus": {"path": str(folder / "corpus.jsonl")},
        "target": {"path": str(folder / "target.jsonl")},
        "sample": {"fraction": 0.5, "audit": {"candidates": 8, "targets": 4}},
        "network": {"preset": "paper", "epochs": 2, "num_workers": 1},
        "selection": {"budget": 9},
        "evaluation": {
            "test": {"path": str(folder / "test.jsonl")},
            "model": language_model,
            "teachers": [delift, {"name": "delift_se", "model": small_job["embedding"]["model"]}],
            "seeds": [0, 1],
            "prompt_style": "plain",
            "max_tokens": 1024,
            "max_new_tokens": 8,
            "qlora": {
                "quantization": None,
                "epochs": 1,
                "max_seeds": {"full": 1, "teacher": 1, "network": 1},
            },
            "judge": {"model": language_model, "max_new_tokens": 4, "max_tokens": 2048, "rows": 2},
        },
    }


@pytest.fixture(scope="module")
def directory(settings):
    """The evaluation, done once."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        replace_ray(monkeypatch)
        return evaluate(parse_config(settings))


@pytest.fixture
def job(settings, monkeypatch):
    replace_ray(monkeypatch)
    return copy.deepcopy(settings)


def test_every_arm_is_answered_graded_and_compared(directory):
    results = directory.artifact("5-results")
    table = pq.read_table(results.path("answers"))
    assert set(table["arm"].to_pylist()) == {
        "Initial", "Random", "DELIFT", "NN+DELIFT", "DELIFT(SE)", "NN+DELIFT(SE)", "Full",
    }  # fmt: skip
    # in context every arm under both seeds; trained, those that are to be trained once, once
    cells = {tuple(r.values()) for r in table.select(["arm", "method", "seed"]).to_pylist()}
    assert len(cells) == 7 * 2 + 2 + 2 + 5 and len(table) == 6 * len(cells)
    found = json.loads(results.path("results").read_text())
    assert found["rows_of"] == {
        "DELIFT": 9, "NN+DELIFT": 9, "DELIFT(SE)": 9, "NN+DELIFT(SE)": 9, "Random": 9, "Full": 40,
    }  # fmt: skip
    assert all(len(verdicts) == 2 for verdicts in found["trusted"].values())
    assert found["judged"] == 2 * directory.artifact("4-grades").manifest["counts"]["graded"] / 6
    text = results.path("markdown").read_text()
    assert all(arm in text for arm in found["rows_of"])


def test_answers_are_paid_for_once(directory):
    """Network and teacher share a store, and equal cells share their answers."""
    counts = {
        name: directory.path / "subsets" / name / "4-teacher/manifest.json"
        for name in ("delift", "nn-delift-0", "nn-delift-1")
    }
    asked = {name: json.loads(path.read_text())["counts"] for name, path in counts.items()}
    assert asked["delift"]["asked_now"] == 40 * 8 + 8
    assert asked["nn-delift-0"]["asked_now"] == asked["nn-delift-1"]["asked_now"] == 0
    answers = directory.artifact("3-answers")
    assert answers.counts["cells"] == 23
    # Initial is one set of answers for each method, a teacher in context one for both seeds
    assert len(answers.parts("answers")) < 23


def test_again_does_nothing_and_another_setting_is_refused(directory, job):
    before = {path: path.stat().st_mtime_ns for path in directory.path.rglob("*.parquet")}
    evaluate(parse_config(job))
    assert before == {path: path.stat().st_mtime_ns for path in directory.path.rglob("*.parquet")}
    job["evaluation"]["num_examples"] = 2
    with pytest.raises(RunDirectoryError, match="num_examples: 5 then, 2 now"):
        evaluate(parse_config(job))
    evaluate(parse_config(job), overwrite=True)


def test_arms_are_those_of_the_settings(job):
    job["evaluation"] |= {"arms": ["network", "small", "random"], "small_model": {"path": "small"}}
    arms = arms_of(parse_config(job))
    assert [arm.name for arm in arms] == [
        "Random", "small DELIFT", "NN+DELIFT", "small DELIFT(SE)", "NN+DELIFT(SE)",
    ]  # fmt: skip
    assert arms[1].teacher.model.path == "small" and arms[2].teacher.model.path != "small"


def test_a_setting_that_does_not_suit_a_teacher_is_told_before_any_is_asked(job, tmp_path):
    job |= {"run_dir": str(tmp_path / "run")}
    job["selection"]["objective"] = "facility_location"
    job["evaluation"]["teachers"].append({"name": "selectit", "model": job["teacher"]["model"]})
    with pytest.raises(SettingsError, match="evaluation, SelectIT: teacher selectit scores rows"):
        evaluate(parse_config(job))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"evaluation": None}, "set evaluation.test.path"),
        ({"sample": {"fraction": 1}}, "nothing for the network"),
    ],
)
def test_settings_that_cannot_be_evaluated_say_so(job, change, sentence):
    with pytest.raises(SettingsError, match=sentence):
        evaluate(parse_config({**job, **change}))
