"""New rows on real Ray, as a process that is killed and started again: the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from engine.artifacts.run_directory import RunDirectory
from engine.config import parse_config
from engine.stages.additions import ADDITION_STAGES, score_new
from engine.stages.pipeline import run
from tests.small_job import write_rows

ROOT = Path(__file__).resolve().parents[2]


def contents(directory):
    """sha256 of every file of the artifacts, by stage and path."""
    found = {}
    for stage in ADDITION_STAGES:
        artifact = directory.artifact(stage.directory)
        for group in artifact.manifest["parts"]:
            for part in artifact.parts(group):
                found[stage.name, part.path] = part.sha256
    return found


def test_a_killed_job_goes_on_and_leaves_the_same_bytes(small_job, tmp_path):
    settings = {
        **small_job,
        "teacher": {"name": "delift_se", "model": small_job["embedding"]["model"]},
        "selection": {"budget": 5},
    }
    new = tmp_path / "new.jsonl"
    write_rows(new, 60, 9, "n")
    directory = run(
        parse_config({**settings, "run_dir": str(tmp_path / "a")}), until="select", executor="local"
    )
    shutil.copytree(directory.path, tmp_path / "b")
    undisturbed = contents(score_new(directory.path, str(new), executor="local"))
    command = [sys.executable, str(ROOT / "jobs/score_new.py"), "--run-dir", str(tmp_path / "b")]
    command += ["--corpus", str(new), "--ray.num_cpus", "2"]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    job = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    embedded = tmp_path / "b/additions"
    for _ in range(1200):
        if list(embedded.glob("*/2-embeddings/manifest.json")) or job.poll() is not None:
            break
        time.sleep(0.1)
    job.send_signal(signal.SIGKILL)
    job.wait()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert contents(RunDirectory(Path(told["run_dir"]))) == undisturbed
    assert told["new_rows"] == 60 and told["merged"] == 5 + told["added"]
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert again.returncode == 0 and "done before" in again.stderr
