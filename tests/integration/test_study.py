"""A study on real Ray Tune: all trials, once each, also after the driver was killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from engine.config import parse_config
from engine.study.tune import _fixed, _measure, ranking_path, run_trials
from tests.study.test_trial import synthetic

ROOT = Path(__file__).resolve().parents[2]


def command(config, run_dir):
    job = str(ROOT / "jobs/tune.py")
    best = str(run_dir.with_suffix(".yaml"))
    return [sys.executable, job, "--config", str(config), "--run-dir", str(run_dir), "--best", best]


def finished(run_dir):
    """Trials whose last report is on disk, and what they say of it, times among it."""
    paths = run_dir.glob("study/*/tune/*/result.json")
    lines = {path: path.read_text().splitlines() for path in paths if path.stat().st_size}
    return {path: said for path, said in lines.items() if '"measured"' in said[-1]}


@pytest.mark.slow
def test_a_killed_study_goes_on_and_repeats_no_finished_trial(small_job, tmp_path):
    job = {
        **small_job,
        "teacher": {"name": "delift_se", "model": small_job["embedding"]["model"]},
        "study": {
            "grid": {"network.hidden": [[10], [20, 5], []], "sample.fraction": [0.1, 0.3]},
            "seeds": [0, 1],
            "fractions": [0.1],
        },
    }
    config, run_dir = tmp_path / "job.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(job))
    with open(tmp_path / "log", "w") as log:
        killed = subprocess.Popen(command(config, run_dir), stdout=log, stderr=log)
        deadline = time.monotonic() + 240
        while len(finished(run_dir)) < 3:
            assert killed.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, "no trials after four minutes"
            time.sleep(0.1)
        time.sleep(3)  # Tune writes down what it knows every second or so
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
    time.sleep(5)
    before = finished(run_dir)
    done = subprocess.run(command(config, run_dir), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    table = pq.read_table(told["trials"])
    cells = table.select(["network.hidden", "sample.fraction", "seed"]).to_pylist()
    assert len(cells) == len({tuple(cell.values()) for cell in cells}) == 12
    assert told["settings"] == 6 and told["best"]["seeds"] == 2
    after = finished(run_dir)
    repeated = [path for path, said in before.items() if after.get(path) != said]
    assert len(before) >= 3 and not repeated
    best = yaml.safe_load(run_dir.with_suffix(".yaml").read_text())
    assert "study" not in best and best["teacher"]["name"] == "delift_se"


def test_trials_on_ray_are_those_in_process_and_tensorboard_has_them(ray_local, tmp_path):
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    synthetic().save(data_dir)
    config = parse_config(
        {
            "corpus": {"path": "not read"},
            "features": ["text"],
            "student": {"name": "network"},
            "sample": {"fraction": 0.3, "audit": {"candidates": 8, "targets": 4}},
            "network": {"members": 1, "epochs": 20, "patience": 5},
            "study": {
                "grid": {"network.hidden": [[10], [5, 3]]},
                "search": {"network.learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}},
                "samples": 2,
                "seeds": [0],
                "fractions": [0.1],
            },
        }
    )
    rankings = tmp_path / "rankings"
    rankings.mkdir()
    rows = run_trials(config, "pair", data_dir, tmp_path, "tune", rankings)
    assert len(rows) == 4 and len({row["network.learning_rate"] for row in rows}) == 2
    fixed = _fixed(config, "pair", data_dir, tmp_path)
    for row in rows:
        hidden = [int(units) for units in row["network.hidden"].split("-")]
        settings = {"network.hidden": hidden, "network.learning_rate": row["network.learning_rate"]}
        again = _measure({**settings, "seed": 0}, fixed, config.study)
        assert {k: v for k, v in again.items() if k != "fit_cpu_s"}.items() <= row.items()
        plain = {name: row[name] for name in (*settings, "seed")}
        assert len(np.load(ranking_path(rankings, plain))) == 8
    events = list((tmp_path / "tune").glob("*/events.out.tfevents*"))
    assert len(events) == 4
    assert all(b"ray/tune/measured/unseen student mse_std" in path.read_bytes() for path in events)
    # killed before Tune had written down its trials: it starts anew
    for path in (tmp_path / "tune").glob("experiment_state-*.json"):
        path.unlink()
    again = run_trials(config, "pair", data_dir, tmp_path, "tune", rankings)
    assert [_told(row) for row in again] == [_told(row) for row in rows]
    # and finished, it is not repeated: fits take other times
    assert run_trials(config, "pair", data_dir, tmp_path, "tune", rankings) == again


def _told(row):
    return {name: value for name, value in row.items() if name != "fit_cpu_s"}
