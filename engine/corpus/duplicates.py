"""Deduplicate: of the rows with one id the first stays, the others are rejected."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.corpus.tables import EXCERPT_CHARACTERS, REJECTED
from engine.run_directory import atomic_path

__all__ = ["find_duplicates", "rows_at"]


def find_duplicates(
    files: Sequence[Path], offsets: Sequence[int], path: Path
) -> dict[int, list[int]]:
    """Rows to drop, by file: all but the first of each id. Writes them as rejections too.

    Memory: 8 bytes a row for the hashes, and the ids of the rows whose hash occurs twice.
    """
    hashes = [pq.read_table(file, columns=["id_hash"])["id_hash"].to_numpy() for file in files]
    starts = np.cumsum([0, *(len(h) for h in hashes)])
    suspects = _repeated(np.concatenate(hashes))
    first_of: dict[str, dict[str, Any]] = {}
    dropped: dict[int, list[int]] = {}
    rejections = []
    for number, file in enumerate(files):
        inside = suspects[(suspects >= starts[number]) & (suspects < starts[number + 1])]
        if not len(inside):
            continue
        positions = inside - starts[number]
        for position, row in zip(positions.tolist(), rows_at(file, positions), strict=True):
            row["line"] += offsets[number]
            first = first_of.setdefault(row["id"], row)
            if first is not row:
                dropped.setdefault(number, []).append(position)
                rejections.append(_duplicate(row, first))
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rejections, schema=REJECTED), temporary)
    return dropped


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
    rows: list[dict[str, Any]] = pq.read_table(file).take(positions).to_pylist()
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
