"""The tables between the steps of ingest, and what is known of one side after parsing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from engine.artifacts.files import read_table
from engine.artifacts.parts import Part, total_usage
from engine.config import CorpusConfig

__all__ = [
    "EXCERPT_CHARACTERS",
    "PARSED",
    "REJECTED",
    "ROWS",
    "Side",
    "read_rejected",
    "rejections_path",
]

EXCERPT_CHARACTERS = 2000

ROWS = pa.schema(
    [
        ("id", pa.string()),
        ("key", pa.string()),
        ("instruction", pa.large_string()),
        ("input", pa.large_string()),
        ("output", pa.large_string()),
        ("extra", pa.large_string()),
        ("file", pa.string()),
        ("line", pa.int64()),
    ]
)
PARSED = ROWS.append(pa.field("id_hash", pa.uint64()))
REJECTED = pa.schema(
    [
        ("side", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("id", pa.string()),
        ("reason", pa.string()),
        ("row", pa.large_string()),
    ]
)


@dataclass(frozen=True)
class Side:
    """One side after parsing: its files in order, and which of their rows repeat an id.

    Attributes:
        files: parsed tables, one per slice; the rejections of each lie beside it.
        parts: their records, in the same order.
        offsets: what to add to the line numbers of each.
        duplicates: file with the rejections of rows that repeat an id.
        dropped: positions of those rows, by number of the parsed file.
        renamed: new ids of rows whose id another row has, by position, likewise.
    """

    name: str
    config: CorpusConfig
    files: list[Path]
    parts: list[Part]
    offsets: list[int]
    duplicates: Path
    dropped: dict[int, list[int]]
    renamed: dict[int, dict[int, str]]

    @property
    def usage(self) -> dict[str, float]:
        return total_usage(self.parts)

    @property
    def kept(self) -> list[int]:
        """Rows that are left of each parsed file."""
        return [part.rows - len(self.dropped.get(i, ())) for i, part in enumerate(self.parts)]


def rejections_path(parsed: Path) -> Path:
    """Where the rejections of a parsed file lie."""
    return parsed.with_suffix(".rejected.parquet")


def read_rejected(file: Path, offset: int) -> pa.Table:
    """The rejections of a parsed file, its lines counted in the source file."""
    table = read_table(rejections_path(file), schema=REJECTED)
    lines = pa.array(table["line"].to_numpy(zero_copy_only=False) + offset, type=pa.int64())
    return table.set_column(2, "line", lines)
