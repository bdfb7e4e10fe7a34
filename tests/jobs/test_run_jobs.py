"""The jobs on a finished run, as processes: what they print, and how they fail."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.commands.start import main as nn_cift
from engine.config import parse_config
from engine.stages.pipeline import run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def finished(small_job, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs")
    job = {
        **small_job,
        "corpus": {"path": [small_job["corpus"]["path"], str(folder / "bad.jsonl")]},
        "teacher": {"name": "delift_se", "model": small_job["embedding"]["model"]},
        "run_dir": str(folder / "run"),
    }
    row = {"id": "broken", "instruction": "", "output": "x"}
    (folder / "bad.jsonl").write_text(json.dumps(row) + "\n")
    return run(parse_config(job), until="select")


def start(name, *arguments):
    command = [sys.executable, str(ROOT / "jobs" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)


def test_explain_says_why_a_row_was_kept_and_another_dropped(finished, capsys):
    table = pq.read_table(finished.artifact("7-selection").path("explanations")).to_pandas()
    kept = table[table["rank"] == 1].iloc[0]
    done = start("explain.py", "--run-dir", finished.path, "--id", kept["id"])
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["rank"] == 1 and "kept: rank 1 of 30 by facility location" in done.stderr
    assert f"nearest selected row of {kept['num_nearest']:.0f} dropped ones" in done.stderr
    assert nn_cift(["explain", "--run-dir", str(finished.path), "--id", kept["id"]]) == 0
    assert capsys.readouterr() == (done.stdout, done.stderr), "the other door to the same"
    dropped = table[table["rank"].isna()].iloc[0]
    done = start("explain.py", "--run-dir", finished.path, "--id", dropped["id"])
    told = json.loads(done.stdout.splitlines()[-1])
    nearest = table.iloc[int(dropped["nearest"])]
    assert told["rank"] is None and told["nearest"] == nearest["id"]
    assert (
        f"the nearest selected row is {nearest['id']} (rank {nearest['rank']:.0f})" in done.stderr
    )
    assert "it would still add" in done.stderr


def test_explain_of_rows_that_are_no_candidates(finished, tmp_path):
    done = start("explain.py", "--run-dir", finished.path, "--id", "broken")
    assert done.returncode == 2
    assert "is in the quarantine of candidates, instruction is blank" in done.stderr
    done = start("explain.py", "--run-dir", finished.path, "--id", "nobody")
    assert done.returncode == 2
    assert done.stderr.strip() == "error: no candidate has the id 'nobody'; ids look like 'c0'"
    done = start("explain.py", "--run-dir", tmp_path, "--id", "c0")
    assert done.returncode == 2 and "has no finished selection" in done.stderr
    done = start("explain.py", "--run-dir", tmp_path / "none", "--id", "c0")
    assert done.returncode == 2 and "no such run directory" in done.stderr


def test_score_new_refuses_what_it_cannot_do(finished, tmp_path):
    done = start("score_new.py", "--run-dir", finished.path, "--corpus", tmp_path / "none.jsonl")
    assert done.returncode == 2 and "No such file" in done.stderr
    arguments = ("--run-dir", finished.path, "--corpus", "x.jsonl", "--teacher.name", "less")
    done = start("score_new.py", *arguments)
    assert done.returncode == 2
    assert "--teacher.name is a setting of the run, whose student is frozen" in done.stderr
    assert not (finished.path / "additions").exists()
