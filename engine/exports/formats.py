"""The formats: what a row becomes, and how the file is written.

    parquet, jsonl   the subset as it is, byte for byte
    datasets         a folder for `datasets.load_from_disk`, all columns
    messages         JSON lines {"messages": [{"role", "content"}, ...]}: TRL, Axolotl
    sharegpt         JSON lines {"conversations": [{"from", "value"}, ...]}: LLaMA-Factory, Axolotl
    alpaca           a JSON list of {"instruction", "input", "output"}: LLaMA-Factory, Axolotl

Each is written by batches of rows; the memory does not grow with the subset.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine import storage
from engine.artifacts.files import file_sha256
from engine.artifacts.run_directory import Artifact
from engine.exports.rows import spoken

__all__ = ["DATASET_INFO", "FORMATS", "write_dataset", "write_file"]

FORMATS = ("messages", "alpaca", "sharegpt", "datasets", "parquet", "jsonl")
_BATCH_ROWS = 1024
_BUFFER_BYTES = 2**20
_ROLES = {"System": "system", "User": "user", "Assistant": "assistant"}
_SHAREGPT_ROLES = {"System": "system", "User": "human", "Assistant": "gpt"}

# What LLaMA-Factory wants to know of a file, but for its name.
DATASET_INFO: dict[str, dict[str, Any]] = {
    "alpaca": {"columns": {"prompt": "instruction", "query": "input", "response": "output"}},
    "sharegpt": {"formatting": "sharegpt", "columns": {"messages": "conversations"}},
}


def write_file(selection: Artifact, form: str, path: Path) -> dict[str, int]:
    """Write a format that is one file; returns what was counted."""
    if form in ("parquet", "jsonl"):
        group = "subset" if form == "parquet" else "jsonl"
        shutil.copyfile(storage.fetch(selection.path(group)), path)
        return {"rows": sum(part.rows for part in selection.parts(group))}
    make = _MAKERS[form]
    counts: Counter[str] = Counter(rows=0, conversations=0)
    first, between, last = ("[\n", ",\n", "\n]\n") if form == "alpaca" else ("", "\n", "\n")
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(first)
        for batch in _batches(selection):
            for row in batch.to_pylist():
                if counts["rows"]:
                    file.write(between)
                counts["rows"] += 1
                file.write(json.dumps(make(row, counts), ensure_ascii=False))
        file.write(last if counts["rows"] or form == "alpaca" else "")
    return dict(counts)


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


# --- what a row becomes ---------------------------------------------------------------------------


def _messages(row: Mapping[str, Any], counts: Counter[str]) -> dict[str, Any]:
    said = spoken(row)
    counts["conversations"] += said.was_conversation
    return {"messages": [{"role": _ROLES[t.speaker], "content": t.text} for t in said.turns]}


def _sharegpt(row: Mapping[str, Any], counts: Counter[str]) -> dict[str, Any]:
    said = spoken(row)
    turns = said.to_last_answer
    counts["conversations"] += said.was_conversation
    counts["turns_left_out"] += len(said.turns) - len(turns)
    speakers = [turn.speaker for turn in turns]
    alternate = speakers[1:] if speakers[0] == "System" else speakers
    expected = cycle(("User", "Assistant"))
    counts["not_alternating"] += any(a != b for a, b in zip(alternate, expected, strict=False))
    return {"conversations": [{"from": _SHAREGPT_ROLES[t.speaker], "value": t.text} for t in turns]}


def _alpaca(row: Mapping[str, Any], counts: Counter[str]) -> dict[str, Any]:
    said = spoken(row)
    counts["conversations"] += said.was_conversation
    counts["told_as_text"] += len(said.to_last_answer) > 2
    return {name: row[name] for name in ("instruction", "input", "output")}


_MAKERS: dict[str, Callable[[Mapping[str, Any], Counter[str]], dict[str, Any]]] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
}
