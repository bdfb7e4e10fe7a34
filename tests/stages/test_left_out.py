"""What all later stages make of a row on which a worker process crashes; nothing crashes here."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.artifacts.files import read_json
from engine.artifacts.parts import finish_part
from engine.config import parse_config
from engine.runtime.crashes import CRASHED
from engine.runtime.local import LocalExecutor
from engine.selection.explain import explain
from engine.stages.pipeline import run

BAD = 3  # the row, which is in the first part of everything


class Crashing(LocalExecutor):
    """As after some row of the first piece of each of these workers crashed: {name: row}."""

    def __init__(self, rows):
        self._rows = rows

    def _do(self, pending, root, worker, worker_args, execution, threads):
        made, row = worker(**worker_args), self._rows.get(worker.__name__)
        for number, partition in enumerate(pending):
            left_out, payload = [], partition.payload
            if row is not None and not number:
                assert row < made.num_rows(payload)
                made.try_row(payload, row)
                left_out = [row]
                payload = {**payload, "left_out": left_out}
            path = root / partition.path
            rows, usage = made.write(payload, path)
            usage = {**usage, "seconds": 1.0, "cpu_seconds": 1.0}
            yield finish_part(root, path, rows, usage, left_out), partition.units


@pytest.fixture
def run_with(small_job, tmp_path):
    def go(workers, **sections):
        values = {**small_job, "report": {}, **sections}
        return run(parse_config(values), run_dir=tmp_path / "run", executor=Crashing(workers))

    return go


@pytest.mark.parametrize("quotas", [None, {"column": "topic", "most": 4}])
def test_a_row_that_crashes_the_encoder(run_with, small_job, quotas):
    selection = {"budget": 30, **({"quotas": quotas} if quotas else {})}
    directory = run_with({"EmbedWorker": BAD}, selection=selection)
    embeddings, selected = directory.artifact("2-embeddings"), directory.artifact("7-selection")
    part = embeddings.parts("candidates")[0]
    vectors = np.load(embeddings.directory / part.path)
    assert part.left_out == [BAD] and not vectors[BAD].any()
    assert np.linalg.norm(np.delete(vectors, BAD, 0), axis=1) == pytest.approx(1, abs=1e-5)
    (row,) = pq.read_table(embeddings.path("quarantine")).to_pylist()
    bad = row["id"]
    assert (row["side"], row["reason"]) == ("candidates", f"embed: {CRASHED}")
    assert embeddings.counts["crashing"] == 1 and selected.counts["crashing_rows"] == [BAD]
    ids = pq.read_table(selected.path("subset"))["id"].to_pylist()
    assert len(ids) == 30 and bad not in ids
    why = explain(directory.artifact("1-corpus"), selected, bad)["why"]
    assert any("crashes the encoder" in line for line in why)
    report = directory.artifact("8-report")
    assert report.counts["candidates"] == 299
    assert f"embed: {CRASHED}" in (directory.path / "8-report/report.html").read_text()


@pytest.mark.parametrize("teacher", ["delift", "delift_se"])
def test_pairs_and_points_that_crash_the_teacher(run_with, small_job, teacher):
    settings = {"name": teacher, "model": small_job["teacher"]["model"], "max_tokens": 512}
    if teacher == "delift_se":
        settings["model"] = {**small_job["embedding"]["model"], "dtype": "float32"}
    directory = run_with({"PairWorker": 1, "FeatureWorker": 0}, teacher=settings)
    score = directory.artifact("4-teacher")
    labels = pq.read_table(score.path("labels")).to_pylist()
    problems = [label["problem"] for label in labels if label["problem"]]
    assert CRASHED in problems and score.counts["unscorable"] == len(problems) < len(labels) / 2
    assert all(np.isnan(label["score"]) == bool(label["problem"]) for label in labels)
    assert directory.artifact("8-report").counts["unscorable"] == len(problems)
    left_out = [
        read_json(path)["left_out"] for path in directory.path.glob("4-teacher/store/*/*/*.json")
    ]
    # whose score is a similarity of vectors is asked about no pair
    assert [0] in left_out and ([1] in left_out) == (teacher == "delift")
