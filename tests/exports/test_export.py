"""Exports: every format read back as its readers do, equal to the subset, whatever its texts."""

import json
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.artifacts.parts import finish_part
from engine.artifacts.run_directory import RunDirectory
from engine.corpus.schema import DEFAULT_RULES, extra_as_json, parse
from engine.errors import RunDirectoryError, SettingsError
from engine.exports import formats
from engine.exports.export import export
from engine.exports.formats import FORMATS
from engine.selection.subset_files import write_subset
from engine.stages.merge import _merge

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "é 北京 🙂 \u2028\u202e\x1b[31m</script>\n=1+1\t'\"\\ {{x}} %s \x7f\r\nend "

PLAIN = [
    {"id": "p0", "instruction": HOSTILE, "input": "=2+2", "output": f"+{HOSTILE}", "topic": "a"},
    {"id": "p1", "instruction": "Say it.", "input": "", "output": "[{", "topic": None},
]


def said(*turns):
    return [{"role": role, "content": text} for role, text in turns]


SHORT = said(("user", "q0"), ("assistant", "a0"))
LONG = said(("system", f"Be {HOSTILE}"), ("user", "q1"), ("assistant", "a1"), ("user", "q2"))
LONG += said(("assistant", f"a2 {HOSTILE}"))
OPEN = said(("user", "q3"), ("assistant", "a3"), ("user", "and?"))
TWICE = said(("user", "q4"), ("user", "q5"), ("assistant", "a5"))
SHAREGPT = [{"from": "human", "value": "q6"}, {"from": "gpt", "value": "a\0 6"}]
ODD = [{**turn, "weight": 1} for turn in SHORT], [{**turn, "weight": "x"} for turn in LONG]
CHATS = [
    {"id": "c0", "messages": SHORT, "topic": "b"},
    {"id": "c1", "messages": LONG, "topic": "b"},
    {"id": "c2", "messages": OPEN, "topic": "b"},
    {"id": "c3", "messages": TWICE, "topic": "b"},
    {"id": "c4", "conversations": SHAREGPT, "topic": "b"},
]


def make_run(path, rows, folder="7-selection", name="subset", rules=DEFAULT_RULES):
    """A finished selection of these rows, as ingest and select leave them."""
    parsed = [parse(row, {}, rules) for row in rows]
    table = pa.table(
        {
            **{
                column: [getattr(row.example, column) for row in parsed]
                for column in ("id", "instruction", "input", "output")
            },
            "extra": [extra_as_json(row.extra) for row in parsed],
        }
    )
    ranks = list(range(1, len(rows) + 1))
    ranking = pa.table(
        {"rank": ranks, "gain": [0.5] * len(rows), "mean_influence": [0.1] * len(rows)}
    )
    directory = RunDirectory(path)
    stage = directory.reopen(folder)
    write_subset(table, ranking, stage, name)
    commit(directory, folder, name, len(rows))
    return directory


def commit(directory, folder, name, rows):
    stage = directory.stage_dir(folder)
    files = {"subset": f"{name}.parquet", "jsonl": f"{name}.jsonl"}
    parts = {group: [vars(finish_part(stage, stage / file, rows))] for group, file in files.items()}
    directory.commit(folder, {"kind": "x", "fingerprint": "f", "counts": {}, "parts": parts})


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("plain") / "run", PLAIN)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("mixed") / "run", [*PLAIN, *CHATS])


@pytest.fixture
def load(tmp_path):
    def load(form, path):
        return datasets.load_dataset(
            form, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
        ).to_list()

    return load


def rows_of(run, folder="7-selection"):
    return pq.read_table(run.artifact(folder).path("subset")).to_pylist()


# --- what comes back ---------------------------------------------------------------------


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_the_subset_as_it_is(mixed, form, load, tmp_path):
    out = tmp_path / f"x.{form}"
    told = export(mixed.path, form, out)
    assert told["rows"] == 7 and told["out"] == str(out)
    group = {"parquet": "subset", "jsonl": "jsonl"}[form]
    assert out.read_bytes() == mixed.artifact("7-selection").path(group).read_bytes()
    assert load({"jsonl": "json"}.get(form, form), out) == rows_of(mixed)


def test_a_saved_dataset(mixed, tmp_path):
    assert export(mixed.path, "datasets", tmp_path / "data")["rows"] == 7
    assert datasets.load_from_disk(str(tmp_path / "data")).to_list() == rows_of(mixed)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_alpaca(plain, load, tmp_path):
    export(plain.path, "alpaca", tmp_path / "x.json")
    names = ("instruction", "input", "output")
    wanted = [{name: row[name] for name in names} for row in PLAIN]
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == wanted
    assert load("json", tmp_path / "x.json") == wanted


def test_plain_rows_as_messages(plain, load, tmp_path):
    """The prompt is the one that the teacher was shown."""
    export(plain.path, "messages", tmp_path / "x.jsonl")
    assert load("json", tmp_path / "x.jsonl") == [
        {"messages": said(("user", f"{HOSTILE} =2+2"), ("assistant", f"+{HOSTILE}"))},
        {"messages": said(("user", "Say it."), ("assistant", "[{"))},
    ]


