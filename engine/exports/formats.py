"""The formats: what a row becomes, and how the file is written.

    parquet, jsonl   the subset as it is, byte for byte
    datasets         a folder for `datasets.load_from_disk`, all columns
    messages         JSON lines {"messages": [{"role", "content"}, ...]}: TRL, Axolotl
    sharegpt         JSON lines {"conversations": [{"from", "value"}, ...]}: LLaMA-Factory, Axolotl
    alpaca           a JSON list of {"instruction", "input", "output"}: LLaMA-Factory, Axolotl

Turns keep all their keys, tools and images lie beside them. What a format has no place for, or its
reader passes over, is counted. Each is written row by row: memory does not grow with the subset.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine import storage
from engine.artifacts.files import file_sha256
from engine.artifacts.run_directory import Artifact
from engine.corpus.conversations import read_conversation
from engine.corpus.turns import called, read_turn
from engine.exports.rows import Spoken, spoken

__all__ = ["FORMATS", "dataset_info", "write_dataset", "write_file"]

FORMATS = ("messages", "alpaca", "sharegpt", "datasets", "parquet", "jsonl")
_ALWAYS_TOLD = ("rows", "conversations")
_BATCH_ROWS = 1024
_BUFFER_BYTES = 2**20
_SHAREGPT_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "human",
    "assistant": "gpt",
    "tool": "observation",
}
_ASKING, _ANSWERING = ("human", "observation"), ("gpt", "function_call")

# What LLaMA-Factory wants to know of a file, but for its name and the columns that not all have.
_DATASET_INFO: dict[str, dict[str, Any]] = {
    "alpaca": {"columns": {"prompt": "instruction", "query": "input", "response": "output"}},
    "sharegpt": {"formatting": "sharegpt", "columns": {"messages": "conversations"}},
}
_ITS_COLUMNS = ("system", "history", "tools", "images", "videos", "audios")


def dataset_info(form: str, columns: Collection[str]) -> dict[str, Any] | None:
    """The entry for LLaMA-Factory of a file with these columns; None for formats it has not."""
    if form not in _DATASET_INFO:
        return None
    info = _DATASET_INFO[form]
    its = {name: name for name in _ITS_COLUMNS if name in columns}
    return {**info, "columns": {**info["columns"], **its}}


def write_file(
    selection: Artifact, form: str, path: Path, messages: str | None = None
) -> tuple[dict[str, int], list[str]]:
    """Write a format that is one file; returns what was counted, and the columns that rows have.

    `messages` is the column of turns, where the settings of the run name one.
    """
    if form in ("parquet", "jsonl"):
        group = "subset" if form == "parquet" else "jsonl"
        shutil.copyfile(storage.fetch(selection.path(group)), path)
        return {"rows": sum(part.rows for part in selection.parts(group))}, []
    make = _MAKERS[form]
    counts: Counter[str] = Counter(rows=0, conversations=0)
    columns: dict[str, None] = {}
    first, between, last = ("[\n", ",\n", "\n]\n") if form == "alpaca" else ("", "\n", "\n")
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(first)
        for row in _rows(selection):
            if counts["rows"]:
                file.write(between)
            counts["rows"] += 1
            said = spoken(row, messages)
            counts["conversations"] += said.was_conversation
            line = make(row, said, counts)
            columns.update(dict.fromkeys(line))
            file.write(json.dumps(line, ensure_ascii=False))
        file.write(last if counts["rows"] or form == "alpaca" else "")
    return {name: n for name, n in counts.items() if n or name in _ALWAYS_TOLD}, list(columns)


def write_dataset(selection: Artifact, folder: Path) -> dict[str, int]:
    """Write what `datasets.load_from_disk` reads; the same bytes for the same subset."""
    import datasets

    rows = 0
    path = folder / ".rows" / "rows.arrow"  # which may not lie beside what is made of it
    path.parent.mkdir()
    schema = pq.read_schema(storage.fetch(selection.path("subset")))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in _batches(selection):
            writer.write_batch(batch)
            rows += len(batch)
    mapped = datasets.Dataset.from_file(str(path))
    # its own fingerprint would hold the time
    fingerprint = file_sha256(selection.path("subset"))[:16]
    datasets.Dataset(mapped.data, info=mapped.info, fingerprint=fingerprint).save_to_disk(
        str(folder)
    )
    shutil.rmtree(path.parent)
    return {"rows": rows}


def _batches(selection: Artifact) -> Iterator[pa.RecordBatch]:
    path = selection.path("subset")
    # page by page: without a buffer, columns are read a row group at a time
    with pq.ParquetFile(storage.fetch(path), buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
        yield from file.iter_batches(_BATCH_ROWS)


def _rows(selection: Artifact) -> Iterator[dict[str, Any]]:
    """The rows as JSON lines have them, each with the keys that it came with."""
    with open(storage.fetch(selection.path("jsonl")), encoding="utf-8") as file:
        yield from map(json.loads, file)


# --- what a row becomes ---------------------------------------------------------------------------


def _messages(row: Mapping[str, Any], said: Spoken, counts: Counter[str]) -> dict[str, Any]:
    return {"messages": said.turns, **_beside(said, said.tools)}


def _sharegpt(row: Mapping[str, Any], said: Spoken, counts: Counter[str]) -> dict[str, Any]:
    turns = said.to_last_answer
    counts["turns_left_out"] += len(said.turns) - len(turns)
    told = [_sharegpt_turn(turn, counts) for turn in turns]
    speakers = [turn["from"] for turn in told if turn is not told[0] or turn["from"] != "system"]
    pairs = zip(speakers, cycle((_ASKING, _ANSWERING)), strict=False)
    counts["not_alternating"] += any(speaker not in expected for speaker, expected in pairs)
    for key in {key for turn in told for key in turn} - {"from", "value"}:
        counts[f"unread_{key}"] += key not in ("tool_calls", "tool_call_id", "name")
    tools = json.dumps(said.tools, ensure_ascii=False)
    media = _media_of(turns, counts)
    return {"conversations": told, **media, **_beside(said, tools if said.tools else "")}


def _sharegpt_turn(turn: Mapping[str, Any], counts: Counter[str]) -> dict[str, Any]:
    rest = {key: value for key, value in turn.items() if key not in ("role", "content")}
    speaker, text = _SHAREGPT_ROLES[turn["role"]], turn["content"] or ""
    counts["developer_turns"] += turn["role"] == "developer"
    if isinstance(text, list):
        counts["parts_joined"] += 1
        text = read_turn({"role": "user", "content": text}, "parts").text
    if calls := list(called(turn, "assistant", "content")):
        counts["calls_beside_text"] += bool(text)
        if not text:
            value = calls[0] if len(calls) == 1 else calls
            speaker, text = "function_call", json.dumps(value, ensure_ascii=False)
    return {"from": speaker, "value": text, **rest}


def _alpaca(row: Mapping[str, Any], said: Spoken, counts: Counter[str]) -> dict[str, Any]:
    turns = said.to_last_answer
    counts["turns_left_out"] += len(said.turns) - len(turns)
    keys = {key for turn in turns for key in turn}
    for key in keys - {
        "role",
        "content",
        "tool_calls",
        "reasoning_content",
        "tool_call_id",
        "name",
    }:
        counts[f"lost_{key}"] += 1
    beside = {**_media_of(turns, counts), **_beside(said, None)}
    if not said.was_conversation:
        texts = {name: row.get(name) or "" for name in ("instruction", "input", "output")}
        own = {name: row[name] for name in ("system", "history") if row.get(name)}
        counts["with_history"] += bool(own)
        return {**texts, **own, **beside}
    has_system = turns[0]["role"] in ("system", "developer")
    spoken_turns = turns[has_system:]
    alternate = [turn["role"] for turn in spoken_turns] == ["user", "assistant"] * (
        len(spoken_turns) // 2
    )
    if not alternate or said.tools or any(turn.get("tool_calls") for turn in turns):
        counts["told_as_text"] += 1
        found = read_conversation(turns, "messages", {"tools": said.tools})
        return {"instruction": found.instruction, "input": "", "output": found.output, **beside}
    read = [read_turn(turn, "messages").text for turn in spoken_turns]
    counts["parts_joined"] += any(isinstance(turn["content"], list) for turn in turns)
    context: dict[str, Any] = {}
    if has_system:
        context["system"] = read_turn(turns[0], "messages").text
    if read[:-2]:
        context["history"] = [[q, a] for q, a in zip(read[:-2:2], read[1:-2:2], strict=True)]
    counts["with_history"] += bool(context)
    return {"instruction": read[-2], "input": "", "output": read[-1], **context, **beside}


def _media_of(turns: Sequence[Mapping[str, Any]], counts: Counter[str]) -> dict[str, list[str]]:
    """Addresses of the images and the like among the parts of turns, by LLaMA-Factory's columns."""
    found: dict[str, list[str]] = {}
    for turn in turns:
        for part in turn["content"] if isinstance(turn["content"], list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            for name in read_turn({"role": "user", "content": [part]}, "parts").media:
                value = part.get(str(kind), part.get(name, part.get("url", part.get("path"))))
                address = value.get("url", value.get("path")) if isinstance(value, dict) else value
                if isinstance(address, str) and name in ("image", "video", "audio"):
                    found.setdefault(f"{name}s", []).append(address)
                else:
                    counts["media_lost"] += 1
    return found


def _beside(said: Spoken, tools: Any) -> dict[str, Any]:
    """The columns beside the turns that a row has at all."""
    return {**({"tools": tools} if tools else {}), **said.media}


_MAKERS: dict[str, Callable[[Mapping[str, Any], Spoken, Counter[str]], dict[str, Any]]] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
}
