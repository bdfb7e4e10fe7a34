"""2,000 rows of mixed chat formats in and out: the same turns, tools, weights and other columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.artifacts.rows import TableParts
from engine.config import parse_config
from engine.corpus.schema import ParsedRow, Rules, parse
from engine.exports.export import export
from engine.stages.pipeline import run
from tests.chats import chats
from tests.exports.test_export import make_run
from tests.tiny_models import build_tiny_language_model

RULES = Rules(preference="chosen")
MADE = chats(2000, seed=1)
NAMES = {"human": "user", "gpt": "assistant", "function_call": "assistant", "observation": "tool"}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    rows = [row for row, _, _ in MADE]
    return make_run(tmp_path_factory.mktemp("mixed") / "run", rows, rules=RULES)


def ingested(path: Path, run_dir: Path) -> list[dict[str, Any]]:
    corpus = {"path": str(path), "preference": "chosen"}
    config = parse_config({"execution": "local", "corpus": corpus})
    parts = TableParts(
        run(config, run_dir=run_dir, until="ingest").artifact("1-corpus"), "candidates"
    )
    return [row for table in parts.iter_parts() for row in table.to_pylist()]


def parsed(row: dict[str, Any]) -> ParsedRow:
    found = parse(row, {}, RULES)
    assert isinstance(found, ParsedRow), found
    return found


def said(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn of OpenAI's or ShareGPT's form as tests/chats.py tells it."""
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if isinstance(content, list):
        content = "".join(part["text"] for part in content)
    told: dict[str, Any] = {"role": NAMES.get(role, role), "text": content or ""}
    if "tool_calls" in turn:
        functions = [call["function"] for call in turn["tool_calls"]]
        calls = [(f["name"], f["arguments"]) for f in functions]
        told["calls"] = [
            {"name": name, "arguments": json.loads(a) if isinstance(a, str) else a}
            for name, a in calls
        ]
        told["text"] = ""
    if "reasoning_content" in turn:
        told["reasoning"] = turn["reasoning_content"]
    if "weight" in turn:
        told["weight"] = turn["weight"]
    return told


def tools_of(line: dict[str, Any]) -> list[Any]:
    tools = line.get("tools") or []
    return json.loads(tools) if isinstance(tools, str) else tools


