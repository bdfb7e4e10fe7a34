"""Every teacher through the whole pipeline on tiny models, with a network and without."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.artifacts.files import read_json
from engine.config import parse_config
from engine.errors import SettingsError
from engine.stages.pipeline import run

TINY_LESS = {"lora_rank": 2, "lora_alpha": 4, "warmup_epochs": 2, "projection_dim": 64}


def settings(small_job, name, **sections):
    teacher = {**small_job["teacher"], "name": name, "less": TINY_LESS}
    if name == "delift_se":
        teacher["model"] = small_job["embedding"]["model"]
    return {**small_job, "teacher": teacher, **sections}


def labels_of(directory):
    return pq.read_table(directory.artifact("4-teacher").path("labels"))


@pytest.mark.parametrize(
    ("name", "design"),
    [("less", "block"), ("selectit", "stratified"), ("delift_se", "stratified"), ("rds", None)],
)
def test_a_teacher_paid_by_the_point(small_job, tmp_path, name, design):
    sample = {**small_job["sample"], "design": design}
    config = parse_config(settings(small_job, name, sample=sample))
    directory = run(config, run_dir=tmp_path / "run")
    sample = directory.artifact("3-sample").counts
    score = directory.artifact("4-teacher")
    of_all = 12 if design == "block" else 60
    num_targets = of_all if sample["pairwise"] else 1
    assert sample["training_candidates"] == 60 and sample["training_targets"] == num_targets
    unseen = 8 if design == "block" else 0
    points = 60 + 12 + (of_all + unseen if sample["pairwise"] else 0)  # with those of the audit
    rows = sum(
        score.manifest["usage"].get(f"features_{s}_rows", 0) for s in ("candidate", "target")
    )
    assert points - 3 <= rows <= points  # rows with the same texts are asked about once
    assert np.isfinite(labels_of(directory)["score"].to_numpy()).all()
    assert directory.artifact("7-selection").counts["selected"] == 30
    fidelity = read_json(directory.artifact("5-student").path("fidelity"))
    judged = {"block": {"Q1", "Q2", "Q3", "Q4"}}.get(design, {"Q3"} if num_targets > 1 else {"Q4"})
    assert fidelity["quadrants"].keys() == judged


@pytest.mark.parametrize("name", ["less", "selectit"])
def test_the_full_teacher_needs_no_network_and_selects_by_its_own_scores(small_job, tmp_path, name):
    subtasks = {"influence": {"subtask_column": "topic"}} if name == "less" else {}
    config = parse_config(settings(small_job, name, sample={"fraction": 1}, **subtasks))
    directory = run(config, run_dir=tmp_path / "run")
    num_targets = 60 if name == "less" else 1
    scores = labels_of(directory)["score"].to_numpy().reshape(300, num_targets)
    means = scores.mean(axis=1)
    if subtasks:  # as good as for the topic that it helps most
        lines = Path(small_job["target"]["path"]).read_text().splitlines()
        topics = np.array([json.loads(line)["topic"] for line in lines])
        means = np.max([scores[:, topics == t].mean(axis=1) for t in set(topics)], axis=0)
    ranking = pq.read_table(directory.artifact("7-selection").path("ranking"))["row"].to_numpy()
    best = np.sort(means)[::-1][:30]
    np.testing.assert_allclose(means[ranking], best, rtol=1e-5)
    told = directory.artifact("8-report").counts
    assert told["trusted"] and told["judged_quadrant"] is None
    assert "the teacher's own scores" in told["verdict"].lower()


def test_a_share_of_what_the_full_teacher_was_asked_costs_nothing_more(small_job, tmp_path):
    everything = settings(small_job, "delift_se", sample={"fraction": 1})
    run(parse_config(everything), run_dir=tmp_path / "run", until="score")
    share = parse_config(settings(small_job, "delift_se"))
    directory = run(share, run_dir=tmp_path / "run", until="score", overwrite=True)
    score = directory.artifact("4-teacher")
    assert score.counts["asked_now"] == 0
    # and is charged its share of what was paid
    assert 70 <= score.manifest["usage"]["features_candidate_rows"] <= 72


def test_a_teacher_of_rows_has_nothing_to_cover(small_job):
    selection = {"objective": "facility_location"}
    with pytest.raises(SettingsError, match="nothing to cover"):
        parse_config(settings(small_job, "selectit", selection=selection))
