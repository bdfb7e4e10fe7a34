"""`check`: what leaks or is said twice, told before a run, by its exit code too."""

import json

import pyarrow.parquet as pq
import pytest

from engine.commands.start import main

ROWS = [
    {"id": "a", "instruction": "Name the capital of\x1b[31m Norway!", "output": "Oslo"},
    {"id": "b", "instruction": "Which river flows through Graz?", "output": "The Mur"},
    {"id": "c", "instruction": "which river flows through GRAZ", "output": "the Mur."},
]
TEST = [{"id": "t", "instruction": "name the capital of \x1b[31m Norway", "output": "It is Oslo."}]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """rows.jsonl, a test set that leaks and one that does not, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name, rows in (("rows", ROWS), ("leaking", TEST), ("other", ROWS[1:2])):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return tmp_path


def checked(capsys, *words):
    code = main(["check", *words])
    printed = capsys.readouterr()
    return code, json.loads(printed.out.splitlines()[-1]), printed.err


def test_a_leak_is_shown_and_is_exit_code_2(files, capsys):
    words = ["rows.jsonl", "--against", "leaking.jsonl", "other.jsonl", "--out", "found.parquet"]
    code, found, said = checked(capsys, *words)
    assert code == 2 and found == {
        "candidates": 3,
        "leaks": {"protect": {"exact": 3, "13-gram": 0, "near": 0}},
        "duplicates": {"exact": 1, "near": 0},
        "passed": False,
        "out": "found.parquet",
    }
    assert "repeat what may not be trained on: 3 exact in protect" in said
    assert "\\x1b[31m Norway" in said and "\x1b" not in said
    kept = pq.read_table("found.parquet").to_pylist()
    assert [row["protected_id"] for row in kept] == ["t", "b", "b"]
    assert {path.name for path in files.iterdir()} == {
        "rows.jsonl",
        "leaking.jsonl",
        "other.jsonl",
        "found.parquet",
    }


def test_what_on_leak_passes_is_exit_code_0(files, capsys):
    words = ["rows.jsonl", "--against", "leaking.jsonl", "--on_leak", "warn"]
    code, found, said = checked(capsys, *words)
    assert code == 0 and found["passed"] and found["leaks"]["protect"]["exact"] == 1
    assert "no leak that on_leak does not pass" in said


def test_settings_say_what_to_compare(files, capsys):
    (files / "job.yaml").write_text(
        "corpus: {path: rows.jsonl}\ntarget: {path: leaking.jsonl}\nprotect: [other.jsonl]\n"
        "execution: local\nrun_dir: runs/mine\n"
    )
    code, found, _ = checked(capsys, "--config", "job.yaml", "--duplicates", "exact")
    assert code == 2 and found["duplicates"] == {"exact": 1, "near": 0}
    assert {name: counts["exact"] for name, counts in found["leaks"].items()} == {
        "targets": 1,
        "protect": 2,
    }
    assert not (files / "runs").exists()
    code, found, _ = checked(capsys, "--config", "job.yaml", "--protect", "[]")
    assert code == 0 and found["leaks"]["targets"]["exact"] == 1  # targets are told


def test_alone_it_looks_for_duplicates(files, capsys):
    code, found, said = checked(capsys, "rows.jsonl", "--duplicates", "longest")
    assert code == 0 and found["leaks"] == {} and "nothing to compare with" in said
    assert found["duplicates"]["exact"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.jsonl", "--against", "other.jsonl"], "No such file: missing.jsonl"),
        (["rows.jsonl", "--against", "missing.jsonl"], "No such file: missing.jsonl"),
        (["--against", "other.jsonl"], "unknown flag --against"),
        (["rows.jsonl", "--on_leak", "stop"], "on_leak"),
        (["rows.jsonl", "--out", "."], "--out . is a folder"),
        ([], "--config"),
    ],
)
def test_what_cannot_be_checked_is_told_in_a_sentence(files, capsys, words, said):
    assert main(["check", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and said in printed.err and len(printed.err.splitlines()) == 1
