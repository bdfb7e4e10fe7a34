"""The whole pipeline with its models on a GPU: fractions share one and change no byte."""

import numpy as np
import pytest
import torch

from engine.artifacts.rows import VectorParts
from engine.config import parse_config
from engine.stages.pipeline import run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.usefixtures("ray_local"),
]


def on_gpu(settings, **execution):
    """The settings with the encoder and the teacher on actors of this kind."""
    changed = {s: {**settings[s], "execution": execution} for s in ("embedding", "teacher")}
    return parse_config({**settings, **changed})


@pytest.mark.parametrize("teacher", ["delift", "selectit", "less"])
def test_actors_that_share_a_gpu_give_the_bytes_of_one(small_job, tmp_path, teacher):
    settings = {**small_job, "teacher": {**small_job["teacher"], "name": teacher}}
    alone = run(on_gpu(settings, num_gpus=1, max_actors=1), run_dir=tmp_path / "alone")
    shared = run(on_gpu(settings, num_gpus=0.25, max_actors=3), run_dir=tmp_path / "shared")
    subsets = [(d.path / "7-selection" / "subset.jsonl").read_bytes() for d in (alone, shared)]
    assert subsets[0] == subsets[1]


def test_vectors_are_those_of_a_cpu_up_to_rounding(small_job, tmp_path):
    configs = {"gpu": on_gpu(small_job, num_gpus=1), "cpu": parse_config(small_job)}
    found = [
        run(config, run_dir=tmp_path / name, until="embed") for name, config in configs.items()
    ]
    gpu, cpu = (VectorParts(d.artifact("2-embeddings"), "candidates").all() for d in found)
    np.testing.assert_allclose(gpu, cpu, atol=1e-5)
