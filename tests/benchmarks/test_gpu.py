"""The benchmark of GPUs, on tiny shapes and without one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu

ROOT = Path(__file__).resolve().parents[2]


def test_the_kernels_of_both_kinds_give_the_same_bytes():
    rows = list(gpu.measured_kernels(quick=True))
    assert [row["kernel"] for row in rows] == [
        "predict_influence", "mean_influence", "top_candidates"
    ]  # fmt: skip
    assert all(row["same"] == 1 for row in rows)


@pytest.mark.slow
def test_a_quick_run(tmp_path):
    flags = ["--quick", "--encoder-rows", "20", "--pair-rows", "5", "--point-rows", "4"]
    command = [sys.executable, "benchmarks/gpu.py", *flags, "--repeats", "1"]
    subprocess.run([*command, "--json", str(tmp_path / "gpu.json")], cwd=ROOT, check=True)
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert {row["model"] for row in rows if "model" in row} == {
        "encoder", "delift", "selectit", "less"
    }  # fmt: skip
