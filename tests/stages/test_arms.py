"""A whole evaluation on a small corpus with tiny models, without Ray."""

import copy
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.config import parse_config
from engine.errors import RunDirectoryError, SettingsError
from engine.stages.arms import arms_of, evaluate
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
    return evaluate(parse_config(settings))


@pytest.fixture
def job(settings, monkeypatch):
    return copy.deepcopy(settings)


def test_every_arm_is_answered_graded_and_compared(directory):
    results = directory.artifact("5-results")
    table = pq.read_table(results.path("answers"))
    assert set(table["arm"].to_pylist()) == {
        "Initial (zero-shot)", "Random", "DELIFT", "NN+DELIFT", "DELIFT(SE)", "NN+DELIFT(SE)",
        "Full",
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


# --- baselines ------------------------------------------------------------------------------------

ALL_BASELINES = (
    "balanced", "length", "perplexity_middle", "perplexity_top", "bm25", "bm25_round_robin",
    "tf_idf", "tf_idf_round_robin", "cosine", "rds",
)  # fmt: skip


def subsets_of(job, arms, **evaluation):
    """The rows that each arm selects, by the name of its folder; no model is trained or asked."""
    job["evaluation"] |= {"arms": arms, "methods": ["icl"], "judge": None, "seeds": [0, 1]}
    directory = evaluate(parse_config({**job, "evaluation": {**job["evaluation"], **evaluation}}))
    folders = sorted((directory.path / "subsets").iterdir())
    return directory, {
        path.name: pq.read_table(path / "7-selection/ranking.parquet")["row"].to_pylist()
        for path in folders
    }


def test_baselines_are_arms_with_as_many_rows(job, tmp_path):
    pytest.importorskip("bm25s")
    job |= {"run_dir": str(tmp_path / "run")}
    del job["evaluation"]["teachers"]
    job["selection"] = {"budget": 7}
    directory, found = subsets_of(job, ["initial", *ALL_BASELINES], source_column="topic")
    assert set(found) == {
        "balanced-0", "balanced-1", "rds-in-turn", *set(ALL_BASELINES) - {"balanced", "rds"}
    }  # fmt: skip
    assert all(len(set(rows)) == len(rows) == 7 for rows in found.values())
    corpus = directory.path.parent / "1-corpus"
    parts = sorted((corpus / "candidates").glob("*.parquet"))
    rows = [row for path in parts for row in pq.read_table(path).to_pylist()]
    lengths = [len(row["output"]) for row in rows]
    assert sorted(lengths[i] for i in found["length"]) == sorted(lengths)[-7:]
    topics = [json.loads(row["extra"])["topic"] for row in rows]
    for seed in (0, 1):  # ten topics, seven rows: all of different ones
        assert len({topics[i] for i in found[f"balanced-{seed}"]}) == 7
    assert found["balanced-0"] != found["balanced-1"]
    # a model read every row once for both perplexities
    (reading,) = (directory.path / "reading/2-embeddings/candidates-reading").glob("*.npy")
    losses = np.load(reading)[:, -2]
    assert sorted(found["perplexity_top"]) == sorted(np.argsort(-losses)[:7].tolist())
    places = np.argsort(np.argsort(losses))
    assert sorted(places[found["perplexity_middle"]]) == list(range(16, 23)) or (
        sorted(places[found["perplexity_middle"]]) == list(range(17, 24))
    )
    results = directory.artifact("5-results")
    text = results.path("markdown").read_text()
    named = ("Initial (zero-shot)", "Random, balanced", "Top perplexity", "BM25, in turn", "RDS+")
    assert all(name in text for name in named)


def test_losses_that_the_run_has_are_not_computed_again(job, tmp_path):
    job |= {"run_dir": str(tmp_path / "run"), "features": ["text", "losses"]}
    del job["evaluation"]["teachers"]
    directory, found = subsets_of(job, ["perplexity_top"])
    assert not (directory.path / "reading").exists() and len(found["perplexity_top"]) == 9


def test_files_are_sources_where_no_column_is_named(job, tmp_path):
    write_rows(tmp_path / "few.jsonl", 4, 9, "few")
    job |= {"run_dir": str(tmp_path / "run")}
    job["corpus"] = {"path": [job["corpus"]["path"], str(tmp_path / "few.jsonl")]}
    _, found = subsets_of(job, ["balanced"])
    rows = found["balanced-0"]
    corpus = tmp_path / "run/1-corpus/candidates"
    files = [
        name for path in sorted(corpus.glob("*.parquet"))
        for name in pq.read_table(path)["file"].to_pylist()
    ]  # fmt: skip
    assert len(rows) == 9 and sum("few" in files[i] for i in rows) == 4


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"target": None}, "bm25, rds compare rows with targets: set target.path"),
        ({"sources": "tpoic"}, "evaluation.source_column: the candidates have no column 'tpoic'"),
    ],
)
def test_baselines_that_cannot_be_say_so(job, tmp_path, change, sentence):
    job |= {"run_dir": str(tmp_path / "run")}
    job["evaluation"] |= {"arms": ["balanced", "bm25", "rds"]}
    if "sources" in change:
        job["evaluation"]["source_column"] = change["sources"]
    else:
        job |= change
    with pytest.raises(SettingsError, match=sentence):
        evaluate(parse_config(job))


def test_a_library_that_is_missing_is_told_before_anything_is_done(job, tmp_path, monkeypatch):
    monkeypatch.setattr("engine.selection.baselines.find_spec", lambda name: None)
    job |= {"run_dir": str(tmp_path / "run")}
    job["evaluation"] |= {"arms": ["bm25"]}
    with pytest.raises(SettingsError, match="bm25 needs bm25s: pip install bm25s"):
        evaluate(parse_config(job))
    assert not (tmp_path / "run").exists()
