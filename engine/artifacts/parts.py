"""Parts of an artifact: data files with a record beside them.

The name of a part is a digest of all that it is computed from, and its record is written after it:
a part that has its record is finished, wherever and whenever it was made. So a changed setting
redoes only the parts that it changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from engine import storage
from engine.artifacts.files import file_sha256, read_json, write_json

__all__ = ["Part", "finish_part", "finished_part", "record_path", "total_usage"]


@dataclass(frozen=True)
class Part:
    """One finished data file of an artifact.

    Attributes:
        path: relative to the artifact's folder.
        rows: rows (or vectors) in it.
        sha256: of the file.
        usage: what making it cost and met: seconds, calls, tokens, truncated, ...
        left_out: positions of rows in it that crash a worker, and have no answer.
    """

    path: str
    rows: int
    sha256: str
    usage: dict[str, float] = field(default_factory=dict)
    left_out: list[int] = field(default_factory=list)


def record_path(data_path: Path) -> Path:
    """Where the record of a data file lies: same folder, same name, `.json` added."""
    return data_path.with_name(data_path.name + ".json")


def finish_part(
    root: Path,
    data_path: Path,
    rows: int,
    usage: Mapping[str, float] | None = None,
    left_out: Sequence[int] = (),
) -> Part:
    """Declare a data file finished by writing its record; returns the part."""
    part = Part(
        path=data_path.relative_to(root).as_posix(),
        rows=rows,
        sha256=file_sha256(data_path),
        usage=dict(usage or {}),
        left_out=list(left_out),
    )
    write_json(record_path(data_path), asdict(part))
    return part


def finished_part(data_path: Path) -> Part | None:
    """The part, if this file has been finished; a record of another file is none of it."""
    record = record_path(data_path)
    if not storage.exists(record):
        return None
    # in object storage the record is sent after the file, and they are deleted together
    is_there = storage.uri_of(data_path) is not None or data_path.is_file()
    if not is_there:
        return None
    part = Part(**read_json(record))
    parts = PurePosixPath(part.path).parts
    return part if ".." not in parts and data_path.parts[-len(parts) :] == parts else None


def total_usage(parts: Sequence[Part]) -> dict[str, float]:
    """Sum of what the parts cost, whichever run made them."""
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.usage.items():
            total[name] = total.get(name, 0) + value
    return total
