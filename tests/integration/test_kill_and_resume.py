"""A job killed in the middle of the teacher stage leaves what an undisturbed one leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from engine.artifacts.files import read_json
from engine.config import parse_config
from engine.stages.pipeline import run

ROOT = Path(__file__).resolve().parents[2]


def command(config, run_dir, *more):
    return [
        sys.executable,
        str(ROOT / "jobs/select.py"),
        *("--config", str(config), "--run-dir", str(run_dir), "--until", "score", *more),
    ]


def finish(config, run_dir, *more):
    done = subprocess.run(command(config, run_dir, *more), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["run_dir"] == str(run_dir)
    return done.stderr


def pair_records(run_dir):
    return list(run_dir.glob("4-teacher/store/*/pairs/*.parquet.json"))


def kill_in_the_teacher(config, run_dir):
    with open(run_dir.with_suffix(".log"), "w") as log:
        job = subprocess.Popen(command(config, run_dir), stdout=log, stderr=log)
        deadline = time.monotonic() + 360
        while len(pair_records(run_dir)) < 3:
            assert job.poll() is None, Path(log.name).read_text()
            assert time.monotonic() < deadline, "no teacher answers after six minutes"
            time.sleep(0.02)
        os.kill(job.pid, signal.SIGKILL)
        job.wait()


def test_killed_in_the_teacher_stage_and_resumed(small_job, tmp_path):
    config = tmp_path / "job.yaml"
    config.write_text(yaml.safe_dump(small_job))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(parse_config(small_job), run_dir=whole, until="score", executor="local")
    for stage in ("1-corpus", "2-embeddings"):  # what comes before is test_executors_agree.py's
        shutil.copytree(whole / stage, killed / stage)
    kill_in_the_teacher(config, killed)
    assert not (killed / "4-teacher" / "manifest.json").exists()
    time.sleep(5)  # the orphaned actors of the killed driver finish their part, or die with it
    paid = {record.name: record.stat().st_mtime_ns for record in pair_records(killed)}
    finish(config, killed, "--teacher.execution.max_actors", "2")
    for stage, name in (("4-teacher", "labels.parquet"), ("3-sample", "pairs.parquet")):
        assert (killed / stage / name).read_bytes() == (whole / stage / name).read_bytes()
    after = {record.name: record.stat().st_mtime_ns for record in pair_records(killed)}
    assert paid.items() <= after.items(), "an answer that had been paid for was asked for again"
    counts = read_json(killed / "4-teacher" / "manifest.json")["counts"]
    bought = sum(read_json(record)["rows"] for record in pair_records(killed))
    assert 0 < counts["asked_now"] < counts["pairs"]
    assert bought == counts["pairs"]


def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path):
    for text, said in (
        ("corpus: {path: nowhere.jsonl}", "No such file: "),
        ("corpus: {pth: x}", "did you mean path?"),
        ("corpus: [", "is not YAML"),
    ):
        config = tmp_path / "job.yaml"
        config.write_text(text)
        done = subprocess.run(command(config, tmp_path / "run"), capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("form", [["jobs/select.py"], ["-m", "jobs.select"]])
def test_the_job_starts_in_every_form_in_spite_of_its_name(form):
    done = subprocess.run(
        [sys.executable, *form, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "--config" in done.stdout
