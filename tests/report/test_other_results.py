"""Results files on the page: read as tables, refused when they are something else."""

import json

import pytest

from engine.errors import InputError, SettingsError
from engine.report.other_results import MAX_ROWS, read_results
from engine.stages.report import identity, write_report
from tests.report.synthetic_run import settings, write_run


def write(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def test_rows_become_a_table_and_nested_values_columns(tmp_path):
    rows = [{"arm": "Random", "rouge1": {"mean": 12.345}, "seeds": 3}, {"arm": "Full", "ok": True}]
    about = {"date": "2026-11-25", "cpu": "some CPU", "commit": "abc"}
    path = write(tmp_path / "a.json", {"name": "quality", "provenance": about, "rows": rows})
    (table,) = read_results([path])
    assert table.name == "quality" and table.origin == "a.json, 2026-11-25, some CPU"
    assert table.columns == ["arm", "rouge1 mean", "seeds", "ok"]
    assert table.rows == [["Random", "12.3", "3", ""], ["Full", "", "", "yes"]]


def test_rows_of_data_sets_are_tables_of_their_own(tmp_path):
    rows = [{"dataset": name, "rows": [{"arm": "Full", "n": 1}]} for name in ("one", "two")]
    tables = read_results([write(tmp_path / "a.json", {"name": "quality", "rows": rows})])
    assert [table.name for table in tables] == ["quality, one", "quality, two"]


def test_a_long_table_is_cut_and_says_so(tmp_path):
    path = write(tmp_path / "a.json", {"name": "x", "rows": [{"n": i} for i in range(250)]})
    (table,) = read_results([path])
    assert len(table.rows) == MAX_ROWS and table.left_out == 50


def test_what_is_no_results_file_is_refused_at_the_start(tmp_path):
    with pytest.raises(SettingsError, match="no such file"):
        identity(settings(results=[str(tmp_path / "none.json")]))
    for content in ([], {"rows": []}, {"name": "x", "rows": 3}, {"name": "x", "rows": ["a"]}):
        path = write(tmp_path / "bad.json", content)
        with pytest.raises(InputError, match="not a results file"):
            identity(settings(results=[path]))
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="not a results file"):
        identity(settings(results=[str(tmp_path / "bad.json")]))


def test_they_are_on_the_page_and_escaped(tmp_path):
    rows = [{"arm": "<script>alert(1)</script>", "rouge1": 12.0}]
    path = write(tmp_path / "a.json", {"name": "quality & more", "rows": rows})
    artifacts = write_run(tmp_path / "run")
    write_report(settings(results=[path]), artifacts, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "quality &amp; more" in page and "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page and 'href="#results"' in page
