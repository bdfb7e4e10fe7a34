"""How the teacher's work is cut, which changes no label."""

import pytest

from engine.artifacts.files import read_json
from engine.config import parse_config
from engine.stages.pipeline import run
from engine.teachers import missing


@pytest.fixture
def asked(small_job, tmp_path, monkeypatch):
    settings = {**small_job, "teacher": {"name": "random"}}

    def ask(name):
        folder = run(parse_config(settings), run_dir=tmp_path / name, until="score").path
        stage = folder / "4-teacher"
        rows = [read_json(record)["rows"] for record in stage.glob("store/*/pairs/*.parquet.json")]
        return (stage / "labels.parquet").read_bytes(), sorted(rows)

    return ask


def test_many_small_parts_or_few_give_the_same_labels(asked, monkeypatch):
    labels, rows = asked("few")
    monkeypatch.setattr(missing, "SMALLEST_PART", 1)
    same, more = asked("many")
    assert same == labels and sum(more) == sum(rows)
    assert len(rows) < len(more) <= missing.PARTS_AIMED_AT


def test_a_part_is_worth_its_bookkeeping(asked):
    _, rows = asked("few")
    assert len(rows) > 1 and rows[1] >= missing.SMALLEST_PART  # all but the last one
