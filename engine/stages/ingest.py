"""Ingest: files of any supported format to one table of valid rows, and a quarantine of the rest.

Four steps. Parse, on an actor pool: each slice of a file becomes rows and rejections. Deduplicate:
one task compares the hashes of all ids; of rows with one id the first stays, so that nothing can
overwrite another row's score. Screen, on a pool: candidates that repeat targets, protected rows or
each other are told or left out. Lay out, on a pool: the rows that are left are written again in
parts of equal size, which later stages take as their units of work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine import storage
from engine.artifacts.files import atomic_path, digest, file_sha256, read_table
from engine.artifacts.parts import finish_part, total_usage
from engine.config import Config, CorpusConfig, Execution
from engine.config.run import TEST
from engine.corpus.duplicates import find_duplicates, rows_at
from engine.corpus.hub_datasets import dataset_identity
from engine.corpus.layout import lay_out
from engine.corpus.losses import media_of, no_rows_pass, refuse_mostly_bad, tell
from engine.corpus.parse_worker import ParseWorker
from engine.corpus.screening import Screening, screen
from engine.corpus.slices import SourceSlice, line_offsets, list_slices
from engine.corpus.tables import Side, read_rejected
from engine.errors import InputError
from engine.runtime.executor import Executor, Partition
from engine.runtime.stage import Stage, StageContext, StageResult
from engine.terminal.progress import say

__all__ = ["STAGE", "identity", "read_and_screen", "run"]

CODE_VERSION = 2


def identity(config: Config) -> dict[str, Any]:
    """The files by their content, so that a changed file is a changed setting."""
    sides = {"corpus": config.corpus, "target": config.target, "owned": config.owned}
    return {
        name: _files_identity(side, list_slices(side))
        for name, side in {**sides, **config.protected}.items()
        if side is not None
    }


def _files_identity(config: CorpusConfig, slices: Sequence[SourceSlice]) -> dict[str, str]:
    paths = {part.path: part.format for part in slices}
    return {
        _label(path): dataset_identity(path, config.name, config.split)
        if format == "huggingface"
        else (storage.sha256(path) if storage.is_remote(path) else file_sha256(Path(path)))
        for path, format in paths.items()
    }


def _label(path: str) -> str:
    """The path as people and fingerprints see it: the same in a checkout and in its upload."""
    if storage.is_remote(path):
        return path
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def run(context: StageContext) -> StageResult:
    """Read all sides. Raises InputError for a file of no use, or a side without a usable row."""
    root, known = context.directory, context.inputs.get("known")
    parsed, screened = read_and_screen(context)
    for sentence in screened.told:
        say(sentence, "leak")
    protected = context.config.protected
    sides = [side for name, side in parsed.items() if name not in protected]
    left = [replace(parsed["candidates"], dropped=screened.dropped), *sides[1:]]
    kept = lay_out(context.executor, root, left)
    result = StageResult(
        parts={**kept, "quarantine": [], **screened.parts},
        columns={
            "candidates/*, targets/*, owned/*": "id, key (content hash), instruction, input, "
            "output, extra (JSON of all other columns), file, line",
            "quarantine/*": "side, file, line, id, reason, row (JSON, shortened)",
            "leaks.parquet": "candidates that repeat protected rows: both places and texts, kind, "
            "score (share of the protected row's 13-grams, or Jaccard similarity), whether dropped",
            "duplicates.parquet": "candidates that were left out, and which stay in their place",
        },
    )
    made = [part for side in sides for part in (*side.parts, *kept[side.name])]
    result.counts |= screened.counts
    total = total_usage(made)
    result.usage = {name: total[name] for name in ("seconds", "cpu_seconds")}
    for side in sides:
        path = root / "quarantine" / f"{side.name}.parquet"
        rejected = context.executor.call(_write_quarantine, side, path)
        result.parts["quarantine"].append(finish_part(root, path, rejected))
        num_dropped = sum(map(len, side.dropped.values()))
        result.counts |= {
            side.name: sum(part.rows for part in kept[side.name]),
            f"{side.name}_read": int(side.usage["rows_read"]),
            f"{side.name}_filtered_out": int(side.usage["filtered_out"]),
            f"{side.name}_quarantined": rejected,
            f"{side.name}_nul_removed": int(side.usage["nul_removed"]),
        }
        media, unread = media_of(side), tell(side)
        result.counts |= {f"{side.name}_media": media} if media else {}
        result.counts |= {f"{side.name}_files_unread": unread} if unread else {}
        if known is not None:
            repeated = pq.read_metadata(storage.fetch(side.duplicates)).num_rows
            result.counts[f"{side.name}_known"] = num_dropped - repeated
    for name in protected:
        side = parsed[name]
        path = root / "quarantine" / f"{name}.parquet"
        rejected = context.executor.call(_write_quarantine, side, path)
        result.parts["quarantine"].append(finish_part(root, path, rejected))
        if rejected:
            say(
                f"{rejected:,} rows of {side.config.path} cannot be read and are not protected: "
                f"1-corpus/quarantine/{name}.parquet says why"
            )
    return result


def read_and_screen(context: StageContext) -> tuple[dict[str, Side], Screening]:
    """Parse all sides and the protected sets, by name, and compare the candidates with them.

    Raises what `run` does; writes below the stage's folder.
    """
    configs = {"candidates": context.config.corpus}
    if context.config.target is not None:
        configs["targets"] = context.config.target
    if context.config.owned is not None:
        configs["owned"] = context.config.owned
    configs |= context.config.protected
    sources = {name: (config, list_slices(config)) for name, config in configs.items()}
    known = context.inputs.get("known")  # the corpus of the run that these are new rows for
    before = [] if known is None else [known.directory / p.path for p in known.parts("candidates")]
    root, executor = context.directory, context.executor
    parsed = {side.name: side for side in _parse(executor, root, sources, before)}
    protecting = _protecting(parsed)
    return parsed, screen(executor, root, context.config, parsed["candidates"], protecting)


def _protecting(parsed: Mapping[str, Side]) -> dict[str, list[Side]]:
    """What the candidates are compared with, by the names that leaks go by."""
    named = {"targets": ["targets"], TEST: [TEST]}
    named["protect"] = [name for name in parsed if name.startswith("protect-")]
    found = {name: [parsed[n] for n in names if n in parsed] for name, names in named.items()}
    return {name: sides for name, sides in found.items() if sides}


def _parse(
    executor: Executor,
    root: Path,
    sources: Mapping[str, tuple[CorpusConfig, list[SourceSlice]]],
    known: Sequence[Path],
) -> list[Side]:
    """Parse the slices of all sides on one pool, then look for repeated ids side by side.

    Candidates with an id of the tables `known` are dropped.
    """
    partitions = {name: _parse_partitions(name, *source) for name, source in sources.items()}
    parts = executor.map(
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
        before = known if name == "candidates" else ()
        rename = config.equal_ids == "rename"
        repeated = executor.call(find_duplicates, files, offsets, duplicates, before, rename)
        side = Side(name, config, files, own, offsets, duplicates, *repeated)
        _check(side)
        refuse_mostly_bad(side)
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


def _check(side: Side) -> None:
    """Raise InputError for a side without a usable row, or a repeated id where that is to stop."""
    if sum(side.kept) == 0:
        raise InputError(_no_rows(side))
    if side.config.on_bad_row == "stop" and side.dropped:
        number = min(side.dropped)
        (row,) = rows_at(side.files[number], np.array(side.dropped[number][:1]))
        line = row["line"] + side.offsets[number]
        raise InputError(f"{row['file']}, line {line}: id {row['id']!r} occurs before")


def _no_rows(side: Side) -> str:
    config = side.config
    path = config.path if isinstance(config.path, str) else ", ".join(config.path)
    read, filtered = int(side.usage["rows_read"]), int(side.usage["filtered_out"])
    if read == filtered:
        return no_rows_pass(side)
    tables = [
        read_rejected(file, offset) for file, offset in zip(side.files, side.offsets, strict=True)
    ]
    if not any(map(len, tables)):
        return f"nothing new in {path}: all {read - filtered} rows are in the run already"
    first = next(table for table in tables if len(table)).slice(0, 1).to_pylist()[0]
    return (
        f"no usable rows in {path}: all {read - filtered} are bad, the first at "
        f"{first['file']}, line {first['line']}: {first['reason']}"
    )


def _write_quarantine(side: Side, path: Path) -> int:
    tables = [read_rejected(f, o) for f, o in zip(side.files, side.offsets, strict=True)]
    table = pa.concat_tables([*tables, read_table(side.duplicates)])
    table = table.set_column(0, "side", pa.array([side.name] * len(table), type=pa.string()))
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
    return len(table)


STAGE = Stage(
    name="ingest",
    directory="1-corpus",
    run=run,
    settings=("corpus", "target", "owned", "protect", "on_leak", "duplicates"),
    reads=(),
    version=2,
    identity=identity,
)
