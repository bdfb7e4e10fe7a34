"""A study from settings to its table, its trials run one after the other here."""

import copy

import pyarrow.parquet as pq
import pytest
import yaml

from engine.config import load_config, parse_config
from engine.errors import SettingsError
from engine.run_directory import read_json
from engine.study import study as studying
from engine.study.data import StudyData
from engine.study.study import run_study
from engine.study.trial import run_trial, settings_of_trial
from engine.study.tune import _plain
from tests.in_process import replace_ray


def run_here(config, unit, data_dir, storage, name):
    """What Tune would do with a grid of two settings."""
    data, rows = StudyData.open(data_dir), []
    for hidden in config.study.grid["network.hidden"]:
        for fraction in config.study.grid["sample.fraction"]:
            for seed in config.study.seeds:
                values = {"network.hidden": hidden, "sample.fraction": fraction}
                sections = settings_of_trial(values, config.network, config.sample)
                found = run_trial(data, *sections, unit, seed, 50, config.study.fractions)
                rows.append({k: _plain(v) for k, v in values.items()} | {"seed": seed} | found)
    return rows


@pytest.fixture
def job(small_job, tmp_path, monkeypatch):
    replace_ray(monkeypatch)
    monkeypatch.setattr(studying, "run_trials", run_here)
    job = copy.deepcopy(small_job)
    return {
        **job,
        "run_dir": str(tmp_path / "run"),
        "teacher": {"name": "delift_se", "model": job["embedding"]["model"]},
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
    # the teacher was asked about everything, once: sample.fraction is the trials'
    assert read_json(tmp_path / "run/3-sample/manifest.json")["counts"]["everything"]
    assert run_study(parse_config(job)) == folder


@pytest.mark.parametrize(
    ("study", "sentence"),
    [
        (None, "nothing to study"),
        ({"grid": {}}, "nothing to study"),
        ({"grid": {"teacher.name": ["less"]}}, "below network. or sample"),
        ({"grid": {"network.hiden": [[1]]}}, "network.hiden"),
        ({"search": {"network.learning_rate": {"low": -1, "high": 1}}}, "greater than 0"),
    ],
)
def test_what_cannot_be_studied_is_told_before_anything_is_spent(job, tmp_path, study, sentence):
    with pytest.raises(SettingsError, match=sentence):
        run_study(parse_config({**job, "study": study}))
    assert not (tmp_path / "run").exists()
