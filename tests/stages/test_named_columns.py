"""A column that settings name is looked for right after the corpus is read."""

import json
from pathlib import Path

import pytest

from engine.config import parse_config
from engine.errors import SettingsError
from engine.stages.pipeline import run


@pytest.fixture
def ingested(small_job, tmp_path, monkeypatch):
    """Run with some settings changed; the names of the folders that are left."""

    def ingest(until="ingest", **sections):
        changed = {name: {**small_job.get(name, {}), **more} for name, more in sections.items()}
        run(parse_config({**small_job, **changed}), run_dir=tmp_path / "run", until=until)

    return ingest


@pytest.mark.parametrize(
    ("section", "values", "setting"),
    [
        ("report", {"known_bad_column": "bda"}, "report.known_bad_column"),
        ("report", {"composition_column": "bda"}, "report.composition_column"),
        ("influence", {"subtask_column": "bda"}, "influence.subtask_column"),
        ("selection", {"quotas": {"column": "bda", "most": 9}}, "selection.quotas.column"),
    ],
)
def test_before_anything_is_paid_for(ingested, tmp_path, section, values, setting):
    side = "targets" if section == "influence" else "candidates"
    message = f"{setting}: the {side} have no column 'bda'; they have: bad, topic; did you mean bad"
    with pytest.raises(SettingsError, match=message):
        ingested(until=None, **{section: values})
    assert {path.name for path in (tmp_path / "run").glob("[1-8]-*")} == {"1-corpus"}
    ingested(report={"known_bad_column": "bad"})  # the corpus is not read again, and goes on


def test_a_column_that_few_rows_have(ingested, small_job, tmp_path):
    lines = Path(small_job["corpus"]["path"]).read_text(encoding="utf-8").splitlines()
    last = {**json.loads(lines[-1]), "rare": 1}
    corpus = tmp_path / "rare.jsonl"
    corpus.write_text("\n".join([*lines[:-1], json.dumps(last)]) + "\n", encoding="utf-8")
    ingested(corpus={"path": str(corpus)}, report={"known_bad_column": "rare"})
