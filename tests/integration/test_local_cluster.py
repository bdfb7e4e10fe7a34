"""The local Ray that a job starts: nobody else on the machine or the network can use it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

JOB = """
import os, subprocess, sys
from engine.runtime.ray_cluster import connected
from engine.config import RayConfig

with connected(RayConfig(num_cpus=1, object_store_mib=100)):
    import ray
    import psutil

    @ray.remote
    def one():
        return 1

    assert ray.get(one.remote()) == 1
    for process in psutil.Process().children(recursive=True):
        if "dashboard/dashboard.py" in " ".join(process.cmdline()):  # it only counts usage
            listening = [c for c in process.net_connections("inet") if c.status == "LISTEN"]
            print("dashboard", len(listening))
    address = ray.get_runtime_context().gcs_address
    program = f"import ray; ray.init({address!r}); print(ray.nodes())"
    plain = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    tokens = {
        "without": {**plain, "RAY_AUTH_MODE": "disabled"},
        "wrong": {**plain, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64},
        "right": dict(os.environ),
    }
    asking = {
        name: subprocess.Popen(
            [sys.executable, "-c", program], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )
        for name, environment in tokens.items()
    }
    for name, process in asking.items():
        print(name, "NodeManagerAddress" in process.communicate(timeout=120)[0])
"""


def test_a_local_ray_answers_to_its_token_only(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", JOB],
        env={**environment, "HOME": str(home), "PYTHONPATH": str(ROOT)},
        cwd=ROOT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines == ["dashboard 0", "without False", "wrong False", "right True"]
    assert not (home / ".ray" / "auth_token").exists()  # it lives in the environment alone
