"""Adapters trained on Ray Train are those of one process, for any number of workers."""

import pytest

from engine.artifacts.parts import finished_part
from engine.errors import EngineError
from engine.evaluation.fine_tune import TrainingJob, fine_tune, train_adapters
from engine.runtime.ray_cluster import RayExecutor
from tests.evaluation.subsets import evaluation_settings, write_inputs
from tests.tiny_models import build_tiny_language_model

JOBS = [TrainingJob(f"adapters/{seed}.safetensors", "mine", seed, 9) for seed in range(3)]


def test_two_workers_train_what_one_process_does(ray_local, tmp_path):
    inputs = write_inputs(tmp_path / "inputs")
    model = build_tiny_language_model(tmp_path / "model")
    settings = evaluation_settings(model, execution={"max_actors": 2})
    for name in ("here", "ray"):
        (tmp_path / name).mkdir()
    train_adapters(JOBS, settings, inputs, tmp_path / "here")
    fine_tune(RayExecutor(), JOBS, settings, inputs, tmp_path / "ray", "test")
    for job in JOBS:
        assert finished_part(tmp_path / "ray" / job.path) is not None
        mine, theirs = (tmp_path / name / job.path for name in ("here", "ray"))
        assert mine.read_bytes() == theirs.read_bytes()


def test_a_worker_that_cannot_train_says_why_at_once(ray_local, tmp_path):
    inputs = write_inputs(tmp_path / "inputs")
    model = build_tiny_language_model(tmp_path / "model")
    settings = evaluation_settings(model, max_tokens=16)
    with pytest.raises(EngineError, match=r"evaluation\.qlora\.max_tokens 16"):
        fine_tune(RayExecutor(), JOBS[:1], settings, inputs, tmp_path, "test")
