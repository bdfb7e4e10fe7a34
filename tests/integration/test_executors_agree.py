"""A run on Ray and the same run in one process leave the same bytes."""

import shutil

import pytest

from engine.config import parse_config
from engine.stages.pipeline import run, stages_of

EXECUTORS = ("local", "ray")
TWO = {"max_actors": 2}  # more show no more, and each imports all libraries anew
LESS = {"lora_rank": 2, "lora_alpha": 4, "warmup_epochs": 1, "projection_dim": 64}


def jobs(small_job):
    """Pairs, learned by a network that Ray Train fits; and vectors, rows, a gate, a second look."""
    model = small_job["teacher"]["model"]
    return {
        "delift": {
            "teacher": {**small_job["teacher"], "execution": TWO},
            "student": {"name": "network"},
            "influence": {"max_dense_gib": 1e-6},
        },
        "less": {
            "teacher": {"name": "less", "model": model, "less": LESS, "execution": TWO},
            "quality": {
                "teacher": {"name": "ifd", "model": model, "execution": TWO},
                "drop_worst": 0.2,
            },
            "selection": {"budget": 30, "second_look": 1.5, "max_tokens": 500},
        },
    }


@pytest.fixture(scope="module")
def begun(small_job, ray_local, tmp_path_factory):
    """Both jobs' corpus and embeddings, by either executor."""
    job = {**small_job, "embedding": {**small_job["embedding"], "execution": TWO}}
    folder = tmp_path_factory.mktemp("begun")
    for executor in EXECUTORS:
        run(parse_config(job), run_dir=folder / executor, until="embed", executor=executor)
    return folder


@pytest.mark.parametrize("name", ["delift", "less"])
def test_the_same_bytes_on_ray_and_in_this_process(small_job, begun, tmp_path, name):
    config = parse_config({**small_job, **jobs(small_job)[name]})
    found = {}
    for executor in EXECUTORS:
        shutil.copytree(begun / executor, tmp_path / executor)
        directory = run(config, run_dir=tmp_path / executor, until="select", executor=executor)
        artifacts = {s.name: directory.artifact(s.directory) for s in stages_of(config)[:-1]}
        found[executor] = {
            (stage, group, part.path): part.sha256
            for stage, artifact in artifacts.items()
            for group in artifact.manifest["parts"]
            for part in artifact.parts(group)
        }
    assert found["local"] == found["ray"] and len(found["ray"]) > 20
