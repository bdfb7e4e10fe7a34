"""Ingest: files of any supported format to one table of valid rows, and a quarantine of the rest.

Three steps, the first and last on actor pools. Parse: each slice of a file becomes rows and
rejections. Deduplicate: one task compares the hashes of all ids; of rows with one id the first
stays, so that nothing can overwrite another row's score. Lay out: the rows that are left are
written again in parts of equal size, which later stages take as their units of work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.actors import Partition, PartitionWorker, run_partitions, run_task
from engine.config import Config, CorpusConfig, Execution
from engine.corpus.hub_datasets import dataset_identity
from engine.corpus.readers import Record, count_lines, read_slice
from engine.corpus.schema import ParsedRow, extra_as_json, matches, parse
from engine.corpus.slices import SourceSlice, line_offsets, list_slices
from engine.errors import InputError
from engine.example import order_hash
from engine.run_directory import Part, atomic_path, digest, file_sha256, finish_part, total_usage
from engine.stage import StageContext, StageResult

__all__ = ["identity", "run"]

CODE_VERSION = 1
PARTS_AIMED_AT = 256
SMALLEST_PART, LARGEST_PART = 256, 16384
ROWS_PER_WRITE = 4096
_EXCERPT_CHARACTERS = 2000

_ROWS = pa.schema(
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
_PARSED = _ROWS.append(pa.field("id_hash", pa.uint64()))
_REJECTED = pa.schema(
    [
        ("side", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("id", pa.string()),
        ("reason", pa.string()),
        ("row", pa.large_string()),
    ]
)


def identity(config: Config) -> dict[str, Any]:
    """The files by their content, so that a changed file is a changed setting."""
    sides = {"corpus": config.corpus, "target": config.target}
    return {
        name: _files_identity(side, list_slices(side))
        for name, side in sides.items()
        if side is not None
    }


def _files_identity(config: CorpusConfig, slices: Sequence[SourceSlice]) -> dict[str, str]:
    paths = {part.path: part.format for part in slices}
    return {
        _label(path): dataset_identity(path, config.name, config.split)
        if format == "huggingface"
        else file_sha256(Path(path))
        for path, format in paths.items()
    }


def _label(path: str) -> str:
    """The path as people and fingerprints see it: the same in a checkout and in its upload."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def run(context: StageContext) -> StageResult:
    """Read both sides. Raises InputError for a file of no use, or a side without a usable row."""
    root = context.directory
    configs = {"candidates": context.config.corpus}
    if context.config.target is not None:
        configs["targets"] = context.config.target
    sides = _parse(root, {name: (config, list_slices(config)) for name, config in configs.items()})
    kept = _lay_out(root, sides)
    result = StageResult(
        parts={**kept, "quarantine": []},
        columns={
            "candidates/*, targets/*": "id, key (content hash), instruction, input, output, "
            "extra (JSON of all other columns), file, line",
            "quarantine/*": "side, file, line, id, reason, row (JSON, shortened)",
        },
    )
    for side in sides:
        path = root / "quarantine" / f"{side.name}.parquet"
        rejected = run_task(_write_quarantine, side, path)
        result.parts["quarantine"].append(finish_part(root, path, rejected))
        result.counts |= {
            side.name: sum(part.rows for part in kept[side.name]),
            f"{side.name}_read": int(side.usage["rows_read"]),
            f"{side.name}_filtered_out": int(side.usage["filtered_out"]),
            f"{side.name}_quarantined": rejected,
            f"{side.name}_nul_removed": int(side.usage["nul_removed"]),
        }
    return result


@dataclass(frozen=True)
class _Side:
    """One side after parsing: its files in order, and which of their rows repeat an id.

    Attributes:
        files: parsed tables, one per slice; the rejections of each lie beside it.
        parts: their records, in the same order.
        offsets: what to add to the line numbers of each.
        duplicates: file with the rejections of rows that repeat an id.
        dropped: positions of those rows, by number of the parsed file.
    """

    name: str
    config: CorpusConfig
    files: list[Path]
    parts: list[Part]
    offsets: list[int]
    duplicates: Path
    dropped: dict[int, list[int]]

    @property
    def usage(self) -> dict[str, float]:
        return total_usage(self.parts)

    @property
    def kept(self) -> list[int]:
        """Rows that are left of each parsed file."""
        return [part.rows - len(self.dropped.get(i, ())) for i, part in enumerate(self.parts)]


# --- parse ---------------------------------------------------------------------------------------


def _rejections_path(parsed: Path) -> Path:
    return parsed.with_suffix(".rejected.parquet")


