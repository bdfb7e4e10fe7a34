"""Deduplicate: of the rows with one id the first stays, the others are rejected.

Files that count their rows from 0 have the same ids for other rows. If asked to, a row whose id is
another row's stays, under the id `ID@HASH` with eight digits of its content key.

For new rows of a finished run the rows of the run come first: the same row again is passed over,
another one under its id is rejected.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.artifacts.files import atomic_path, read_table
from engine.corpus.tables import EXCERPT_CHARACTERS, REJECTED

__all__ = ["Repeated", "find_duplicates", "rows_at"]


class Repeated(NamedTuple):
    """What becomes of rows whose id occurs before, by number of their file.

    Attributes:
        dropped: positions of those that go.
        renamed: position and new id of those that stay.
    """

    dropped: dict[int, list[int]]
    renamed: dict[int, dict[int, str]]


def find_duplicates(
    files: Sequence[Path],
    offsets: Sequence[int],
    path: Path,
    known: Sequence[Path] = (),
    rename: bool = False,
) -> Repeated:
    """Of the rows with one id all but the first. Writes those to drop as rejections too.

    `known` are tables of rows that come before all of these; the very same row again is dropped
    without being rejected. Memory: 8 bytes a row for the hashes, and the ids of the rows whose hash
    occurs twice, or that are known.
    """
    hashes = [read_table(file, columns=["id_hash"])["id_hash"].to_numpy() for file in files]
    starts = np.cumsum([0, *(len(h) for h in hashes)])
    first_of = _known_rows(files, known)
    positions_of = {file: _positions(file, first_of) for file in files} if first_of else {}
    in_run = [starts[i] + positions_of[file] for i, file in enumerate(files) if first_of]
    suspects = np.unique(np.concatenate([_repeated(np.concatenate(hashes)), *in_run]))
    dropped: dict[int, list[int]] = {}
    renamed: dict[int, dict[int, str]] = {}
    rejections = []
    for number, file in enumerate(files):
        inside = suspects[(suspects >= starts[number]) & (suspects < starts[number + 1])]
        if not len(inside):
            continue
        positions = inside - starts[number]
        for position, row in zip(positions.tolist(), rows_at(file, positions), strict=True):
            row["line"] += offsets[number]
            first = first_of.setdefault(row["id"], row)
            if rename and row["key"] != first["key"] and not first.get("known"):
                row["id"] = f"{row['id']}@{row['key'][:8]}"
                first = first_of.setdefault(row["id"], row)
                if first is row:
                    renamed.setdefault(number, {})[position] = row["id"]
            if first is not row:
                dropped.setdefault(number, []).append(position)
                if not (first.get("known") and row["key"] == first["key"]):
                    rejections.append(_duplicate(row, first))
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rejections, schema=REJECTED), temporary)
    return Repeated(dropped, renamed)


def _known_rows(files: Sequence[Path], known: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """The known rows whose ids occur in the files, by id."""
    if not known:
        return {}
    ids = pa.concat_tables([read_table(file, columns=["id"]) for file in files])["id"]
    found: dict[str, dict[str, Any]] = {}
    for path in known:
        table = read_table(path, columns=["id", "key", "file", "line"])
        for row in table.filter(pc.is_in(table["id"], ids)).to_pylist():
            found[row["id"]] = {**row, "known": True}
    return found


def _positions(file: Path, ids: Iterable[str]) -> NDArray[np.int64]:
    """Positions, ascending, of the rows of a file with one of these ids."""
    column = read_table(file, columns=["id"])["id"]
    wanted = pa.array(list(ids), type=pa.string())
    return np.flatnonzero(pc.is_in(column, wanted).to_numpy())


def _repeated(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Positions, ascending, of all values that occur more than once."""
    order = np.argsort(hashes, kind="stable")
    same = hashes[order][1:] == hashes[order][:-1]
    repeated = np.zeros(len(hashes), dtype=bool)
    repeated[order[1:][same]] = True
    repeated[order[:-1][same]] = True
    return np.flatnonzero(repeated)


def rows_at(file: Path, positions: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Some rows of a parsed file."""
    rows: list[dict[str, Any]] = read_table(file).take(positions).to_pylist()
    return rows


def _duplicate(row: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    same = "the same row" if row["key"] == first["key"] else "another row"
    values = {name: row[name] for name in ("instruction", "input", "output")}
    return {
        "side": "",
        "file": row["file"],
        "line": row["line"],
        "id": row["id"],
        "reason": f"id occurs before: {same} at {first['file']}, line {first['line']}",
        "row": json.dumps(values, ensure_ascii=False)[:EXCERPT_CHARACTERS],
    }
