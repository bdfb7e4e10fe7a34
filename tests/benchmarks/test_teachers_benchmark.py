"""The teachers' benchmark on tiny models: both ways agree, and what is written can be read."""

import json
from pathlib import Path

import pytest

from benchmarks.provenance import markdown_table
from benchmarks.teachers import AGREEMENT, DEMO_CORPUS, SPEED, compare, main, read_rows
from tests.tiny_models import build_tiny_language_model

LESS = {
    "lora_rank": 2, "lora_targets": ["q_proj", "v_proj"], "warmup_epochs": 2,
    "learning_rate": 0.02, "projection_dim": 256,
}  # fmt: skip


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_language_model(tmp_path_factory.mktemp("lm"))


@pytest.mark.parametrize(
    ("teacher", "unit_count", "plain", "tolerance"),
    [
        ("delift", 4, {"prompt by prompt"}, 1e-5),
        ("selectit", 5, {"prompt by prompt"}, 1e-4),
        ("less", 5, {"backward by backward", "our own, batch 1"}, 1e-3),  # float16 features
    ],
)
def test_ours_and_plain_agree(
    teacher: str,
    unit_count: int,
    plain: set[str],
    tolerance: float,
    model_dir: Path,
    tmp_path: Path,
):
    settings = {"model": {"path": str(model_dir), "dtype": "float32"}, "less": LESS}
    rows = list(compare(teacher, settings, read_rows(DEMO_CORPUS, "all")[:5], 1, tmp_path))
    assert {row["plain"] for row in rows} == plain
    for row in rows:
        assert row["num"] == unit_count
        assert row["score_std"] > 10 * tolerance
        assert row["difference"] < tolerance and row["difference_float32"] < tolerance


def test_what_is_printed_and_written(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "results" / "teachers.json"
    flags = f"--model {model_dir} --dtype float32 --corpus {DEMO_CORPUS} --json {path}"
    main([*flags.split(), "--rows", "5", "--repeats", "2", "--teachers", "delift"])
    result = json.loads(path.read_text(encoding="utf-8"))
    assert list(result) == ["name", "provenance", "settings", "rows"]
    assert {"date", "cpu", "cores", "threads", "packages", "commit", "dirty"} <= set(
        result["provenance"]
    )
    (row,) = result["rows"]
    assert {*SPEED, *AGREEMENT} <= set(row)
    # Plain reads the prefix and the last token once per prompt, and has logits everywhere.
    assert row["plain_tokens"] > row["ours_tokens"]
    assert row["bound_flops"] > row["bound_tokens"] > 1
    _, speed, agreement = capsys.readouterr().out.strip().split("| teacher ")
    assert all(f"| {column} " in speed for column in SPEED[1:])
    assert all(f"| {column} " in agreement for column in AGREEMENT[1:])


def test_table():
    rows = [{"a": 1.23456, "b": [1, 2.5]}, {"a": 12345.6}]
    assert markdown_table(rows, ("a", "b")).splitlines() == [
        "| a     | b        |",
        "| ----- | -------- |",
        "| 1.23  | 1 to 2.5 |",
        "| 12346 |          |",
    ]


def test_where_keeps_a_column_and_order_is_fixed():
    rows = read_rows(DEMO_CORPUS, "skill=unit_conversion")
    assert 0 < len(rows) < len(read_rows(DEMO_CORPUS, "all"))
    assert all(row.id.startswith("unit-") for row in rows)
    assert rows == read_rows(DEMO_CORPUS, "skill=unit_conversion")