def test_chat_rows_come_back_as_the_conversations_that_they_were(mixed, load, tmp_path):
    told = export(mixed.path, "messages", tmp_path / "x.jsonl")
    assert told["rows"] == 7 and told["conversations"] == 5
    back = [row["messages"] for row in load("json", tmp_path / "x.jsonl")]
    assert back[2:6] == [SHORT, LONG, OPEN, TWICE]
    assert back[6] == said(("user", "q6"), ("assistant", "a 6"))  # NULs were taken out


def test_sharegpt_ends_with_an_answer(mixed, load, tmp_path, capsys):
    told = export(mixed.path, "sharegpt", tmp_path / "x.jsonl")
    back = [row["conversations"] for row in load("json", tmp_path / "x.jsonl")]
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    for turns, wanted in zip(back[2:6], [SHORT, LONG, OPEN[:2], TWICE], strict=True):
        assert turns == [{"from": names[t["role"]], "value": t["content"]} for t in wanted]
    assert told["turns_left_out"] == 1 and told["not_alternating"] == 1
    printed = capsys.readouterr().err
    assert "1 turns after a last answer are left out" in printed
    assert "1 conversations do not alternate" in printed


def test_alpaca_says_what_it_cannot_keep(mixed, tmp_path, capsys):
    told = export(mixed.path, "alpaca", tmp_path / "x.json")
    assert told["told_as_text"] == 1 and told["with_history"] == 1 and told["turns_left_out"] == 1
    printed = capsys.readouterr().err
    assert "1 conversations have tools, or do not go from question to answer" in printed
    assert "1 rows have a system prompt or earlier turns" in printed
    rows = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert rows[3] == {
        "instruction": "q2",
        "input": "",
        "output": f"a2 {HOSTILE}",
        "system": f"Be {HOSTILE}",
        "history": [["q1", "a1"]],
    }


def test_turns_that_were_only_carried_along_are_no_conversation(tmp_path, load):
    """Of an instruction row with a column of turns that says something else."""
    run = make_run(tmp_path / "run", [{**PLAIN[1], "messages": SHORT}])
    assert export(run.path, "messages", tmp_path / "x.jsonl")["conversations"] == 0
    (row,) = load("json", tmp_path / "x.jsonl")
    assert row["messages"][0]["content"] == "Say it."


def test_turns_of_no_common_type_are_read_back_from_their_json(tmp_path, load):
    run = make_run(tmp_path / "run", [{"id": str(i), "messages": m} for i, m in enumerate(ODD)])
    rows = rows_of(run)  # lists stay lists; the weights are JSON
    assert [turn["weight"] for turn in rows[0]["messages"]] == ["1", "1"]
    assert [turn["weight"] for turn in rows[1]["messages"]] == ['"x"'] * len(LONG)
    export(run.path, "messages", tmp_path / "x.jsonl")
    assert [row["messages"] for row in load("json", tmp_path / "x.jsonl")] == list(ODD)


def test_a_chat_row_with_an_empty_instruction_column_keeps_its_texts(tmp_path, load):
    """A file of both kinds has null there; the subset had two columns of that name."""
    rows = [{**CHATS[0], "instruction": None, "output": None}, {**PLAIN[1], "messages": None}]
    run = make_run(tmp_path / "run", rows)
    names = pq.read_schema(run.artifact("7-selection").path("subset")).names
    assert len(names) == len(set(names)) and "instruction_of_input" not in names
    export(run.path, "jsonl", tmp_path / "x.jsonl")
    assert [row["instruction"] for row in load("json", tmp_path / "x.jsonl")] == ["q0", "Say it."]


@pytest.mark.parametrize("added", [[LONG], ODD], ids=["of the same type", "of no common type"])
def test_of_an_addition_the_merged_list(added, tmp_path, load):
    old = make_run(tmp_path / "run", [*PLAIN, CHATS[0]])
    rows = [{"id": f"n{i}", "messages": turns} for i, turns in enumerate(added)]
    new = make_run(tmp_path / "run" / "additions" / "b-1", rows)
    stage = new.reopen("8-merged")
    files = [run.artifact("7-selection").path("subset") for run in (old, new)]
    commit(new, "8-merged", "merged", _merge(*files, stage)["merged"])
    told = export(new.path, "messages", tmp_path / "x.jsonl")
    assert told["rows"] == 3 + len(added) and told["conversations"] == 1 + len(added)
    back = [row["messages"] for row in load("json", tmp_path / "x.jsonl")]
    assert back[2:] == [SHORT, *added]
    assert export(old.path, "messages", tmp_path / "y.jsonl")["rows"] == 3


# --- where it goes ---------------------------------------------------------------------


