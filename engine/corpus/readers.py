"""Reading a corpus, one record per row, wherever the rows lie.

`list_slices` cuts a corpus into slices and raises InputError for whole files that are of no use;
`read_slice` reads one of them, on any worker, and never raises for a bad row: the record says what
is wrong with it. Formats: parquet, Arrow (feather), JSON lines, JSON arrays, CSV and TSV
(these also packed by gzip, zstd, bzip2 or xz), and Hugging Face datasets.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from engine.artifacts.typed_columns import values_of
from engine.config import CorpusConfig
from engine.corpus.arrow_files import arrow_batches, schema_of
from engine.corpus.hub_datasets import load_dataset
from engine.corpus.json_arrays import iterate_array
from engine.corpus.problems import kind_of
from engine.corpus.slices import SourceSlice, line_offsets, list_slices
from engine.corpus.text_files import (
    BOM,
    delimiter_of,
    is_escaped,
    open_bytes,
    open_file,
    open_text,
)
from engine.errors import InputError

__all__ = [
    "Location",
    "Record",
    "SliceReader",
    "SourceSlice",
    "count_lines",
    "line_offsets",
    "list_slices",
    "read_slice",
]

_ROWS_PER_BATCH = 1024

_EXCERPT_CHARACTERS = 2000


class _Bad(NamedTuple):
    """What is wrong with a row, and the text that it was to be read from."""

    reason: str
    source: str = ""


# A row as the formats yield it: its columns, or what is wrong with it; None is a blank line.
_Row = dict[str, Any] | _Bad | None


class Location(NamedTuple):
    """Where a row stands.

    Attributes:
        file: absolute path, or hf:NAME.
        line: from 1. Lines of jsonl count from the start of the slice (`line_offsets` makes them
            absolute); all others are row numbers in the file, the header of a CSV not counted.
    """

    file: str
    line: int


class Record(NamedTuple):
    """A row as it was read: `values` holds all its columns, or `problem` says why not.

    `source` is the text of a row that cannot be read, as far as there is one.
    """

    location: Location
    values: dict[str, Any] | None
    problem: str | None
    source: str = ""


class SliceReader:
    """The records of one slice, in order; each iteration reads it afresh.

    Attributes:
        num_lines: lines (rows, where the format has no lines) gone by so far, blank ones too;
            after the iteration, those of the slice.
    """

    def __init__(self, part: SourceSlice, config: CorpusConfig) -> None:
        self.num_lines = 0
        self._slice = part
        self._config = config

    def __iter__(self) -> Iterator[Record]:
        self.num_lines = 0
        path, before = self._slice.path, self._slice.rows_before
        for row in _READERS[self._slice.format](self._slice, self._config):
            self.num_lines += 1
            if isinstance(row, _Bad):
                yield Record(Location(path, before + self.num_lines), None, *row)
            elif row is not None:
                yield Record(Location(path, before + self.num_lines), row, None)

    @property
    def types(self) -> pa.Schema | None:
        """The columns with their types, where the format has types."""
        part, config = self._slice, self._config
        if part.format == "huggingface":
            return load_dataset(part.path, config.name, config.split).data.schema
        return schema_of(part.path) if part.format in ("parquet", "arrow") else None


def read_slice(part: SourceSlice, config: CorpusConfig) -> SliceReader:
    """One record for every row or non-blank line of a slice, streaming.

    Holds a line of jsonl, an element of an array, a row of CSV, or a batch of 1,024 rows of
    parquet and of datasets. Iterating raises InputError only for files that break off or rot in
    the middle, which list_slices cannot see: a page of parquet, a gzip stream, a JSON array.
    """
    return SliceReader(part, config)


def count_lines(part: SourceSlice, config: CorpusConfig) -> int:
    """What `SliceReader.num_lines` will be, for a caller who stopped reading early."""
    if part.format != "jsonl":
        return sum(1 for _ in _READERS[part.format](part, config))
    return sum(1 for _ in _lines(part))


def _lines(part: SourceSlice) -> Iterator[bytes]:
    """Lines that start in the slice; list_slices cuts at line starts only."""
    position, stop = part.start, sys.maxsize if part.stop is None else part.stop
    with open_bytes(part.path) as file:
        file.seek(position)
        for line in file:
            if position >= stop:
                return
            position += len(line)
            yield line


def _read_lines(part: SourceSlice, config: CorpusConfig) -> Iterator[_Row]:
    for line in _lines(part):
        line = line.removeprefix(BOM)  # joined files have one in the middle
        yield None if not line or line.isspace() else _read_line(line)


def _read_line(line: bytes) -> _Row:
    value = _parsed_line(line)
    if isinstance(value, _Bad):
        text = line[: 4 * _EXCERPT_CHARACTERS].decode("utf-8", "backslashreplace")
        return value._replace(source=text.strip()[:_EXCERPT_CHARACTERS])
    return value


def _parsed_line(line: bytes) -> _Row:
    try:
        text = line.decode()
        value = json.loads(text)
    except UnicodeDecodeError as error:
        byte, position = line[error.start], error.start + 1
        return _Bad(f"not valid UTF-8: byte 0x{byte:02X} at position {position}")
    except json.JSONDecodeError as error:
        return _Bad(f"not valid JSON: {error.msg.removesuffix(' at')} at column {error.colno}")
    except RecursionError:
        return _Bad("not valid JSON: nested too deeply")
    except ValueError as error:  # a number of more digits than Python converts
        return _Bad(f"not valid JSON: {error}")
    return _checked(value, text)


def _checked(value: Any, source: str) -> _Row:
    if not isinstance(value, dict):
        excerpt = source[:_EXCERPT_CHARACTERS]
        return _Bad(f"a JSON object was expected, got {kind_of(value)}", excerpt)
    if "\\ud" in source or "\\uD" in source:  # else no escape can have made half a character
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            return _Bad(f"lone surrogate {half}: half a character, not valid text")
    return value


def _read_array(part: SourceSlice, config: CorpusConfig) -> Iterator[_Row]:
    with open_text(part.path) as file:
        try:
            for value, source in iterate_array(file):
                yield _Bad("not valid UTF-8") if is_escaped(source) else _checked(value, source)
        except ValueError as error:
            raise InputError(f"{part.path} is not a valid JSON array: {error}") from None


def _read_csv(part: SourceSlice, config: CorpusConfig) -> Iterator[_Row]:
    csv.field_size_limit(sys.maxsize)  # process-wide, and the default is 128 KiB
    with open_text(part.path) as file:
        rows = csv.reader(file, strict=True, delimiter=delimiter_of(part.path))
        header = next(row for row in rows if row)
        while True:
            line = rows.line_num + 1
            try:
                fields = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield _Bad(f"not valid CSV: {error} (the row starts at line {line})")
                continue
            if fields:
                yield _csv_row(header, fields)


def _csv_row(header: list[str], fields: list[str]) -> _Row:
    if len(fields) != len(header):
        shown = ",".join(fields).encode("utf-8", "backslashreplace").decode()
        problem = f"{len(header)} fields were expected, got {len(fields)}"
        return _Bad(problem, shown[:_EXCERPT_CHARACTERS])
    if any(is_escaped(field) for field in fields):
        return _Bad("not valid UTF-8")
    return dict(zip(header, fields, strict=True))


def _read_parquet(part: SourceSlice, config: CorpusConfig) -> Iterator[_Row]:
    groups = range(part.start, part.stop or 0)
    try:
        with open_file(part.path) as raw, pq.ParquetFile(raw) as file:
            # One thread: the workers are the parallelism.
            for batch in file.iter_batches(_ROWS_PER_BATCH, row_groups=groups, use_threads=False):
                yield from _read_batch(batch)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"truncated or corrupt parquet: {part.path} ({reason})") from None


def _read_arrow(part: SourceSlice, config: CorpusConfig) -> Iterator[_Row]:
    try:
        for batch in arrow_batches(part.path, part.start, part.stop):
            yield from _read_batch(batch)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"truncated or corrupt Arrow file: {part.path} ({reason})") from None


def _read_dataset(part: SourceSlice, config: CorpusConfig) -> Iterator[_Row]:
    rows = load_dataset(part.path, config.name, config.split).with_format("arrow")
    stop = part.stop or 0
    for start in range(part.start, stop, _ROWS_PER_BATCH):
        table = rows[start : min(start + _ROWS_PER_BATCH, stop)]
        for batch in table.to_batches():
            yield from _read_batch(batch)


def _read_batch(batch: Any) -> Iterator[_Row]:
    names = batch.schema.names
    try:
        columns = [_column_values(column) for column in batch.columns]
    except (ValueError, OverflowError, pa.ArrowException):  # not UTF-8, or the year 10000
        yield from (_read_cells(batch, i) for i in range(batch.num_rows))
        return
    for cells in zip(*columns, strict=True):
        yield dict(zip(names, cells, strict=True))


def _column_values(column: Any) -> list[Any]:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        # Four times as fast as to_pylist.
        return list(column.to_numpy(zero_copy_only=False))
    return values_of(column)


def _read_cells(batch: Any, row: int) -> _Row:
    values: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            (values[name],) = values_of(column.slice(row, 1))
        except UnicodeDecodeError:
            return _Bad(f"not valid UTF-8 in column {name}")
        except (ValueError, OverflowError) as error:
            return _Bad(f"column {name} cannot be read: {error}")
    return values


_READERS: dict[str, Callable[[SourceSlice, CorpusConfig], Iterator[_Row]]] = {
    "parquet": _read_parquet,
    "arrow": _read_arrow,
    "jsonl": _read_lines,
    "json": _read_array,
    "csv": _read_csv,
    "huggingface": _read_dataset,
}
