"""Grading a cell: what the judge is shown, and what a row without an answer gets."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.artifacts.parts import finish_part
from engine.artifacts.run_directory import Artifact
from engine.config import EvaluationConfig, ModelConfig
from engine.evaluation import grade
from engine.evaluation.judge import Grades
from engine.example import content_key

ROWS = [("Say hello.", "in French", "bonjour"), ("Count.", "", "one two"), ("Sing.", "", "la la")]


class Letters:
    def __init__(self, config):
        pass

    def encode(self, texts, batch_size):
        self.vectors = np.ones((len(texts), 2), np.float32) / 2**0.5
        return self


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """A worker whose judge remembers what it is shown."""
    lines = [
        dict(zip(("instruction", "input", "output"), texts, strict=True))
        | {"id": f"r{i}", "key": content_key(*texts)}
        for i, texts in enumerate(ROWS)
    ]
    pq.write_table(pa.Table.from_pylist(lines), tmp_path / "test.parquet")
    part = vars(finish_part(tmp_path, tmp_path / "test.parquet", len(ROWS)))
    test = Artifact(tmp_path, {"parts": {"candidates": [part]}})
    shown = []

    def judged(model, rows, *rest):
        shown.extend(rows)
        return Grades(np.array([4.0, np.nan][: len(rows)], np.float32), 1)

    monkeypatch.setattr(grade, "Encoder", Letters)
    monkeypatch.setattr(grade, "GeneratingModel", lambda config: None)
    monkeypatch.setattr(grade, "grade", judged)
    values = {"test": {"path": "unused"}, "judge": {"model": {"path": "unused"}}}
    settings = EvaluationConfig.model_validate(values)
    made = grade.GradeWorker(settings, ModelConfig(path="unused"), test)
    made.shown = shown
    return made


def test_the_judge_sees_the_bare_prompt_and_rows_without_answers_are_left_out(worker, tmp_path):
    answers = pa.table(
        {
            "id": ["r0", "r1", "r2"],
            "answer": ["bonjour", None, "tra la"],
            "log_likelihood": pa.array([-1.0, np.nan, -2.0], pa.float32()),
            "shown": pa.array([5, 0, 5], pa.int32()),  # examples were in the prompt
            "problem": [None, "does not fit", None],
        }
    )
    pq.write_table(answers, tmp_path / "answers.parquet")
    path = tmp_path / "grades.parquet"
    rows, usage = worker.write({"answers": [str(tmp_path / "answers.parquet")]}, path)
    assert [(row.prompt, row.reference, row.answer) for row in worker.shown] == [
        ("Say hello. in French", "bonjour", "bonjour"),
        ("Sing.", "la la", "tra la"),
    ]
    assert rows == 3 and usage == {"judged": 2.0, "unparsed": 1.0}
    found = json.loads(pq.read_table(path).to_pandas().to_json(orient="columns"))
    assert found["rouge1"] == {"0": 100.0, "1": None, "2": 50.0}
    assert found["judge"] == {"0": 4.0, "1": None, "2": None}
    assert found["log_likelihood"] == {"0": -1.0, "1": None, "2": -2.0}
