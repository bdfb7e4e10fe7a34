"""Cutting a corpus into units of reading, and finding out early what cannot be read.

Looks at footers, headers and first bytes only, plus one line per cut of a JSON lines file.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from engine.config import CorpusConfig
from engine.corpus.arrow_files import PARQUET_MAGIC, outline
from engine.corpus.hub_datasets import load_dataset
from engine.corpus.paths import HUB_PREFIX, DataFile, find_files
from engine.corpus.schema import explain_missing_columns, rules_of
from engine.corpus.text_files import (
    check_opening,
    delimiter_of,
    is_escaped,
    looks_like,
    open_file,
    open_text,
    packing_of,
    size_of,
    text_layout,
)
from engine.errors import InputError
from engine.storage import is_remote

__all__ = ["SourceSlice", "line_offsets", "list_slices"]

SLICE_BYTES = 16 * 2**20
_RELATIVE = ("jsonl", "arrow")


@dataclass(frozen=True)
class SourceSlice:
    """One part of a corpus that a worker reads alone; `dataclasses.asdict` is JSON.

    Attributes:
        format: parquet, arrow, jsonl, json (an array), csv or huggingface.
        path: absolute, an address in object storage, or hf:NAME.
        start, stop: bytes of jsonl (both at the start of a line), row groups of parquet, record
            batches of arrow, rows of huggingface; 0 and None where the whole file is one slice
            (json, csv, packed files, Arrow streams).
        rows_before: rows of the file before this slice; 0 for jsonl and arrow, where only reading
            tells: see `line_offsets`.
    """

    format: str
    path: str
    start: int = 0
    stop: int | None = None
    rows_before: int = 0


def list_slices(config: CorpusConfig, slice_bytes: int = SLICE_BYTES) -> list[SourceSlice]:
    """All slices of a corpus, in order, for ingest to hand to workers.

    Depends on the files and `slice_bytes` only. An empty file is passed over when it was found in
    a directory or by a pattern among others with rows. Raises InputError for a path that is not
    there, and for a file that is empty, corrupt, of another format or without our columns.
    """
    assert slice_bytes > 0, "a slice holds at least one byte"
    files = find_files(config)
    slices: list[SourceSlice] = []
    for file in files:
        found = _slices_of(file, config, slice_bytes)
        if not found and file.named:
            raise InputError(f"no rows in {file.path}")
        slices += found
    if not slices:
        raise InputError(f"no rows in {config.path}: its {len(files)} data files are all empty")
    return slices


def line_offsets(slices: Sequence[SourceSlice], num_lines: Sequence[int]) -> list[int]:
    """What to add to the line numbers of each slice to make them those of its file.

    `num_lines` holds, slice by slice, `SliceReader.num_lines` after reading (or `count_lines`).
    It is 0 for every format but jsonl and arrow, whose slices cannot know what comes before them.
    """
    offsets, lines_so_far = [], dict[str, int]()
    for part, count in zip(slices, num_lines, strict=True):
        is_relative = part.format in _RELATIVE
        offsets.append(lines_so_far.get(part.path, 0) if is_relative else 0)
        lines_so_far[part.path] = lines_so_far.get(part.path, 0) + count
    return offsets


def _slices_of(file: DataFile, config: CorpusConfig, slice_bytes: int) -> list[SourceSlice]:
    try:
        return _LISTERS[file.format](file.path, config, slice_bytes)
    except OSError as error:
        raise InputError(f"cannot read {file.path}: {error.strerror or error}") from None


def _list_parquet(path: str, config: CorpusConfig, slice_bytes: int) -> list[SourceSlice]:
    _check_magic(path)
    try:
        with open_file(path) as raw, pq.ParquetFile(raw) as file:
            metadata, columns = file.metadata, file.schema_arrow.names
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"truncated or corrupt parquet: {path} ({_sentence(error)})") from None
    _check_columns(columns, config, path)
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    slices, start, rows_before, held_bytes, held_rows = [], 0, 0, 0, 0
    for i, group in enumerate(groups):
        held_bytes, held_rows = held_bytes + group.total_byte_size, held_rows + group.num_rows
        if held_bytes >= slice_bytes or i == len(groups) - 1:
            if held_rows:
                slices.append(_slice("parquet", path, start, i + 1, rows_before))
            start, rows_before = i + 1, rows_before + held_rows
            held_bytes = held_rows = 0
    return slices


def _list_arrow(path: str, config: CorpusConfig, slice_bytes: int) -> list[SourceSlice]:
    if not size_of(path):
        raise InputError(f"not an Arrow file: {path} (0 bytes)")
    try:
        columns, num_batches, has_rows = outline(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"truncated or corrupt Arrow file: {path} ({_sentence(error)})") from None
    _check_columns(columns, config, path)
    if not has_rows:
        return []
    if num_batches is None:
        return [_slice("arrow", path)]
    step = max(1, num_batches * slice_bytes // size_of(path))
    return [
        _slice("arrow", path, start, min(start + step, num_batches))
        for start in range(0, num_batches, step)
    ]


def _check_magic(path: str) -> None:
    if not size_of(path):
        raise InputError(f"not a parquet file: {path} (0 bytes)")
    with open_file(path) as file:
        opening = file.read(64)
    if opening.startswith(PARQUET_MAGIC):
        return
    name, advice = looks_like(opening) or ("another format", "rename it or set format:")
    raise InputError(
        f"{path} is not parquet: it starts with {opening[:12]!r} and not with b'PAR1'; "
        f"it looks like {name}, {advice}"
    )


def _list_json(path: str, config: CorpusConfig, slice_bytes: int) -> list[SourceSlice]:
    if not check_opening(path, "JSON"):
        return []
    layout = text_layout(path)
    if layout == "empty":
        return []
    is_packed = packing_of(path) is not None
    if layout == "json" and not is_packed:
        _check_last_bracket(path)
    if layout == "json" or is_packed:
        return [_slice(layout, path)]
    cuts = _line_cuts(path, slice_bytes)
    ends = [*cuts[1:], size_of(path)]
    return [_slice("jsonl", path, start, stop) for start, stop in zip(cuts, ends, strict=True)]


def _check_last_bracket(path: str) -> None:
    with open_file(path) as file:
        file.seek(max(0, size_of(path) - 4096))
        if not file.read().rstrip().endswith(b"]"):
            raise InputError(f"truncated JSON array: {path} does not end with ]")


def _line_cuts(path: str, slice_bytes: int) -> list[int]:
    """Starts of slices: 0, and the first line start at or after every multiple of slice_bytes."""
    size, cuts = size_of(path), [0]
    with open_file(path) as file:
        for mark in range(slice_bytes, size, slice_bytes):
            if mark <= cuts[-1]:
                continue
            file.seek(mark - 1)
            _skip_line(file)
            if file.tell() >= size:
                break
            cuts.append(file.tell())
    return cuts


def _skip_line(file: BinaryIO) -> None:
    while (piece := file.readline(2**20)) and not piece.endswith(b"\n"):
        pass


def _list_csv(path: str, config: CorpusConfig, slice_bytes: int) -> list[SourceSlice]:
    if not check_opening(path, "CSV"):
        return []
    header: list[str] = []
    csv.field_size_limit(sys.maxsize)  # process-wide, and the default is 128 KiB
    with open_text(path) as file:
        rows = csv.reader(file, strict=True, delimiter=delimiter_of(path))
        try:
            header = next((row for row in rows if row), [])
            has_rows = any(rows)
        except csv.Error:  # the row's own problem; the reader tells which
            has_rows = True
    _check_header(header, path)
    _check_columns(header, config, path)
    return [_slice("csv", path)] if has_rows else []


def _check_header(header: list[str], path: str) -> None:
    if is_escaped("".join(header)):
        raise InputError(f"{path}: the header is not valid UTF-8: save the file as UTF-8")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputError(f"{path}: the header names {', '.join(twice)} twice: rename one of them")


def _list_dataset(path: str, config: CorpusConfig, slice_bytes: int) -> list[SourceSlice]:
    dataset = load_dataset(_place(path), config.name, config.split)
    _check_columns(dataset.column_names, config, path)
    num_rows = len(dataset)
    step = max(1, num_rows * slice_bytes // max(1, dataset.data.nbytes))
    return [
        _slice("huggingface", path, start, min(start + step, num_rows), start)
        for start in range(0, num_rows, step)
    ]


def _check_columns(found: Collection[str], config: CorpusConfig, path: str) -> None:
    ours: dict[str, str] = {str(name): theirs for name, theirs in config.columns.items()}
    problem = explain_missing_columns(found, ours, rules_of(config))
    if problem:
        raise InputError(f"{path}: {problem}")


def _slice(
    format: str, path: str, start: int = 0, stop: int | None = None, rows_before: int = 0
) -> SourceSlice:
    return SourceSlice(format, _place(path), start, stop, rows_before)


def _place(path: str) -> str:
    # Workers have their own working directory.
    is_name = path.startswith(HUB_PREFIX) or is_remote(path)
    return path if is_name else str(Path(path).absolute())


def _sentence(error: Any) -> str:
    return str(error).split("\n")[0].strip()


_LISTERS: dict[str, Callable[[str, CorpusConfig, int], list[SourceSlice]]] = {
    "parquet": _list_parquet,
    "arrow": _list_arrow,
    "jsonl": _list_json,
    "json": _list_json,
    "csv": _list_csv,
    "huggingface": _list_dataset,
}