def _parse(
    root: Path, sources: Mapping[str, tuple[CorpusConfig, list[SourceSlice]]]
) -> list[_Side]:
    """Parse the slices of all sides on one pool, then look for repeated ids side by side."""
    partitions = {name: _parse_partitions(name, *source) for name, source in sources.items()}
    parts = run_partitions(
        [partition for group in partitions.values() for partition in group],
        root,
        ParseWorker,
        {"configs": {name: config for name, (config, _) in sources.items()}},
        label="read",
        unit="slices",
        execution=Execution(),
    )
    sides = []
    for name, (config, slices) in sources.items():
        own, parts = parts[: len(slices)], parts[len(slices) :]
        files = [root / part.path for part in own]
        offsets = line_offsets(slices, [int(part.usage["lines"]) for part in own])
        duplicates = root / f"duplicates-{name}.parquet"
        dropped = run_task(_find_duplicates, files, offsets, duplicates)
        side = _Side(name, config, files, own, offsets, duplicates, dropped)
        _check(side)
        sides.append(side)
    return sides


def _parse_partitions(
    name: str, config: CorpusConfig, slices: list[SourceSlice]
) -> list[Partition]:
    contents = _files_identity(config, slices)
    partitions = []
    for number, part in enumerate(slices):
        label = _label(part.path)
        place = {**asdict(part), "path": label}
        name_digest = digest(CODE_VERSION, config.model_dump(mode="json"), contents[label], place)
        path = f"parsed-{name}/{number:05d}-{name_digest}.parquet"
        payload = {"side": name, "slice": asdict(part), "label": label}
        partitions.append(Partition(path, 1, payload))
    return partitions


def _check(side: _Side) -> None:
    """Raise InputError for a side without a usable row, or a repeated id where that is to stop."""
    if sum(side.kept) == 0:
        raise InputError(_no_rows(side))
    if side.config.on_bad_row == "stop" and side.dropped:
        number = min(side.dropped)
        (row,) = _rows_at(side.files[number], np.array(side.dropped[number][:1]))
        line = row["line"] + side.offsets[number]
        raise InputError(f"{row['file']}, line {line}: id {row['id']!r} occurs before")


def _no_rows(side: _Side) -> str:
    config = side.config
    path = config.path if isinstance(config.path, str) else ", ".join(config.path)
    read, filtered = int(side.usage["rows_read"]), int(side.usage["filtered_out"])
    if read == filtered:
        return f"no rows in {path} pass the filter `where`: {read} were read"
    tables = (
        _rejected(file, offset) for file, offset in zip(side.files, side.offsets, strict=True)
    )
    first = next(table for table in tables if len(table)).slice(0, 1).to_pylist()[0]
    return (
        f"no usable rows in {path}: all {read - filtered} are bad, the first at "
        f"{first['file']}, line {first['line']}: {first['reason']}"
    )


class ParseWorker(PartitionWorker):
    """Reads one slice into a table of valid rows and a table of rejections."""

    def __init__(self, configs: Mapping[str, CorpusConfig]) -> None:
        self._configs = configs

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        part, config = SourceSlice(**payload["slice"]), self._configs[payload["side"]]
        sorter = _Sorter(config, payload["label"])
        reader = read_slice(part, config)
        num_rows = 0
        with (
            atomic_path(path) as temporary,
            pq.ParquetWriter(temporary, _PARSED) as writer,
        ):
            for record in reader:
                reason = sorter.take(record)
                if reason is not None and config.on_bad_row == "stop":
                    _stop(part, config, sorter.label, record.location.line, reason)
                if len(sorter.rows) == ROWS_PER_WRITE:
                    num_rows += _flush(writer, sorter.rows)
            num_rows += _flush(writer, sorter.rows)
        with atomic_path(_rejections_path(path)) as temporary:
            pq.write_table(pa.Table.from_pylist(sorter.rejections, schema=_REJECTED), temporary)
        return num_rows, {**sorter.usage, "lines": float(reader.num_lines)}


class _Sorter:
    """Sorts the records of a slice into rows and rejections, and counts."""

    def __init__(self, config: CorpusConfig, label: str) -> None:
        self.label = label
        self.rows: list[dict[str, Any]] = []
        self.rejections: list[dict[str, Any]] = []
        self.usage = {"rows_read": 0.0, "filtered_out": 0.0, "nul_removed": 0.0}
        self._where = config.where
        self._columns: dict[str, str] = {str(ours): name for ours, name in config.columns.items()}

    def take(self, record: Record) -> str | None:
        """Sort one record; returns the reason when it is rejected."""
        self.usage["rows_read"] += 1
        values, line = record.values, record.location.line
        if values is not None and not matches(values, self._where):
            self.usage["filtered_out"] += 1
            return None
        parsed = record.problem if values is None else parse(values, self._columns)
        if isinstance(parsed, ParsedRow):
            self.usage["nul_removed"] += parsed.num_nul
            self.rows.append(_row(parsed, self.label, line))
            return None
        rejection = _rejection(parsed, values, self._columns)
        self.rejections.append({**rejection, "file": self.label, "line": line})
        return parsed