def content(path):
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return [file.read_bytes() for file in files]


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_bytes_again_and_another_file_only_with_overwrite(mixed, plain, form, tmp_path):
    out = tmp_path / "here" / "x"
    export(mixed.path, form, out)
    first = content(out)
    export(mixed.path, form, out)
    export(mixed.path, form, tmp_path / "there" / "x")
    assert content(out) == content(tmp_path / "there" / "x") == first
    with pytest.raises(SettingsError, match="x exists and holds something else: add --overwrite"):
        export(plain.path, form, out)
    assert content(out) == first
    export(plain.path, form, out, overwrite=True)
    assert content(out) != first
    assert not [path for path in out.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("form", ["messages", "alpaca", "sharegpt", "datasets"])
def test_rows_by_ones_and_all_at_once_give_the_same_bytes(mixed, form, tmp_path, monkeypatch):
    export(mixed.path, form, tmp_path / "a" / "x")
    monkeypatch.setattr(formats, "_BATCH_ROWS", 1)
    export(mixed.path, form, tmp_path / "b" / "x")
    assert content(tmp_path / "a" / "x") == content(tmp_path / "b" / "x")


def test_places_that_will_not_do(plain, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")

    def refused(form, out, sentence):
        for overwrite in (False, True):
            with pytest.raises(SettingsError, match=sentence):
                export(plain.path, form, out, overwrite=overwrite)

    refused("mesages", tmp_path / "x", "known: messages, .*; did you mean messages")
    refused("jsonl", tmp_path / "folder", "is a folder: name a file in it")
    refused("datasets", tmp_path / "file", "is a file: a dataset is a folder")
    refused("jsonl", tmp_path / "file" / "x", "file is a file, not a folder")
    refused("datasets", tmp_path / "folder", "holds other files than a saved dataset's")
    refused("jsonl", plain.path / "7-selection" / "subset.jsonl", "lies in the run")
    refused("datasets", plain.path, "lies in the run")
    refused("datasets", plain.path / "exports", "lies in the run")
    assert (tmp_path / "file").read_text() == (tmp_path / "folder/mine.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    with pytest.raises(RunDirectoryError, match="has no finished selection"):
        export(tmp_path, "jsonl", tmp_path / "x")


def test_llama_factory_is_told_of_the_file_and_its_own_list_is_left_alone(plain, tmp_path, capsys):
    told = export(plain.path, "sharegpt", tmp_path / "mine.jsonl")
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert told["dataset_info"] == str(tmp_path / "dataset_info.json")
    assert info["mine"]["file_name"] == "mine.jsonl" and info["mine"]["formatting"] == "sharegpt"
    again = export(plain.path, "sharegpt", tmp_path / "mine.jsonl")
    assert again == told
    before = (tmp_path / "dataset_info.json").read_bytes()
    capsys.readouterr()
    assert "dataset_info" not in export(plain.path, "alpaca", tmp_path / "other.json")
    assert "add this to" in capsys.readouterr().err
    assert (tmp_path / "dataset_info.json").read_bytes() == before


def test_a_run_and_a_file_in_object_storage(plain, mixed, tmp_path, monkeypatch, load):
    import fsspec

    monkeypatch.setenv("NN_CIFT_CACHE", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.put(str(plain.path), "/bucket/run", recursive=True)
    told = export("memory://bucket/run", "messages", "memory://bucket/out/x.jsonl")
    assert told["out"] == "memory://bucket/out/x.jsonl"
    export(plain.path, "messages", tmp_path / "x.jsonl")
    assert memory.cat("/bucket/out/x.jsonl") == (tmp_path / "x.jsonl").read_bytes()
    with pytest.raises(SettingsError, match=r"^memory://bucket/out/x"):
        export(mixed.path, "messages", "memory://bucket/out/x.jsonl")
    export("memory://bucket/run", "datasets", "memory://bucket/out/data")
    memory.get("/bucket/out/data", str(tmp_path / "data"), recursive=True)
    assert datasets.load_from_disk(str(tmp_path / "data")).to_list() == rows_of(plain)


def test_the_job(plain, tmp_path):
    command = [sys.executable, str(ROOT / "jobs/export.py"), "--run-dir", str(plain.path)]

    def start(*arguments):
        words = [*command, *map(str, arguments)]
        return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=120)

    done = start("--format", "messages", "--out", tmp_path / "sft" / "x.jsonl")
    assert done.returncode == 0 and json.loads(done.stdout)["rows"] == 2
    assert f"trl sft --model_name_or_path MODEL --dataset_name {tmp_path}/sft" in done.stderr
    done = start("--format", "alpacca", "--out", tmp_path / "x.jsonl")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "did you mean alpaca?" in done.stderr
    done = start("--format", "alpaca", "--out", tmp_path / "x.json", "--quiet")
    assert done.returncode == 0 and not done.stderr
    done = start("--format", "alpaca", "--out", tmp_path / "x.json", "--selection.budget", "3")
    assert done.returncode == 2 and "takes no settings" in done.stderr


# --- trainers' own code, where it is installed ----------------------------------------


def test_trl_takes_the_rows_as_a_conversation(mixed, tmp_path, load):
    trl = pytest.importorskip("trl")
    export(mixed.path, "messages", tmp_path / "x.jsonl")
    for row in load("json", tmp_path / "x.jsonl"):
        assert trl.data_utils.is_conversational(row)
