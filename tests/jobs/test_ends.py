"""A job that is told to end says how to go on, with the exit code that shells expect."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ENDS = {
    signal.SIGINT: (130, "interrupted; the same command goes on where this one stopped"),
    signal.SIGTERM: (143, "stopped by SIGTERM; the same command goes on where this one stopped"),
}


def command(config: Path, run_dir: Path) -> list[str]:
    job = [sys.executable, str(ROOT / "jobs/select.py"), "--config", str(config)]
    return [*job, "--run-dir", str(run_dir), "--until", "fit"]


def in_the_foreground() -> None:
    """A process group of its own, and Ctrl-C as a terminal gives it: not ignored, as by nohup."""
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def end_in(stage: str, words: list[str], log: Path, number: int) -> int:
    """Start a job in a group of its own, signal it in a stage; returns its exit code."""
    with open(log, "w") as file:
        job = subprocess.Popen(
            words, stdout=file, stderr=file, cwd=ROOT, preexec_fn=in_the_foreground
        )
        deadline = time.monotonic() + 300
        while f"{stage} ..." not in log.read_text():
            assert job.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        time.sleep(0.3)
        assert job.poll() is None, "the stage was over too soon"
        # Ctrl-C goes to all processes of a terminal, SIGTERM to the job
        os.killpg(job.pid, number) if number == signal.SIGINT else os.kill(job.pid, number)
        return job.wait(timeout=120)


@pytest.mark.parametrize(
    ("execution", "stage", "number"),
    [
        ("local", "embed", signal.SIGTERM),
        ("local", "fit", signal.SIGINT),
        ("ray", "embed", signal.SIGTERM),
        ("ray", "fit", signal.SIGINT),
    ],
)
def test_a_job_that_is_told_to_end(small_job, tmp_path, execution, number, stage):
    config = tmp_path / "job.yaml"
    job = {**small_job, "execution": execution, "network": {"epochs": 4000, "num_workers": 1}}
    job["student"] = {"name": "network"}
    config.write_text(yaml.safe_dump(job))
    words, log = command(config, tmp_path / "run"), tmp_path / "log"
    code = end_in(stage, words, log, number)
    assert (code, log.read_text().splitlines()[-1]) == ENDS[number], log.read_text()
    assert "Traceback" not in log.read_text() and "***" not in log.read_text()
    assert not (tmp_path / "run" / "5-student" / "manifest.json").exists()
    if stage == "embed":
        done = subprocess.run([*words[:-1], "embed"], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["run_dir"] == str(tmp_path / "run")
