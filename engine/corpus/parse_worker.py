"""Parse: one slice of a file into a table of valid rows and a table of rejections."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.artifacts.files import atomic_path
from engine.artifacts.typed_columns import with_source_types
from engine.config import CorpusConfig
from engine.corpus.problems import kind_of
from engine.corpus.readers import Record, count_lines, read_slice
from engine.corpus.schema import ParsedRow, RowParser, as_text, extra_as_json, matches, rules_of
from engine.corpus.slices import SourceSlice
from engine.corpus.tables import EXCERPT_CHARACTERS, PARSED, REJECTED, rejections_path
from engine.errors import InputError
from engine.example import order_hash
from engine.runtime.executor import PartitionWorker

__all__ = ["ParseWorker"]

ROWS_PER_WRITE = 4096


class ParseWorker(PartitionWorker):
    """Reads one slice into a table of valid rows and a table of rejections."""

    def __init__(self, configs: Mapping[str, CorpusConfig]) -> None:
        self._configs = configs

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        part, config = SourceSlice(**payload["slice"]), self._configs[payload["side"]]
        sorter = _Sorter(config, payload["label"], of_text=part.format == "csv")
        reader = read_slice(part, config)
        num_rows = 0
        with (
            atomic_path(path) as temporary,
            pq.ParquetWriter(temporary, with_source_types(PARSED, reader.types)) as writer,
        ):
            for record in reader:
                reason = sorter.take(record)
                if reason is not None and config.on_bad_row == "stop":
                    _stop(part, config, sorter.label, record.location.line, reason)
                if len(sorter.rows) == ROWS_PER_WRITE:
                    num_rows += _flush(writer, sorter.rows)
            num_rows += _flush(writer, sorter.rows)
        with atomic_path(rejections_path(path)) as temporary:
            pq.write_table(pa.Table.from_pylist(sorter.rejections, schema=REJECTED), temporary)
        return num_rows, {**sorter.usage, "lines": float(reader.num_lines)}


class _Sorter:
    """Sorts the records of a slice into rows and rejections, and counts."""

    def __init__(self, config: CorpusConfig, label: str, of_text: bool) -> None:
        self.label = label
        self.rows: list[dict[str, Any]] = []
        self.rejections: list[dict[str, Any]] = []
        self.usage = {"rows_read": 0.0, "filtered_out": 0.0, "nul_removed": 0.0}
        self._where = as_text(config.where) if of_text else config.where
        self._columns: dict[str, str] = {str(ours): name for ours, name in config.columns.items()}
        self._parse = RowParser(self._columns, rules_of(config)).parse

    def take(self, record: Record) -> str | None:
        """Sort one record; returns the reason when it is rejected."""
        self.usage["rows_read"] += 1
        values, line = record.values, record.location.line
        if values is not None and not matches(values, self._where):
            self.usage["filtered_out"] += 1
            for column in self._where.keys() & values.keys():
                self._count(f"where {kind_of(values[column])}: {column}", 1)
            return None
        parsed = record.problem if values is None else self._parse(values)
        if isinstance(parsed, ParsedRow):
            self.usage["nul_removed"] += parsed.num_nul
            for name, number in parsed.media.items():
                self._count(f"media {name}", number)
            if parsed.read_as:
                self._count(f"read as {json.dumps(parsed.read_as)}", 1)
            self.rows.append(_row(parsed, self.label, line))
            return None
        rejection = _rejection(parsed, values, record.source, self._columns)
        self.rejections.append({**rejection, "file": self.label, "line": line})
        self._count("rejected", 1)
        return parsed

    def _count(self, what: str, number: int) -> None:
        self.usage[what] = self.usage.get(what, 0.0) + number


def _stop(part: SourceSlice, config: CorpusConfig, label: str, line: int, reason: str) -> None:
    if part.format in ("jsonl", "arrow") and part.start:  # counted from the start of the slice
        line += count_lines(replace(part, start=0, stop=part.start), config)
    raise InputError(
        f"{label}, line {line}: {reason} (on_bad_row: quarantine would set the row aside and go on)"
    )


def _flush(writer: pq.ParquetWriter, rows: list[dict[str, Any]]) -> int:
    count = len(rows)
    if count:
        writer.write_table(pa.Table.from_pylist(rows, schema=PARSED))
        rows.clear()
    return count


def _row(parsed: ParsedRow, file: str, line: int) -> dict[str, Any]:
    example = parsed.example
    return {
        "id": example.id,
        "key": example.key,
        "instruction": example.instruction,
        "input": example.input,
        "output": example.output,
        "extra": extra_as_json(parsed.extra),
        "file": file,
        "line": line,
        "id_hash": order_hash(0, example.id),
    }


def _rejection(
    reason: str | None, values: Mapping[str, Any] | None, source: str, columns: Mapping[str, str]
) -> dict[str, Any]:
    row_id = None if values is None else values.get(columns.get("id", "id"))
    text = source if values is None else extra_as_json(dict(values))[:EXCERPT_CHARACTERS]
    if isinstance(row_id, bool | int | float):
        row_id = json.dumps(row_id)  # as the file has it
    return {
        "side": "",
        "id": _encodable(row_id) if isinstance(row_id, str) else None,
        "reason": reason,
        "row": _encodable(text),
    }


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
