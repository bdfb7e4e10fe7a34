"""A study from settings to its table, its trials run one after the other here."""

import copy
import itertools

import pyarrow.parquet as pq
import pytest
import yaml

from engine.artifacts.files import read_json
from engine.config import load_config, parse_config
from engine.errors import SettingsError
from engine.study import study as studying
from engine.study.study import run_study
from engine.study.tune import _fixed, _measure, _plain, _row
from tests.small_job import write_rows


def run_here(config, unit, data_dir, storage, name, rankings):
    """What Tune would do with a grid."""
    fixed, rows = _fixed(config, unit, data_dir, rankings), []
    for values in itertools.product(*config.study.grid.values(), config.study.seeds):
        settings = dict(zip([*config.study.grid, "seed"], values, strict=True))
        rows.append(_row(settings, {"measured": _measure(settings, fixed, config.study)}))
    return rows


@pytest.fixture
def job(small_job, tmp_path, monkeypatch):
    monkeypatch.setattr(studying, "run_trials", run_here)
    job = copy.deepcopy(small_job)
    return {
        **job,
        "run_dir": str(tmp_path / "run"),
        "teacher": {"name": "delift_se", "model": job["embedding"]["model"]},
        "student": {"name": "network"},
        "sample": {**job["sample"], "design": "block"},
        "study": {
            "grid": {"network.hidden": [[10], [20, 5], []], "sample.fraction": [0.1, 0.3]},
            "seeds": [0, 1],
            "fractions": [0.1],
        },
    }


def test_a_study_writes_its_table_and_what_won(job, tmp_path):
    folder = run_study(parse_config(job))
    table = pq.read_table(folder / "trials.parquet")
    assert len(table) == 12
    assert set(table["network.hidden"].to_pylist()) == {"10", "20-5", "linear"}
    found = read_json(folder / "study.json")
    losses = [row["loss"] for row in found["rows"]]
    assert losses == sorted(losses) and len(losses) == 6
    assert all(row["seeds"] == 2 for row in found["rows"])
    best = load_config(folder / "best.yaml")
    winner = found["rows"][0]
    assert best.sample.fraction == winner["sample.fraction"] and best.study is None
    assert _plain(best.network.hidden) == winner["network.hidden"]
    assert yaml.safe_load((folder / "best.yaml").read_text())["teacher"]["name"] == "delift_se"
    assert all(row["teacher_cpu_s"] > 0 for row in table.to_pylist())
    assert {"size.svg", "heat-overlap.png", "study.html"} <= {p.name for p in folder.iterdir()}
    # the teacher was asked about everything, once: sample.fraction is the trials'
    assert read_json(tmp_path / "run/3-sample/manifest.json")["counts"]["everything"]
    assert run_study(parse_config(job)) == folder


def test_a_trial_that_could_not_be_fitted_is_a_row_without_numbers(job):
    job["study"]["grid"] = {"network.hidden": [[10]], "sample.fraction": [0.01, 0.3]}
    rows = pq.read_table(run_study(parse_config(job)) / "trials.parquet").to_pylist()
    failed = [row for row in rows if row["sample.fraction"] == 0.01]
    assert all(
        "too few to learn from" in row["problem"] and row["labels"] is None for row in failed
    )
    assert len(failed) == 2 and all(row["problem"] is None for row in rows if row not in failed)


@pytest.mark.parametrize("method", ["icl", "qlora"])
def test_subsets_are_shown_to_a_model_or_trained_on(job, small_job, tmp_path, method):
    write_rows(tmp_path / "test.jsonl", 5, 3, "e")
    job["study"] |= {
        "grid": {"sample.fraction": [0.01, 0.1, 0.3]},
        "fractions": [0.05, 1.0],
        "log_likelihood": method,
    }
    job["evaluation"] = {
        "test": {"path": str(tmp_path / "test.jsonl")},
        "model": small_job["teacher"]["model"],
        "prompt_style": "plain",
        "max_tokens": 1024,
        "max_new_tokens": 1,
        "qlora": {"quantization": None, "epochs": 1},
    }
    folder = run_study(parse_config(job))
    rows = pq.read_table(folder / "trials.parquet").to_pylist()
    failed = [row for row in rows if row["sample.fraction"] == 0.01]
    assert len(failed) == 2 and all(row["log_likelihood 1"] is None for row in failed)
    rows = [row for row in rows if row not in failed]
    assert len(rows) == 4
    assert all(-20 < row["log_likelihood 0.05"] < 0 for row in rows)
    # all rows are all rows, whoever ranked them
    assert len({row["log_likelihood 1"] for row in rows}) == 1
    assert len({row["log_likelihood 0.05"] for row in rows}) > 1
    by_chance = {(row["seed"], row["random log_likelihood 0.05"]) for row in rows}
    assert len(by_chance) == 2  # one draw for each seed, whatever the trial
    assert (folder / "heat-log-likelihood.svg").is_file()


@pytest.mark.parametrize(
    ("study", "sentence"),
    [
        (None, "nothing to study"),
        ({"grid": {}}, "nothing to study"),
        ({"grid": {"teacher.name": ["less"]}}, "must be features, or a setting below"),
        ({"grid": {"network.hiden": [[1]]}}, "network.hiden"),
        ({"search": {"network.learning_rate": {"low": -1, "high": 1}}}, "greater than 0"),
        ({"grid": {"network.epochs": [3]}, "log_likelihood": "icl"}, "evaluation.test.path"),
    ],
)
def test_what_cannot_be_studied_is_told_before_anything_is_spent(job, tmp_path, study, sentence):
    with pytest.raises(SettingsError, match=sentence):
        run_study(parse_config({**job, "study": study}))
    assert not (tmp_path / "run").exists()