def _stop(part: SourceSlice, config: CorpusConfig, label: str, line: int, reason: str) -> None:
    if part.format == "jsonl" and part.start:  # its lines are counted from the start of the slice
        line += count_lines(replace(part, start=0, stop=part.start), config)
    raise InputError(
        f"{label}, line {line}: {reason} (on_bad_row: quarantine would set the row aside and go on)"
    )


def _flush(writer: pq.ParquetWriter, rows: list[dict[str, Any]]) -> int:
    count = len(rows)
    if count:
        writer.write_table(pa.Table.from_pylist(rows, schema=_PARSED))
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
    reason: str | None, values: Mapping[str, Any] | None, columns: Mapping[str, str]
) -> dict[str, Any]:
    row_id = None if values is None else values.get(columns.get("id", "id"))
    text = "" if values is None else extra_as_json(dict(values))[:_EXCERPT_CHARACTERS]
    return {
        "side": "",
        "id": _encodable(row_id) if isinstance(row_id, str | int) else None,
        "reason": reason,
        "row": _encodable(text),
    }


def _encodable(text: str | int) -> str:
    return str(text).encode("utf-8", "backslashreplace").decode()


# --- deduplicate ---------------------------------------------------------------------------------


def _find_duplicates(
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
        for position, row in zip(positions.tolist(), _rows_at(file, positions), strict=True):
            row["line"] += offsets[number]
            first = first_of.setdefault(row["id"], row)
            if first is not row:
                dropped.setdefault(number, []).append(position)
                rejections.append(_duplicate(row, first))
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rejections, schema=_REJECTED), temporary)
    return dropped


def _repeated(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Positions, ascending, of all values that occur more than once."""
    order = np.argsort(hashes, kind="stable")
    same = hashes[order][1:] == hashes[order][:-1]
    repeated = np.zeros(len(hashes), dtype=bool)
    repeated[order[1:][same]] = True
    repeated[order[:-1][same]] = True
    return np.flatnonzero(repeated)


def _rows_at(file: Path, positions: NDArray[np.int64]) -> list[dict[str, Any]]:
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
        "row": json.dumps(values, ensure_ascii=False)[:_EXCERPT_CHARACTERS],
    }


# --- lay out -------------------------------------------------------------------------------------


def _lay_out(root: Path, sides: Sequence[_Side]) -> dict[str, list[Part]]:
    """Write what is left in parts of equal size, all sides on one pool."""
    partitions = {side.name: _lay_out_partitions(side) for side in sides}
    parts = run_partitions(
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


def _lay_out_partitions(side: _Side) -> list[Partition]:
    starts = np.cumsum([0, *side.kept])
    num_rows = int(starts[-1])
    size = _rows_per_part(num_rows)
    contents = digest(
        CODE_VERSION, [p.sha256 for p in side.parts], side.offsets, sorted(side.dropped.items())
    )
    partitions = []
    for number, start in enumerate(range(0, num_rows, size)):
        stop = min(start + size, num_rows)
        sources = [
            {
                "file": str(side.files[i]),
                "offset": side.offsets[i],
                "dropped": side.dropped.get(i, []),
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
        table = pa.concat_tables(pieces).combine_chunks()
        with atomic_path(path) as temporary:
            pq.write_table(table, temporary)
        return len(table), {}


def _surviving(file: str, offset: int, dropped: list[int], start: int, stop: int) -> pa.Table:
    table = pq.read_table(file, columns=_ROWS.names)
    if dropped:
        mask = np.ones(len(table), dtype=bool)
        mask[dropped] = False
        table = table.filter(pa.array(mask))
    table = table.slice(start, stop - start)
    lines = pa.array(table["line"].to_numpy() + offset)
    return table.set_column(table.column_names.index("line"), "line", lines).cast(_ROWS)


# --- quarantine ----------------------------------------------------------------------------------


def _write_quarantine(side: _Side, path: Path) -> int:
    tables = [_rejected(f, o) for f, o in zip(side.files, side.offsets, strict=True)]
    table = pa.concat_tables([*tables, pq.read_table(side.duplicates)])
    table = table.set_column(0, "side", pa.array([side.name] * len(table), type=pa.string()))
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
    return len(table)


def _rejected(file: Path, offset: int) -> pa.Table:
    table = pq.read_table(_rejections_path(file), schema=_REJECTED)
    lines = pa.array(table["line"].to_numpy(zero_copy_only=False) + offset, type=pa.int64())
    return table.set_column(2, "line", lines)
