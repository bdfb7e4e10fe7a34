"""The ingest stage on hostile and on good files, as ../shared/hostile/MANIFEST.md states."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.artifacts.rows import TableParts
from engine.config import parse_config
from engine.errors import InputError
from engine.stages.pipeline import run

pytestmark = pytest.mark.usefixtures("ray_local")


def ingest(path, directory, **corpus):
    config = parse_config({"corpus": {"path": str(path), **corpus}})
    artifact = run(config, run_dir=directory, until="ingest").artifact("1-corpus")
    rows = TableParts(artifact, "candidates").read_part(0).to_pylist()
    quarantine = TableParts(artifact, "quarantine").read_part(0).to_pylist()
    return rows, quarantine


# file -> (good rows, lines or ids in quarantine)
ACCEPTED = {
    "ok.parquet": (20, []),
    "ok.jsonl": (20, []),
    "malformed_lines.jsonl": (8, [4, 6, 7, 8, 9, 13]),
    "array.json": (20, []),
    "blank_instruction.jsonl": (4, ["b0", "b1", "b2", "b3", "b4", "b5"]),
    "null_input_ok.jsonl": (20, []),
    "huge_row.jsonl": (6, []),
    "invalid_utf8.jsonl": (4, [3]),
    "bom_crlf.jsonl": (20, []),
    "duplicate_ids.jsonl": (6, [7, 8]),
    "wrong_types.jsonl": (5, ["r0", "r1", "r2", "r4", "r5"]),
    "extra_and_mixed_keys.jsonl": (3, []),
    "messages_ok.jsonl": (5, []),
    "nul_bytes.jsonl": (4, [2]),
    "unicode.jsonl": (8, []),
    "single_row.jsonl": (1, []),
    "missing_columns.parquet": (2, []),  # prompt and completion are read, and said
}
REFUSED = {
    "empty.jsonl": "no rows in .*empty.jsonl",
    "empty.parquet": r"not a parquet file: .*empty.parquet \(0 bytes\)",
    "zero_rows.parquet": "no rows in .*zero_rows.parquet",
    "truncated.parquet": "truncated or corrupt parquet: .*truncated.parquet",
    "not_parquet.parquet": "is not parquet: it starts with .*JSON lines",
    "a_directory.parquet": "a_directory.parquet",
    "missing.jsonl": "No such file: .*missing.jsonl",
}


def test_every_hostile_file_has_an_expectation(hostile):
    found = {path.name for path in hostile.iterdir()} - {"MANIFEST.md"}
    assert found == (ACCEPTED.keys() | REFUSED.keys()) - {"missing.jsonl"}


@pytest.mark.parametrize("name", ACCEPTED)
def test_good_rows_stay_and_bad_rows_are_named(hostile, tmp_path, name):
    num_good, bad = ACCEPTED[name]
    rows, quarantine = ingest(hostile / name, tmp_path / "run", max_bad_share=1)
    assert len(rows) == num_good
    assert len({row["id"] for row in rows}) == num_good
    key = "id" if bad and isinstance(bad[0], str) else "line"
    assert [entry[key] for entry in quarantine] == bad
    assert all(entry["file"].endswith(name) and entry["reason"] for entry in quarantine)


@pytest.mark.parametrize("name", REFUSED)
def test_useless_files_stop_with_one_sentence_and_leave_nothing(hostile, tmp_path, name):
    with pytest.raises(InputError, match=REFUSED[name]) as caught:
        ingest(hostile / name, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_strict_mode_stops_at_the_first_bad_line(hostile, tmp_path):
    with pytest.raises(InputError, match=r"malformed_lines\.jsonl, line 4"):
        ingest(hostile / "malformed_lines.jsonl", tmp_path / "run", on_bad_row="stop")
    with pytest.raises(InputError, match="id 'r0' occurs before"):
        ingest(hostile / "duplicate_ids.jsonl", tmp_path / "run", on_bad_row="stop")
    assert not (tmp_path / "run").exists()


def test_text_comes_back_byte_for_byte(hostile, tmp_path):
    rows, _ = ingest(hostile / "unicode.jsonl", tmp_path / "run")
    given = [
        json.loads(line) for line in (hostile / "unicode.jsonl").read_text("utf-8").splitlines()
    ]
    assert [row["instruction"] for row in rows] == [row["instruction"] for row in given]


def test_null_input_is_no_input(hostile, tmp_path):
    null, _ = ingest(hostile / "null_input_ok.jsonl", tmp_path / "a")
    assert {row["input"] for row in null} == {""}


def test_bom_and_crlf_keep_the_ids(hostile, tmp_path):
    rows, _ = ingest(hostile / "bom_crlf.jsonl", tmp_path / "run")
    assert [row["id"] for row in rows] == [f"r{i}" for i in range(20)]


def test_nul_characters_are_taken_out_and_counted(hostile, tmp_path):
    config = parse_config({"corpus": {"path": str(hostile / "nul_bytes.jsonl")}})
    artifact = run(config, run_dir=tmp_path / "run", until="ingest").artifact("1-corpus")
    assert artifact.counts["candidates_nul_removed"] == 1
    rows = TableParts(artifact, "candidates").read_part(0).to_pylist()
    assert rows[0]["instruction"] == "zero  byte"


def test_a_bad_second_file_leaves_an_earlier_result_alone(hostile, tmp_path):
    ingest(hostile / "ok.jsonl", tmp_path / "run")
    before = sorted(p.name for p in (tmp_path / "run" / "1-corpus").rglob("*"))
    config = parse_config({"corpus": {"path": str(hostile / "truncated.parquet")}})
    with pytest.raises(InputError):
        run(config, run_dir=tmp_path / "run", until="ingest", overwrite=True)
    assert sorted(p.name for p in (tmp_path / "run" / "1-corpus").rglob("*")) == before


def test_parts_do_not_depend_on_how_the_rows_are_filed(tmp_path):
    rows = [
        {"id": f"r{i}", "instruction": f"Do {i}", "input": "", "output": str(i), "tag": i % 3}
        for i in range(700)
    ]
    rows[500]["id"] = "r3"  # another text under an id that came before
    one = tmp_path / "one.jsonl"
    one.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(7):
        table = pa.Table.from_pylist(rows[number * 100 : number * 100 + 100])
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=30)
    texts = []
    for path in (one, folder):
        config = parse_config({"corpus": {"path": str(path)}})
        run_dir = run(config, run_dir=tmp_path / f"run-{path.stem}", until="ingest")
        parts = TableParts(run_dir.artifact("1-corpus"), "candidates")
        table = pa.concat_tables(parts.iter_parts(["id", "key", "instruction", "output", "extra"]))
        texts.append(table.to_pylist())
        quarantine = TableParts(run_dir.artifact("1-corpus"), "quarantine").read_part(0)
        assert "another row" in quarantine["reason"][0].as_py()
    assert texts[0] == texts[1]
    assert len(texts[0]) == 699
    assert json.loads(texts[0][4]["extra"]) == {"tag": 1}


def test_rows_are_filtered_by_where(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(
            json.dumps({"instruction": f"Do {i}", "output": "x", "split": "ab"[i % 2]}) + "\n"
            for i in range(10)
        )
    )
    rows, _ = ingest(path, tmp_path / "run", where={"split": "a"})
    assert [row["instruction"] for row in rows] == [f"Do {i}" for i in range(0, 10, 2)]
    with pytest.raises(InputError, match=r"no rows in .* pass the filter"):
        ingest(path, tmp_path / "run2", where={"split": "c"})
