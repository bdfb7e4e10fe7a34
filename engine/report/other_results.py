"""Tables of results files that the page is to show beside its own: evaluations, benchmarks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import InputError, SettingsError

__all__ = ["MAX_ROWS", "ResultTable", "read_results"]

MAX_ROWS = 200  # a page is for people


@dataclass(frozen=True)
class ResultTable:
    """One table of a results file.

    Attributes:
        name: of what was measured.
        origin: the file, and the day and the machine where it says so.
        columns, rows: texts as they are shown; a value that a row lacks is "".
        left_out: rows beyond `MAX_ROWS`.
    """

    name: str
    origin: str
    columns: list[str]
    rows: list[list[str]]
    left_out: int


def read_results(paths: Sequence[str]) -> list[ResultTable]:
    """The files' tables: each JSON file holds {name, rows: [{column: value}]}, perhaps provenance.

    A row that holds rows of its own (an evaluation of several data sets) gives a table for each.
    Raises SettingsError for a file that is not there, InputError for one of another form.
    """
    return [table for path in paths for table in _read(path)]


def _read(path: str) -> Iterator[ResultTable]:
    file = Path(path)
    if not file.is_file():
        raise SettingsError(f"report.results: no such file: {path}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        name, rows = str(content["name"]), list(content["rows"])
        assert all(isinstance(row, Mapping) for row in rows)
    except (ValueError, KeyError, TypeError, AssertionError, UnicodeDecodeError):
        raise InputError(
            f"report.results: {path} is not a results file: expected JSON with a name and rows"
        ) from None
    about = content.get("provenance")
    said = [file.name]
    if isinstance(about, Mapping):
        said += [str(about[key]) for key in ("date", "cpu") if about.get(key)]
    inner = [row for row in rows if _is_table(row.get("rows"))]
    plain = [row for row in rows if not _is_table(row.get("rows"))]
    if plain:
        yield _table(name, ", ".join(said), plain)
    for row in inner:
        title = f"{name}, {row['dataset']}" if "dataset" in row else name
        yield _table(title, ", ".join(said), row["rows"])


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _table(name: str, origin: str, rows: Sequence[Mapping[str, Any]]) -> ResultTable:
    flat = [dict(_flattened(row)) for row in rows[:MAX_ROWS]]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    texts = [[_text(row.get(column)) for column in columns] for row in flat]
    return ResultTable(name, origin, columns, texts, max(0, len(rows) - MAX_ROWS))


def _flattened(row: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{before}{name} ")
        else:
            yield before + str(name), value


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, list):
        return " to ".join(_text(part) for part in value)
    return str(value)
