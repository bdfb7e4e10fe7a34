"""The demo's LESS: its target set has sub-tasks, and a row counts for the one it helps most."""

import json
from pathlib import Path

import numpy as np
import pytest

from engine.config import load_config
from engine.stages.pipeline import run

ROOT = Path(__file__).resolve().parents[2]


def test_a_row_counts_for_the_skill_that_it_helps_most(
    small_job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = load_config(
        ROOT / "jobs/configs/demo_less.yaml",
        {
            "run_dir": str(tmp_path / "run"),
            "corpus.path": str(ROOT / "demo/corpus.jsonl"),
            "target.path": str(ROOT / "demo/target.jsonl"),
            "teacher.model.path": small_job["teacher"]["model"]["path"],
            "teacher.max_tokens": "512",
            "teacher.less.projection_dim": "64",
            "embedding.model.path": small_job["embedding"]["model"]["path"],
            "student.name": "linear",
        },
    )
    directory = run(config, until="predict")
    lines = (ROOT / "demo/target.jsonl").read_text(encoding="utf-8").splitlines()
    by_id = {row["id"]: row["skill"] for row in map(json.loads, lines)}
    assert len(set(by_id.values())) == 12
    found = directory.artifact("6-influence")
    influence = np.concatenate(
        [np.load(found.directory / part.path) for part in found.parts("dense")]
    )
    rows = directory.artifact("1-corpus").parts("targets")
    skills = np.array([by_id[name] for name in _ids(directory, rows)])
    by_skill = [influence[:, skills == skill].mean(axis=1) for skill in sorted(set(skills))]
    best = np.max(by_skill, axis=0)
    means = np.load(found.path("means"))
    np.testing.assert_allclose(means, best, atol=1e-4)
    assert np.abs(best - influence.mean(axis=1)).max() > 1e-3


def _ids(directory, parts):
    import pyarrow.parquet as pq

    root = directory.artifact("1-corpus").directory
    return [name for part in parts for name in pq.read_table(root / part.path)["id"].to_pylist()]
