"""Files of a run, whole or not at all, wherever the run lies.

All are written by `atomic_path` (or `write_json`, `save_array`) and read by `read_json`,
`load_array`, `read_table`, `map_table` or `storage.fetch`: a run in object storage is sent and
brought there. Nothing is pickled.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError

from engine import storage
from engine.errors import StorageError

__all__ = [
    "atomic_path",
    "digest",
    "disk_problems_told",
    "file_sha256",
    "load_array",
    "map_table",
    "read_json",
    "read_table",
    "save_array",
    "shown",
    "write_json",
]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block succeeds.

    The name keeps the suffix, since some writers choose the format by it. After a crash at any
    moment `path` is either absent, or the old file, or the complete new one. Then it is published.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    storage.publish(path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN is refused, so every reader can parse it."""
    with atomic_path(path) as temporary:
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as .npy, atomically."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)


def read_json(path: Path) -> Any:
    """The value in a JSON file."""
    return json.loads(storage.fetch(path).read_text(encoding="utf-8"))


def load_array(path: Path, mmap_mode: Literal["r", "c"] | None = None) -> NDArray[Any]:
    """The array of an .npy file, or a map of it."""
    array: NDArray[Any] = np.load(storage.fetch(path), mmap_mode=mmap_mode, allow_pickle=False)
    return array


def read_table(path: Path, **settings: Any) -> pa.Table:
    """A parquet file; `settings` are those of pyarrow.parquet.read_table, such as columns."""
    return pq.read_table(storage.fetch(path), **settings)


def map_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A map of an uncompressed Arrow file."""
    return pyarrow.feather.read_table(storage.fetch(path), columns=columns, memory_map=True)


def file_sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    value = hashlib.sha256()
    with open(storage.fetch(path), "rb") as file:
        while block := file.read(2**20):
            value.update(block)
    return value.hexdigest()


def shown(path: Path) -> str:
    """A path as people see it: the address where it is the mirror of one."""
    return storage.uri_of(path) or str(path)


_DISK_PROBLEMS = {
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "the quota is used up",
    errno.EROFS: "it can only be read",
    errno.EIO: "the disk fails",
    errno.EACCES: "access is denied",
    errno.EPERM: "access is denied",
}


@contextmanager
def disk_problems_told(place: Path) -> Iterator[None]:
    """Turn what a disk refuses into StorageError; `place` is named when the error names no file."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = _errno_of(error)
        if number not in _DISK_PROBLEMS:
            raise
        where = getattr(error, "filename", None) or shown(place)
        raise StorageError(
            f"cannot write {where}: {_DISK_PROBLEMS[number]}; what was finished is kept: make "
            "room, and the same command goes on from there"
        ) from None


def _errno_of(error: Exception) -> int:
    """The number of a system error; some libraries keep it in their text only."""
    if number := getattr(error, "errno", None):
        return int(number)
    text = str(error)
    if match := re.search(r"\[errno (\d+)\]|\(os error (\d+)\)", text):  # pyarrow, safetensors
        return int(match[1] or match[2])
    return errno.ENOSPC if re.search(r"\d+ requested and \d+ written", text) else 0  # numpy


def digest(*values: Any) -> str:
    """Digest of JSON-able values, 16 hex digits: names parts and fingerprints stages."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
