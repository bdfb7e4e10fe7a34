"""Files that failed, from public reports of tools like this one: each as its manifest says.

../shared/data_reports/MANIFEST.md has a line for each of them.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.artifacts.rows import TableParts
from engine.config import parse_config
from engine.errors import InputError
from engine.selection.subset_files import write_subset
from engine.stages.pipeline import run

REPORTS = Path(__file__).resolve().parents[2].parent / "shared" / "data_reports"
pytestmark = pytest.mark.skipif(not REPORTS.is_dir(), reason=f"{REPORTS} is absent")

# Elsewhere: tests/stages (runs, leakage, ends), tests/exports.
ELSEWHERE = {"target_part.jsonl", "export_sg.jsonl", "export_chats.jsonl", "base.jsonl"}
ELSEWHERE |= {"base60.jsonl", "MANIFEST.md"}


class Ingested:
    """What a corpus becomes, without Ray."""

    def __init__(self, path: Path, directory: Path, **corpus: Any) -> None:
        config = parse_config({"execution": "local", "corpus": {"path": str(path), **corpus}})
        self.artifact = run(config, run_dir=directory, until="ingest").artifact("1-corpus")
        parts = TableParts(self.artifact, "candidates")
        self.table: pa.Table = parts.read_part(0)
        self.rows: list[dict[str, Any]] = self.table.to_pylist()
        self.quarantine = TableParts(self.artifact, "quarantine").read_part(0).to_pylist()

    @property
    def reasons(self) -> Counter[str]:
        return Counter(row["reason"] for row in self.quarantine)

    def subset(self, folder: Path) -> tuple[pa.Table, list[dict[str, Any]]]:
        """All of its rows as a subset, in parquet and in JSON lines."""
        numbers = range(len(self.rows))
        ranking = pa.table(
            {
                "rank": [i + 1 for i in numbers],
                "gain": [float(i) for i in numbers],
                "mean_influence": [0.5 for _ in numbers],
            }
        )
        write_subset(self.table, ranking, folder, "subset")
        lines = (folder / "subset.jsonl").read_text(encoding="utf-8").splitlines()
        return pq.read_table(folder / "subset.parquet"), [json.loads(line) for line in lines]


@pytest.fixture
def ingest(tmp_path):
    def ingest(name, **corpus):
        return Ingested(REPORTS / name, tmp_path / f"run-{len(list(tmp_path.iterdir()))}", **corpus)

    return ingest


def given(name: str) -> list[dict[str, Any]]:
    lines = (REPORTS / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_every_file_has_a_test():
    here = Path(__file__).read_text(encoding="utf-8")
    for path in REPORTS.iterdir():
        assert path.name in ELSEWHERE or f'"{path.name}"' in here


def test_packed_siblings_are_read(ingest):
    found = ingest("unread_siblings_zst")
    assert len(found.rows) == 24 and not found.quarantine
    assert {Path(row["file"]).name for row in found.rows} == {"part-0.jsonl", "part-1.jsonl.zst"}


@pytest.mark.parametrize("name", ["zst_named.jsonl", "rows.jsonl.bz2"])
def test_packed_files_are_known_by_their_first_bytes(ingest, name):
    assert len(ingest(name).rows) == 24


def test_ids_that_pandas_made_floats(ingest):
    rows = ingest("floatids.parquet").rows
    without = [row for row in rows if row["id"] == row["key"]]
    assert len(rows) == 24 and len(without) == 1
    assert {row["id"] for row in rows if row not in without} <= {str(i) for i in range(24)}


def test_rows_that_differ_in_what_came_before_their_last_turn(ingest):
    found = ingest("samelast.jsonl")
    assert len(found.rows) == len(given("samelast.jsonl")) and not found.quarantine
    assert found.rows[0]["instruction"].startswith("System: You are assistant number 0.\n\nUser: ")
    assert found.rows[0]["instruction"].endswith("Assistant: Shall I go on?\n\nUser: Yes, please.")


@pytest.mark.parametrize("name", ["agent.jsonl", "parts.jsonl", "trl_conv.jsonl"])
def test_conversations_of_which_no_row_is_lost(ingest, name):
    found = ingest(name)
    assert len(found.rows) == 24 and not found.quarantine
    assert all(row["output"].startswith("About ") for row in found.rows)
    assert found.rows[2]["instruction"].endswith(
        "Explain how bread dough works in two sentences." if name != "agent.jsonl" else "Tool: ok"
    )


def test_chats_as_openai_has_them(ingest, capsys):
    found = ingest("chats_openai.jsonl")
    assert {row["id"]: row["reason"] for row in found.quarantine} == {
        "empty_asst_last": "output is blank",
        "emptylist": "messages has no assistant turn",
        "nullmsgs": "messages is null",
    }
    rows = {row["id"]: (row["instruction"], row["output"]) for row in found.rows}
    assert len(rows) == 24
    assert rows["sysonly"] == ("System: You are a poet.", "The rain is a drum.")
    assert rows["consecutive_asst"] == ("Tell a story.", "Once there was a frog.\n\nThe end.")
    assert rows["model_role"] == ("Say no in German.", "Nein.")
    assert rows["caps"] == ("Say no in Dutch.", "Nee.")
    assert rows["developer"] == ("System: Answer in French.\n\nUser: Say yes.", "Oui.")
    assert rows["parts_img"] == ("<image>What is shown?", "A cat.")
    assert rows["strmsgs"] == ("Name a metal.", "Iron.")
    assert rows["only_think"][1].startswith("<think>\nBy definition")
    assert rows["tool_last"][1].startswith('<tool_call>\n{"name": "weather"')
    assert found.artifact.counts["candidates_media"] == {"image": 1}
    said = capsys.readouterr().err
    assert "3 of 27 rows are bad" in said and "1 of them: messages is null" in said
    assert "1 image are not read" in said


def test_columns_named_as_ours_come_back_under_names_that_are_free(ingest, tmp_path):
    table, lines = ingest("collide2.jsonl").subset(tmp_path)
    assert len(set(table.column_names)) == len(table.column_names)
    first, was = lines[0], given("collide2.jsonl")[0]
    for name in ("rank", "gain", "mean_influence"):
        assert first[f"{name}_of_input_2"] == was[name]
        assert first[f"{name}_of_input"] == was[f"{name}_of_input"]
    assert table.to_pylist()[0] == first
    for number in (1, 2, 3):  # one's own subset, selected from again and again
        folder = tmp_path / str(number)
        again = Ingested(tmp_path / "subset.parquet", folder / "run")
        table, lines = again.subset(tmp_path)
        assert len(set(table.column_names)) == len(table.column_names)
    assert lines[0]["rank_of_input_2"] == was["rank"] and "rank_of_input_5" in lines[0]


def test_every_row_has_its_own_json(ingest, tmp_path):
    table, lines = ingest("args.jsonl").subset(tmp_path)
    ours = {"instruction", "input", "output", "rank", "gain", "mean_influence"}
    for row, was in zip(lines, given("args.jsonl"), strict=True):
        mine = {name: value for name, value in row.items() if name not in ours}
        assert json.dumps(mine, sort_keys=True) == json.dumps(was, sort_keys=True)
    assert table.schema.field("big").type == pa.uint64()
    assert pa.types.is_list(table.schema.field("messages").type)
    again = Ingested(tmp_path / "subset.parquet", tmp_path / "again")
    for row, was in zip(again.rows, given("args.jsonl"), strict=True):
        back = json.loads(row["extra"])
        assert back["messages"] == was["messages"] and back["meta"] == was["meta"]


def test_types_come_back(ingest, tmp_path):
    table, _ = ingest("types.parquet").subset(tmp_path)
    was = pq.read_table(REPORTS / "types.parquet")
    for name in set(was.column_names) - {"id", "instruction", "output"}:
        assert table.schema.field(name).type == was.schema.field(name).type
        assert str(table[name].to_pylist()) == str(was[name].to_pylist())  # nan is no nan


def test_joined_files(ingest):
    found = ingest("concat.jsonl")
    assert len(found.rows) == 18 and len(found.quarantine) == 5
    raw = (REPORTS / "concat.jsonl").read_text(encoding="utf-8").split("\n")
    for row in found.quarantine:
        assert row["row"] == raw[row["line"] - 1]


def test_tables_with_other_separators_and_blanks_in_names(ingest):
    with pytest.raises(InputError, match="looks separated by ;: separate the columns by commas"):
        ingest("semicolon.csv")
    with pytest.raises(InputError, match=r"found 'instruction ', output; .*'instruction '\}"):
        ingest("spacecol.jsonl")
    assert len(ingest("spacecol.jsonl", columns={"instruction": "instruction "}).rows) == 24


def test_a_filter_on_text(ingest):
    assert len(ingest("where.csv", where={"year": 1999}).rows) == 12
    assert len(ingest("where.csv", where={"year": "1999"}).rows) == 12


def test_ids_are_told_as_given(ingest):
    found = ingest("ids.jsonl", max_bad_share=1)
    bad = {row["id"] for row in found.quarantine if "must be text" in row["reason"]}
    assert bad == {"true"}
    repeated = [row["reason"] for row in found.quarantine if "occurs before" in row["reason"]]
    assert (
        len(repeated) + len(found.rows) + sum("must" in r for r in found.reasons.elements()) == 24
    )
