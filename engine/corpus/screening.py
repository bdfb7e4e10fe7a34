"""Screening: which candidates repeat protected rows or each other, before anything is paid for.

Four steps: an index of each protected set; one pass over the candidates on an actor pool, which
notes what each row has in common with the indexes and what it is compared with other rows by; then
one task judges the leaks, and one groups the duplicates. Rows that repeat an id are out of it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from safetensors.numpy import save_file

from engine.artifacts.files import atomic_path, digest, read_table
from engine.artifacts.parts import Part, finish_part, finished_part
from engine.config import Config, DuplicatesConfig, Execution, LeakConfig
from engine.corpus.leaks import Leaks, ProtectedSet, load_arrays, write_leaks
from engine.corpus.near_duplicates import group_rows, write_duplicates
from engine.corpus.protected import SHINGLE, Matcher, ProtectedIndex, build_index
from engine.corpus.tables import Side
from engine.corpus.word_hashes import COLUMNS, Words, prompts, texts
from engine.errors import InputError, LeakError, SettingsError
from engine.kernels.words import hash_shingles
from engine.runtime.executor import Executor, Partition, PartitionRunner, PartitionWorker

__all__ = ["Screening", "screen"]

CODE_VERSION = 1
FEW = 20_000  # rows that one task has looked at before a pool of actors has started


@dataclass
class Screening:
    """What was found.

    Attributes:
        dropped: positions of candidates that are left out, by number of the parsed file; those
            that repeat an id among them.
        parts: leaks.parquet and duplicates.parquet, as far as they were looked for.
        counts: for the manifest: candidates_leaked, candidates_duplicates or, where
            they stay, candidates_repeated; leaks by set and kind.
        told: a sentence for each set that candidates leak into.
    """

    dropped: dict[int, list[int]]
    parts: dict[str, list[Part]] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)


def screen(
    executor: Executor,
    root: Path,
    config: Config,
    candidates: Side,
    protecting: Mapping[str, Sequence[Side]],
) -> Screening:
    """Compare the candidates with protected sets, by name, and with each other.

    Writes leaks.parquet and duplicates.parquet below `root`. Raises LeakError for a leak into a
    set whose leaks are to fail, InputError where no candidate is left, and SettingsError for a
    score_column that no row has.
    """
    result = Screening(dict(candidates.dropped))
    if not protecting and config.duplicates.drop == "keep":
        return result
    sets = [_set(executor, root, config.on_leak, *named) for named in protecting.items()]
    matched = _match(executor, root, config, candidates, sets)
    if sets:
        _judge(executor, root, config, candidates, sets, matched, result)
    if config.duplicates.drop == "keep":
        _tell_repeated(executor, matched, result)
    else:
        path = root / "duplicates.parquet"
        found = executor.call(_group, candidates, matched, result.dropped, config.duplicates, path)
        _leave_out(result, found)
        num_rows = sum(map(len, found.values()))
        result.parts["duplicates"] = [finish_part(root, path, num_rows)]
        result.counts["candidates_duplicates"] = num_rows
    if sum(map(len, result.dropped.values())) == sum(part.rows for part in candidates.parts):
        raise InputError(
            f"no candidate is left: all of {candidates.config.path} repeat rows of "
            f"{' or '.join(protecting)}: is it the right corpus? on_leak: warn keeps them"
        )
    return result


def _leave_out(result: Screening, found: Mapping[int, Sequence[int]]) -> None:
    for number, positions in found.items():
        before = result.dropped.get(number, [])
        result.dropped[number] = sorted({*before, *positions})


# --- leaks ---------------------------------------------------------------------------------------


def _set(
    executor: Executor, root: Path, settings: LeakConfig, name: str, sides: Sequence[Side]
) -> ProtectedSet:
    """A protected set with its index."""
    files = [file for side in sides for file in side.files]
    contents = [part.sha256 for side in sides for part in side.parts]
    path = root / "protected" / f"{name}-{digest(CODE_VERSION, contents)}.safetensors"
    if finished_part(path) is None:
        finish_part(root, path, executor.call(build_index, files, path))
    action = settings.targets if name == "targets" else settings.protected
    return ProtectedSet(
        name=name,
        files=files,
        offsets=[offset for side in sides for offset in side.offsets],
        index=path,
        drops=settings.kinds if action == "drop" else (),
    )


def _judge(
    executor: Executor,
    root: Path,
    config: Config,
    candidates: Side,
    sets: Sequence[ProtectedSet],
    matched: Sequence[Path],
    result: Screening,
) -> None:
    path = root / "leaks.parquet"
    leaks = executor.call(
        write_leaks, candidates.files, candidates.offsets, matched, candidates.dropped, sets, path
    )
    _leave_out(result, leaks.dropped)
    told = sum(sum(kinds.values()) for kinds in leaks.counts.values())
    result.parts["leaks"] = [finish_part(root, path, told)]
    result.counts["leaks"] = leaks.counts
    result.counts["candidates_leaked"] = sum(map(len, leaks.dropped.values()))
    for name in leaks.counts:
        action = config.on_leak.targets if name == "targets" else config.on_leak.protected
        result.told.append(_told(name, leaks, action, config.on_leak.kinds))


def _told(name: str, leaks: Leaks, action: str, kinds: Sequence[str]) -> str:
    """What leaks into a set, in a sentence; LeakError where that is to fail."""
    counts = {kind: n for kind, n in leaks.counts[name].items() if n}
    whose, setting = (
        ("targets", "on_leak.targets")
        if name == "targets"
        else (f"rows of {name}", "on_leak.protected")
    )
    acted = [kind for kind in kinds if kind in counts]
    kind = acted[0] if acted else next(iter(counts))
    listed = ", ".join(f"{n:,} {kind}" for kind, n in counts.items())
    text = (
        f"leak: {sum(counts.values()):,} candidates repeat {whose} ({listed}), the first {kind} "
        f"one at {leaks.first[name][kind]}"
    )
    if acted and action == "fail":
        raise LeakError(
            f"{text}: leave them out with {setting}: drop, or keep them with {setting}: warn",
            {"leaks": leaks.counts},
        )
    verb = f"the {' and '.join(acted)} are left out" if acted and action == "drop" else "all stay"
    return f"{text}; {verb} ({setting}: {action}); 1-corpus/leaks.parquet has both texts"


# --- duplicates ----------------------------------------------------------------------------------


def _tell_repeated(executor: Executor, matched: Sequence[Path], result: Screening) -> None:
    """Where the rows are looked at for leaks anyway, say how many are said twice."""
    repeated = executor.call(_num_repeated, matched, result.dropped)
    result.counts["candidates_repeated"] = repeated
    if repeated:
        result.told.append(
            f"duplicates: {repeated:,} candidates have the words of an earlier one, and stay; "
            "duplicates: exact leaves them out, near those as well that differ in a few words"
        )


def _num_repeated(matched: Sequence[Path], left_out: Mapping[int, Sequence[int]]) -> int:
    kept = []
    for number, file in enumerate(matched):
        keys = load_arrays(file)["keys"]
        keys = np.delete(keys, np.array(left_out.get(number, []), dtype=np.int64))
        kept.append(keys[keys != 0])
    keys = np.concatenate(kept)
    return len(keys) - len(np.unique(keys))


def _group(
    candidates: Side,
    matched: Sequence[Path],
    left_out: Mapping[int, Sequence[int]],
    settings: DuplicatesConfig,
    path: Path,
) -> dict[int, list[int]]:
    """Group the duplicates and write them; positions that are left out, by number of the file."""
    arrays = [load_arrays(file) for file in matched]
    starts = np.cumsum([0, *(len(part["keys"]) for part in arrays)]).astype(np.int64)
    gone = np.zeros(starts[-1], dtype=bool)
    for number, positions in left_out.items():
        gone[starts[number] + np.array(positions, dtype=np.int64)] = True
    preference = np.concatenate([part["preference"] for part in arrays])
    if settings.stays == "best" and np.isnan(preference[~gone]).all():
        raise SettingsError(
            f"duplicates.score_column: no candidate has a number in {settings.score_column!r}: "
            "name the column that says which row is best, or set duplicates.stays to first"
        )
    near = settings.drop == "near"
    sets = [(part["members"], part["member_starts"]) for part in arrays] if near else None
    keys = np.concatenate([part["keys"] for part in arrays])
    del arrays
    group = group_rows(keys, preference, sets, gone, settings)
    write_duplicates(group, candidates.files, candidates.offsets, starts, path)
    file_of = np.searchsorted(starts, group.rows, side="right") - 1
    return {
        int(number): (group.rows[file_of == number] - starts[number]).tolist()
        for number in np.unique(file_of)
    }


# --- the pass over the candidates -----------------------------------------------------------------


def _match(
    executor: Executor,
    root: Path,
    config: Config,
    candidates: Side,
    sets: Sequence[ProtectedSet],
) -> list[Path]:
    """Look at each parsed file; returns what was noted, file by file."""
    settings = config.duplicates
    arguments = {
        "indexes": {one.name: str(one.index) for one in sets},
        "near": config.on_leak.near,
        "duplicates": settings,
    }
    by = digest(
        CODE_VERSION,
        [one.index.name for one in sets],
        config.on_leak.near,
        settings.model_dump(mode="json"),
    )
    partitions = [
        Partition(
            f"screened/{number:05d}-{digest(by, part.sha256)}.safetensors",
            part.rows,
            {"file": str(file)},
        )
        for number, (file, part) in enumerate(zip(candidates.files, candidates.parts, strict=True))
    ]
    if sum(partition.units for partition in partitions) <= FEW:
        executor.call(_match_here, root, partitions, arguments)
    else:
        executor.map(
            partitions,
            root,
            ScreenWorker,
            arguments,
            label="compare",
            unit="rows",
            execution=Execution(),
        )
    return [root / partition.path for partition in partitions]


def _match_here(root: Path, partitions: Sequence[Partition], arguments: Mapping[str, Any]) -> None:
    """Do all partitions in one task."""
    runner = PartitionRunner(ScreenWorker(**arguments), root, secrets.token_hex(4))
    for partition in partitions:
        runner.do(partition)


class ScreenWorker(PartitionWorker):
    """Notes what the rows of a parsed file have in common with protected ones, and their words."""

    def __init__(
        self, indexes: Mapping[str, str], near: float | None, duplicates: DuplicatesConfig
    ) -> None:
        self._matchers = {
            name: Matcher(ProtectedIndex.load(Path(path)), near) for name, path in indexes.items()
        }
        self._duplicates = duplicates

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        columns = [*COLUMNS, *(["extra"] if self._duplicates.stays == "best" else [])]
        table = read_table(Path(payload["file"]), columns=columns)
        text = Words.of(texts(table))
        arrays: dict[str, NDArray[Any]] = {}
        if self._matchers:
            prompt = Words.of(prompts(table))
            for name, matcher in self._matchers.items():
                arrays |= matcher.match(prompt, text).arrays(name)
        arrays |= {"keys": text.keys, "preference": self._preference(table)}
        if self._duplicates.drop == "near":
            members, starts = hash_shingles(text.hashes, text.starts, SHINGLE)
            arrays |= {"members": members, "member_starts": starts}
        with atomic_path(path) as temporary:
            save_file(arrays, temporary)
        return len(table), {}

    def _preference(self, table: pa.Table) -> NDArray[np.float64]:
        """(rows,) which row of a group stays: the one with the highest number."""
        if self._duplicates.stays == "longest":
            return np.asarray(pc.utf8_length(texts(table)), dtype=np.float64)
        if self._duplicates.stays == "first":
            return np.zeros(len(table))
        column = self._duplicates.score_column
        values = (json.loads(text).get(column) for text in table["extra"].to_pylist())
        return np.array([_number(value) for value in values], dtype=np.float64)


def _number(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else float("nan")