def lines_of(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else list(map(json.loads, text.splitlines()))


def test_the_scored_text_is_what_was_said():
    for row, turns, tools in MADE:
        example = parsed(row).example
        assert example.output.endswith(turns[-1]["text"]) or turns[-1]["role"] == "user"
        assert all(turn["text"] in example.instruction for turn in turns[:-2])
        assert all(json.dumps(tool, ensure_ascii=False) in example.instruction for tool in tools)


@pytest.mark.parametrize("form", ["messages", "sharegpt"])
def test_turns_and_tools(mixed, tmp_path, form):
    export(mixed.path, form, tmp_path / "x.jsonl")
    column = {"messages": "messages", "sharegpt": "conversations"}[form]
    for line, (row, turns, tools) in zip(lines_of(tmp_path / "x.jsonl"), MADE, strict=True):
        is_cut = form == "sharegpt" and turns[-1]["role"] == "user"
        assert [said(turn) for turn in line[column]] == turns[: -1 if is_cut else None]
        assert tools_of(line) == tools
        again, first = parsed(line).example, parsed(row).example
        assert (again.instruction, again.output) == (first.instruction, first.output)


def test_alpaca(mixed, tmp_path):
    told = export(mixed.path, "alpaca", tmp_path / "x.json")
    with_tools = weights = 0
    for line, (row, turns, tools) in zip(lines_of(tmp_path / "x.json"), MADE, strict=True):
        again, first = parsed(line).example, parsed(row).example
        assert again.output == first.output or any(t.get("weight") == 0 for t in turns)
        if not tools:
            assert again.instruction == first.instruction
        with_tools += bool(tools)
        answered = turns[:-1] if turns[-1]["role"] == "user" else turns
        weights += any("weight" in turn for turn in answered)
    assert told["told_as_text"] == with_tools and told["lost_weight"] == weights > 0


@pytest.mark.parametrize("form", ["parquet", "jsonl", "datasets"])
def test_every_column_comes_back_and_goes_in_again(mixed, tmp_path, form):
    """Read again by ingest: the same values in every column that a row came with."""
    out = tmp_path / (f"x.{form}" if form != "datasets" else "data")
    export(mixed.path, form, out)
    for found, (row, _, _) in zip(ingested(out, tmp_path / "run"), MADE, strict=True):
        back = json.loads(found["extra"])
        for name in row.keys() - {"id", "score"}:
            assert back.get(name, found.get(name)) == row[name], name
        assert back["score"] == row["score"] and found["id"] == row["id"]
        assert set(back) - set(row) <= EVERY - set(row)
        assert not any(back[name] for name in set(back) - set(row) - OURS)


OURS = {"instruction", "input", "output", "rank", "gain", "mean_influence"}
EVERY = OURS.union(*(row for row, _, _ in MADE))


# --- exports of the reports (../shared/data_reports/MANIFEST.md) ---------------------------------

REPORTS = Path(__file__).resolve().parents[2].parent / "shared" / "data_reports"


def reported(name: str, tmp_path: Path) -> tuple[Any, list[dict[str, Any]]]:
    if not REPORTS.is_dir():
        pytest.skip(f"{REPORTS} is absent")
    rows = lines_of(REPORTS / name)
    return make_run(tmp_path / "run", rows), rows


def test_a_system_prompt_and_images_of_sharegpt_rows(tmp_path):
    directory, rows = reported("export_sg.jsonl", tmp_path)
    for form in ("messages", "sharegpt", "alpaca"):
        out = tmp_path / form / ("x.json" if form == "alpaca" else "x.jsonl")
        export(directory.path, form, out)
        for line, row in zip(lines_of(out), rows, strict=True):
            assert line.get("images") == row.get("images")
            if form == "messages":
                assert line["messages"][0] == {"role": "system", "content": row["system"]}
            elif form == "sharegpt":
                assert line["conversations"][0] == {"from": "system", "value": row["system"]}
                assert line["conversations"][1:] == row["conversations"]
            else:
                assert line["system"] == row["system"]
        if form != "messages":
            info = json.loads((out.parent / "dataset_info.json").read_text())["x"]["columns"]
            assert info["images"] == "images"
    assert "system" in info


def test_weights_calls_tools_and_reasoning_of_messages(tmp_path, capsys):
    directory, rows = reported("export_chats.jsonl", tmp_path)
    export(directory.path, "messages", tmp_path / "x.jsonl")
    lines = lines_of(tmp_path / "x.jsonl")
    assert [line["messages"] for line in lines] == [row["messages"] for row in rows]
    assert [line.get("tools") for line in lines] == [row.get("tools") for row in rows]
    capsys.readouterr()
    told = export(directory.path, "sharegpt", tmp_path / "y.jsonl")
    printed = capsys.readouterr().err
    assert told["unread_weight"] == sum("weight" in str(row["messages"]) for row in rows)
    assert "turns of weight 0 would be trained on" in printed
    assert told["calls_beside_text"] and "have tool calls beside their text" in printed


TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<{{ m.role }}>"
    "{{ m.content or '' }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}{% endfor %}"
)


@pytest.mark.filterwarnings("ignore")  # TRL's and its libraries'
def test_trl_trains_a_step_on_conversations_with_tools(mixed, tmp_path):
    """As `trl sft --dataset_name FOLDER` reads the file, with a tiny model."""
    trl = pytest.importorskip("trl")
    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer

    lm = build_tiny_language_model(tmp_path / "lm")
    tokenizer = AutoTokenizer.from_pretrained(lm)
    tokenizer.chat_template, tokenizer.pad_token = TEMPLATE, "</s>"
    (tmp_path / "sft").mkdir()
    export(mixed.path, "messages", tmp_path / "sft/train.jsonl")
    rows = datasets.load_dataset(
        str(tmp_path / "sft"), split="train", cache_dir=str(tmp_path / "c")
    )
    with_calls = [
        i for i, row in enumerate(rows) if any(t.get("tool_calls") for t in row["messages"])
    ][:8]
    assert len(with_calls) == 8
    trainer = trl.SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(lm),
        processing_class=tokenizer,
        train_dataset=rows.select(with_calls),
        args=trl.SFTConfig(
            output_dir=str(tmp_path / "out"), max_steps=1, use_cpu=True, report_to=[],
            max_length=512, per_device_train_batch_size=2, save_strategy="no", bf16=False,
        ),
    )  # fmt: skip
    text = tokenizer.decode(trainer.train_dataset[0]["input_ids"])
    row = rows[with_calls[0]]
    call = next(t for t in row["messages"] if t.get("tool_calls"))["tool_calls"][0]
    assert call["function"]["name"] in text
    assert trainer.train().training_loss > 0
