"""Loss is loud: what is refused, passed over or not read is said, counted, or ends the job."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from engine.artifacts.rows import TableParts
from engine.artifacts.run_directory import Artifact
from engine.config import parse_config
from engine.errors import InputError, RunDirectoryError, SettingsError, StorageError
from engine.stages import pipeline
from engine.stages.pipeline import run


def ingest(
    path: Path | list[Path], directory: Path, settings: dict[str, Any] | None = None, **corpus
):
    where = [str(p) for p in path] if isinstance(path, list) else str(path)
    config = {"execution": "local", "corpus": {"path": where, **corpus}, **(settings or {})}
    return run(parse_config(config), run_dir=directory, until="ingest").artifact("1-corpus")


def rows_of(artifact: Artifact) -> list[dict[str, Any]]:
    return TableParts(artifact, "candidates").read_part(0).to_pylist()


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def good(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"instruction": f"q{i}", "output": "a", **more} for i in range(count)]


BAD = [{"instruction": "", "output": "a"}, {"instruction": "q", "output": 1}]


def test_bad_rows_are_said_with_the_commonest_reasons(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", [*good(6), *BAD, *BAD[:1]])
    artifact = ingest(path, tmp_path / "run")
    assert artifact.counts["candidates_quarantined"] == 3
    printed = capsys.readouterr().err
    assert (
        "3 of 9 rows are bad and lie in the quarantine: 2 of them: instruction is blank" in printed
    )
    assert "1 of them: output must be text, got a number" in printed


def test_a_corpus_that_is_mostly_bad_ends_the_job(tmp_path):
    path = write(tmp_path / "a.jsonl", [*good(1), *BAD])
    with pytest.raises(InputError, match=r"2 of 3 rows .* more than .* max_bad_share 0\.5"):
        ingest(path, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert len(rows_of(ingest(path, tmp_path / "run", max_bad_share=0.7))) == 1


def test_files_that_are_passed_over_are_named(tmp_path, capsys):
    folder = tmp_path / "data"
    (folder / "inner").mkdir(parents=True)
    write(folder / "a.jsonl", good(2))
    for name in ("b.txt", "inner/c.tar", "README.md", "_SUCCESS", "LICENSE"):
        (folder / name).write_text("x")
    artifact = ingest(folder, tmp_path / "run")
    assert artifact.counts["candidates_files_unread"] == 2
    printed = capsys.readouterr().err
    assert f"2 files were not read: {folder}/b.txt, {folder}/inner/c.tar" in printed


def test_names_that_were_taken_for_ours_are_said(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", [{"question": "q", "answer": "a"}] * 2)
    ingest(path, tmp_path / "run")
    expected = (
        "missing column instruction and output in 2 rows; question and answer was read in its "
        "place (columns: {instruction: question, output: answer} says so for good)"
    )
    assert expected in capsys.readouterr().err


def test_a_filter_that_no_row_passes_says_what_the_column_holds(tmp_path):
    path = write(tmp_path / "a.jsonl", good(2, year="1999"))
    with pytest.raises(InputError, match='2 were read; year holds text: write "1999"'):
        ingest(path, tmp_path / "run", where={"year": 1999})


def test_equal_ids_are_said_and_may_be_kept(tmp_path, capsys):
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path in paths:
        rows = [{"id": i, "instruction": f"{path.stem}{i}", "output": "a"} for i in range(3)]
        write(path, [*rows, {"id": 3, "instruction": "same", "output": "a"}])
    assert len(rows_of(ingest(paths, tmp_path / "run"))) == 4
    assert "4 rows have an id that came before" in capsys.readouterr().err
    rows = rows_of(ingest(paths, tmp_path / "kept", equal_ids="rename"))
    assert len(rows) == len({row["id"] for row in rows}) == 7
    assert [row["id"] for row in rows[4:]] == [f"{i}@{rows[4 + i]['key'][:8]}" for i in range(3)]
    assert "3 rows have the id of another row" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (500, "selection.budget asks for 500 rows, the corpus has 6 usable ones"),
        (True, "got a boolean"),
        ("30%", "write 0.3"),
    ],
)
def test_a_budget_that_cannot_be_is_refused_before_anything_is_paid(tmp_path, budget, message):
    path = write(tmp_path / "a.jsonl", good(6))
    with pytest.raises(SettingsError, match=message):
        ingest(path, tmp_path / "run", {"selection": {"budget": budget}})


# --- files of every kind -----------------------------------------------------------------------


TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
TABLE = pa.table(
    {
        "id": pa.array([0.0, 1.0, None]),
        "instruction": pa.array(["q0", "q1", "q2"], pa.large_string()),
        "output": pa.array(["a", "b", "a"]).dictionary_encode(),
        "view": pa.array(["x", None, "y"], pa.string_view()),
        "turns": pa.array([TURNS, None, TURNS]),
    }
)


@pytest.mark.parametrize("name", ["a.arrow", "b.feather", "c.ipc", "d [1] é.parquet"])
@pytest.mark.parametrize("as_stream", [False, True])
def test_arrow_files_and_parquet_are_the_same_rows(tmp_path, name, as_stream):
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(TABLE, path)
    elif as_stream:
        with pa.ipc.new_stream(path, TABLE.schema) as writer:
            writer.write_table(TABLE, max_chunksize=1)
    else:
        pyarrow.feather.write_feather(TABLE, path, chunksize=1)
    artifact = ingest(path, tmp_path / "run")
    rows = rows_of(artifact)
    assert [row["instruction"] for row in rows] == ["q0", "q1", "q2"]
    assert [row["id"] for row in rows[:2]] == ["0", "1"] and rows[2]["id"] == rows[2]["key"]
    assert [row["line"] for row in rows] == [1, 2, 3]
    assert json.loads(rows[0]["extra"]) == {"view": "x", "turns": TURNS}


def test_shards_whose_columns_drift(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    one = {"instruction": ["q0"], "output": ["a"], "score": pa.array([1], pa.int32()), "only": [1]}
    two = {"output": pa.array(["a"], pa.large_string()), "instruction": ["q1"], "score": [0.5]}
    three = {"instruction": ["q2"], "output": ["a"], "score": ["high"], "id": [7]}
    for i, columns in enumerate((one, two, three)):
        pq.write_table(pa.table(columns), folder / f"{i}.parquet")
    rows = rows_of(ingest(folder, tmp_path / "run"))
    extras = [json.loads(row["extra"]) for row in rows]
    assert extras == [{"score": 1, "only": 1}, {"score": 0.5}, {"score": "high"}]
    assert rows[2]["id"] == "7"


def test_saved_datasets_and_their_splits(tmp_path):
    import datasets

    def rows(mark):
        return [{"instruction": f"{mark}{i}", "output": "a"} for i in range(3)]

    splits = {"train": rows("q"), "test": rows("t")}
    whole = datasets.DatasetDict({n: datasets.Dataset.from_list(r) for n, r in splits.items()})
    whole.save_to_disk(str(tmp_path / "data" / "saved"))
    write(tmp_path / "data" / "more.jsonl", [{"instruction": "m", "output": "a"}])
    for path, found in ((tmp_path / "data" / "saved", 3), (tmp_path / "data", 4)):
        texts = [row["instruction"] for row in rows_of(ingest(path, tmp_path / f"run-{found}"))]
        assert len(texts) == found and not [text for text in texts if text.startswith("t")]


def test_structs_that_arrow_filled_with_nulls_are_the_turns_that_they_were(tmp_path):
    call = {"function": {"name": "w", "arguments": {"city": "Graz"}}}
    other = {"function": {"name": "w", "arguments": {"lat": 1.5}}}
    rows = [
        {"messages": [TURNS[0], {"role": "assistant", "content": None, "tool_calls": [c]}]}
        for c in (call, other)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    filled = pq.read_table(tmp_path / "a.parquet")["messages"][0].as_py()[1]
    assert filled["tool_calls"][0]["function"]["arguments"] == {"city": "Graz", "lat": None}
    found = rows_of(ingest(tmp_path / "a.parquet", tmp_path / "run"))
    assert [json.loads(row["extra"]) for row in found] == rows
    assert '"arguments": {"lat": 1.5}' in found[1]["output"]


# --- run directories that cannot be one --------------------------------------------------------


@pytest.mark.parametrize("below", ["", "run"])
def test_a_file_is_no_run_directory(tmp_path, below):
    path = write(tmp_path / "a.jsonl", good(3))
    before = path.read_bytes()
    with pytest.raises(RunDirectoryError, match=r"cannot be a run directory: a file is in its"):
        ingest(path, path / below if below else path)
    assert path.read_bytes() == before


def test_a_disk_that_cannot_be_written_is_told_in_a_sentence(tmp_path, monkeypatch):
    path = write(tmp_path / "a.jsonl", good(3))

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(pipeline, "write_json", refuse)
    with pytest.raises(StorageError, match=r"cannot write .*run: it can only be read"):
        ingest(path, tmp_path / "run")
