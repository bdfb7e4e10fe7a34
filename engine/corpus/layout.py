"""Lay out: the rows that are left, in parts of equal size, which later stages work on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.artifacts.files import atomic_path, digest, read_table
from engine.artifacts.parts import Part
from engine.artifacts.typed_columns import source_types, with_source_types
from engine.config import Execution
from engine.corpus.tables import ROWS, Side
from engine.runtime.executor import Executor, Partition, PartitionWorker

__all__ = ["lay_out"]

CODE_VERSION = 2
PARTS_AIMED_AT = 256
SMALLEST_PART, LARGEST_PART = 256, 16384


def lay_out(executor: Executor, root: Path, sides: Sequence[Side]) -> dict[str, list[Part]]:
    """Write what is left in parts of equal size, all sides on one pool."""
    partitions = {side.name: _lay_out_partitions(side) for side in sides}
    parts = executor.map(
        [partition for group in partitions.values() for partition in group],
        root,
        LayOutWorker,
        {},
        label="lay out",
        unit="rows",
        execution=Execution(),
    )
    kept = {}
    for name, group in partitions.items():
        kept[name], parts = parts[: len(group)], parts[len(group) :]
    return kept


def _lay_out_partitions(side: Side) -> list[Partition]:
    starts = np.cumsum([0, *side.kept])
    num_rows = int(starts[-1])
    size = _rows_per_part(num_rows)
    contents = digest(
        CODE_VERSION,
        [p.sha256 for p in side.parts],
        side.offsets,
        sorted(side.dropped.items()),
        sorted((i, sorted(ids.items())) for i, ids in side.renamed.items()),
    )
    partitions = []
    for number, start in enumerate(range(0, num_rows, size)):
        stop = min(start + size, num_rows)
        sources = [
            {
                "file": str(side.files[i]),
                "offset": side.offsets[i],
                "dropped": side.dropped.get(i, []),
                "renamed": sorted(side.renamed.get(i, {}).items()),
                "start": max(start - int(starts[i]), 0),
                "stop": min(stop - int(starts[i]), side.kept[i]),
            }
            for i in np.flatnonzero((starts[:-1] < stop) & (starts[1:] > start)).tolist()
        ]
        path = f"{side.name}/part-{number:05d}-{digest(contents, start, stop)}.parquet"
        partitions.append(Partition(path, stop - start, {"sources": sources}))
    return partitions


def _rows_per_part(num_rows: int) -> int:
    """A power of two that makes about PARTS_AIMED_AT parts; depends on the data alone."""
    wanted = max(1, num_rows // PARTS_AIMED_AT)
    return min(max(1 << (wanted - 1).bit_length(), SMALLEST_PART), LARGEST_PART)


class LayOutWorker(PartitionWorker):
    """Writes one part of the final table from the parsed files that it spans."""

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        pieces = [_surviving(**source) for source in payload["sources"]]
        types = source_types([piece.schema for piece in pieces])
        table = pa.concat_tables([piece.replace_schema_metadata(None) for piece in pieces])
        table = table.combine_chunks().cast(with_source_types(ROWS, types))
        with atomic_path(path) as temporary:
            pq.write_table(table, temporary)
        return len(table), {}


def _surviving(
    file: str,
    offset: int,
    dropped: list[int],
    renamed: Sequence[tuple[int, str]],
    start: int,
    stop: int,
) -> pa.Table:
    table = read_table(Path(file), columns=ROWS.names)
    if renamed:
        ids = table["id"].to_pylist()
        for position, name in renamed:
            ids[position] = name
        table = table.set_column(0, "id", pa.array(ids, pa.string()))
    if dropped:
        mask = np.ones(len(table), dtype=bool)
        mask[dropped] = False
        table = table.filter(pa.array(mask))
    table = table.slice(start, stop - start)
    lines = pa.array(table["line"].to_numpy() + offset)
    return table.set_column(table.column_names.index("line"), "line", lines)
