"""Labels of teachers whose score is a similarity of vectors, and the centre that is taken off."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.artifacts.files import map_table
from engine.artifacts.rows import as_matrix
from engine.config import parse_config
from engine.stages.pipeline import run


@pytest.fixture
def job(small_job, tmp_path, monkeypatch):
    return {
        **small_job,
        "run_dir": str(tmp_path / "run"),
        "teacher": {**small_job["teacher"], "name": "rds"},
    }


def vectors_of(score, side):
    table = map_table(score.path(f"vectors-{side}"))
    return dict(zip(table["row"].to_pylist(), as_matrix(table["vector"]), strict=True))


@pytest.mark.parametrize("centred", [True, False])
def test_scores_are_cosines_of_the_vectors(job, centred):
    job["teacher"]["centred"] = centred
    score = run(parse_config(job), until="score").artifact("4-teacher")
    labels = pq.read_table(score.path("labels")).to_pandas()
    of_c, of_t = vectors_of(score, "candidate"), vectors_of(score, "target")
    for row in labels.sample(50, random_state=0).itertuples():
        left, right = (v.astype(float) for v in (of_c[row.candidate], of_t[row.target]))
        cosine = left @ right / np.linalg.norm(left) / np.linalg.norm(right)
        assert row.score == pytest.approx(cosine, abs=1e-5)
    learned = labels.loc[labels["quadrant"] == 0, "candidate"].unique()
    mean = np.mean([of_c[row] for row in learned], axis=0)
    assert (np.abs(mean).max() < 1e-6) == centred
    assert ("centre" in score.manifest["parts"]) == centred
    assert not list(score.directory.glob("store/*/pairs/*")), "no pair was asked about"


def test_another_share_or_centre_asks_for_no_vector_twice(job):
    first = run(parse_config(job), until="score").artifact("4-teacher")
    job["teacher"]["centred"] = False
    again = run(parse_config(job), until="score", overwrite=True).artifact("4-teacher")
    assert first.counts["asked_now"] > 100 and again.counts["asked_now"] == 0
    job["sample"] = {**job["sample"], "fraction": 0.25}
    more = run(parse_config(job), until="score", overwrite=True).artifact("4-teacher")
    assert 10 <= more.counts["asked_now"] <= 15


def test_targets_pass_through_the_student_where_some_were_not_asked_about(job):
    job["student"] = {"targets": "exact"}
    fit = run(parse_config(job), until="fit").artifact("5-student")
    assert fit.counts["targets"] == "exact"
    job["sample"] = {**job["sample"], "max_targets": 20}
    fit = run(parse_config(job), until="fit", overwrite=True).artifact("5-student")
    assert fit.counts["targets"] == "student" and "target_vectors" not in fit.manifest["parts"]


def test_a_target_set_of_one_row(job, tmp_path):
    line = tmp_path / "one.jsonl"
    line.write_text('{"id": "t", "instruction": "Repeat: red", "output": "red"}\n')
    job["target"] = {"path": str(line)}
    for teacher in ("rds", "less", "delift"):
        job["teacher"] = {**job["teacher"], "name": teacher}
        job["teacher"]["less"] = {"lora_rank": 2, "warmup_epochs": 1, "projection_dim": 64}
        job["run_dir"] = str(tmp_path / teacher)
        directory = run(parse_config(job))
        assert directory.artifact("7-selection").counts["selected"] == 30


def test_rows_that_were_asked_about_compete_without_their_own_answers(job):
    directory = run(parse_config(job), until="predict")
    fit, predict = directory.artifact("5-student"), directory.artifact("6-influence")
    rows = np.load(fit.path("left_out_rows"))
    labels = pq.read_table(directory.artifact("4-teacher").path("labels")).to_pandas()
    learned = labels.loc[labels["quadrant"] == 0, "candidate"].unique()
    assert rows.tolist() == sorted(learned)
    factors = np.concatenate(
        [np.load(predict.directory / p.path) for p in predict.parts("factors-candidates")]
    )
    np.testing.assert_array_equal(factors[rows], np.load(fit.path("left_out")))
