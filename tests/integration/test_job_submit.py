"""The same job through `ray job submit` on a cluster of its own leaves the same subset."""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PORT, DASHBOARD, CLIENT = 26379, 28265, 21001  # outside Ray's worker ports


@pytest.fixture
def cluster():
    """A head with a dashboard; ended by the pid that was started, never by name."""
    env = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    # a short path: sockets lie below it, and their paths may not exceed 107 characters
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        head = subprocess.Popen(
            [
                *(str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=2"),
                *("--node-ip-address=127.0.0.1", f"--port={PORT}", "--dashboard-host=127.0.0.1"),
                *(f"--dashboard-port={DASHBOARD}", f"--ray-client-server-port={CLIENT}"),
                *("--object-store-memory=300000000", f"--temp-dir={folder}"),
                # not the default, which another cluster on this machine may be using
                "--dashboard-agent-listen-port=28365",
                "--disable-usage-stats",
            ],
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait(f"http://127.0.0.1:{DASHBOARD}/api/version")
            yield {**env, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{DASHBOARD}"}
        finally:
            head.terminate()
            head.wait(60)


def _wait(url):
    deadline = time.monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline, "the head did not come up"
            time.sleep(0.5)


@pytest.mark.slow
def test_a_submitted_job_selects_the_same_bytes(small_job, cluster, tmp_path):
    config = ROOT / "tests" / "integration" / "submitted-test.yaml"
    config.write_text(yaml.safe_dump(small_job))
    try:
        command = ["jobs/select.py", "--config", str(config.relative_to(ROOT)), "--run-dir"]
        local, submitted = tmp_path / "local", tmp_path / "submitted"
        direct = [sys.executable, *command, str(local)]
        done = subprocess.run(direct, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        submit = [str(BIN / "ray"), "job", "submit", "--working-dir", ".", "--", sys.executable]
        done = subprocess.run(
            [*submit, *command, str(submitted), "--json-logs"],
            cwd=ROOT,
            env=cluster,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        events = [line["event"] for line in lines if "event" in line]
        assert events.count("stage_finished") == 8
        assert lines[-1]["run_dir"] == str(submitted)
    finally:
        config.unlink()
    for name in ("subset.parquet", "subset.jsonl", "ranking.parquet"):
        one, other = (run / "7-selection" / name for run in (local, submitted))
        assert one.read_bytes() == other.read_bytes(), name
