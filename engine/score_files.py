"""Files of scores that people have: named columns out of parquet, JSON lines or CSV.

A column of a parquet file keeps its type; those of the other two are text, with null for what is
not there. Paths are local or addresses of object storage.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from engine import storage
from engine.errors import SettingsError

__all__ = ["column_names", "is_there", "read_columns"]


def is_there(path: str) -> bool:
    """Whether there is such a file; one in object storage is taken to be there."""
    return storage.is_remote(path) or Path(path).expanduser().is_file()


def column_names(path: str) -> list[str]:
    """The columns of a file: of JSON lines, those of the first line.

    Raises SettingsError for a file that is not there, is no table, or has another ending.
    """
    with _opened(path) as (file, format):
        return _NAMES[format](file)


def read_columns(path: str, names: Sequence[str]) -> pa.Table:
    """The columns of these names that there are, in their order; raises as `column_names`.

    Memory: those columns, and the whole file while JSON lines or CSV are read.
    """
    with _opened(path) as (file, format):
        return _COLUMNS[format](file, names)


@contextmanager
def _opened(path: str) -> Iterator[tuple[IO[bytes], str]]:
    """The file and its format, with whatever is wrong with it told in a sentence."""
    format = Path(path).suffix.lower()
    if format not in _NAMES:
        known = ", ".join(_NAMES)
        raise SettingsError(f"teacher.given.path: {path} does not end in one of {known}")
    if not is_there(path):
        raise SettingsError(f"teacher.given.path: no such file: {path}")
    try:
        file = storage.open_input(path) if storage.is_remote(path) else _local(path)
        with file:
            yield file, format
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's are among them
        reason = " ".join(str(error).split())
        raise SettingsError(
            f"teacher.given.path: {path} is no readable {format} file: {reason}"
        ) from None


def _local(path: str) -> io.BufferedReader:
    return Path(path).expanduser().open("rb")


# --- formats -------------------------------------------------------------------------------------


def _parquet_names(file: IO[bytes]) -> list[str]:
    return list(pq.read_schema(file).names)


def _parquet_columns(file: IO[bytes], names: Sequence[str]) -> pa.Table:
    content = pq.ParquetFile(file)
    there = [name for name in names if name in content.schema_arrow.names]
    return content.read(columns=there)


def _csv_names(file: IO[bytes]) -> list[str]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    names = next(csv.reader(text), [])
    text.detach()  # who lets go of it closes the file
    return names


def _csv_columns(file: IO[bytes], names: Sequence[str]) -> pa.Table:
    header = _csv_names(file)
    there = [name for name in names if name in header]
    file.seek(0)
    return pyarrow.csv.read_csv(
        file,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        # an id 007 is not the number 7, so nothing is guessed
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=there, column_types=dict.fromkeys(there, pa.string())
        ),
    )


def _lines(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        row = json.loads(line.decode("utf-8-sig"))
        if not isinstance(row, dict):
            raise ValueError(f"line {number} holds no JSON object")
        yield row


def _jsonl_names(file: IO[bytes]) -> list[str]:
    return list(next(_lines(file), {}))


def _jsonl_columns(file: IO[bytes], names: Sequence[str]) -> pa.Table:
    columns: dict[str, list[str | None]] = {name: [] for name in names}
    seen: set[str] = set()
    for row in _lines(file):
        seen.update(row)
        for name, values in columns.items():
            value = row.get(name)
            is_text = value is None or isinstance(value, str)
            values.append(value if is_text else json.dumps(value))
    return pa.table({n: pa.array(v, pa.string()) for n, v in columns.items() if n in seen})


_NAMES: dict[str, Callable[[IO[bytes]], list[str]]] = {
    ".parquet": _parquet_names,
    ".jsonl": _jsonl_names,
    ".csv": _csv_names,
}
_COLUMNS: dict[str, Callable[[IO[bytes], Sequence[str]], pa.Table]] = {
    ".parquet": _parquet_columns,
    ".jsonl": _jsonl_columns,
    ".csv": _csv_columns,
}
