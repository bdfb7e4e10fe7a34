"""Artifacts on disk: one folder per stage, its parts, and a manifest that is written last.

No manifest means not finished. A part is a data file whose name is a digest of all it is computed
from, with a small JSON record beside it that is written after it: a part that has its record is
finished, wherever and whenever it was made, so a killed run goes on where it was and a changed
setting redoes only the parts that it changes. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from numpy.typing import NDArray

from engine.errors import RunDirectoryError

__all__ = [
    "Artifact",
    "Part",
    "RunDirectory",
    "atomic_path",
    "digest",
    "file_sha256",
    "read_json",
    "save_array",
    "write_json",
]

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
CONFIG = "config.json"  # of a run: the settings of its last job
STORE = "store"  # below a stage's folder: work already paid for, which survives every redo
_PACKAGES = (
    "ray",
    "torch",
    "transformers",
    "sentence-transformers",
    "peft",
    "scikit-learn",
    "numpy",
    "pyarrow",
    "numba",
)


@dataclass(frozen=True)
class Part:
    """One finished data file of an artifact.

    Attributes:
        path: relative to the artifact's folder.
        rows: rows (or vectors) in it.
        sha256: of the file.
        usage: what making it cost and met: seconds, calls, tokens, truncated, ...
    """

    path: str
    rows: int
    sha256: str
    usage: dict[str, float] = field(default_factory=dict)


class Artifact:
    """A finished stage's folder, read through its manifest."""

    def __init__(self, directory: Path, manifest: dict[str, Any] | None = None) -> None:
        self.directory = directory
        self.manifest: dict[str, Any] = manifest or read_json(directory / MANIFEST)

    def with_groups(self, **groups: Sequence[tuple[Artifact, str]]) -> Artifact:
        """A view of this artifact in which some groups are those of others, one after the other.

        Nothing is written or copied: the view names the files where they lie. An empty sequence
        leaves a group out.
        """
        parts = dict(self.manifest["parts"])
        sources = []
        for name, pieces in groups.items():
            parts.pop(name, None)
            for other, group in pieces:
                sources.append([name, group, other.fingerprint])
                away = os.path.relpath(other.directory, self.directory)
                parts.setdefault(name, []).extend(
                    {**vars(part), "path": f"{away}/{part.path}"} for part in other.parts(group)
                )
        rows = {name: sum(part["rows"] for part in group) for name, group in parts.items()}
        counts = {
            **self.manifest["counts"],
            **{name: rows[name] for name in groups if name in rows},
        }
        fingerprint = digest(self.fingerprint, sources)
        changed = {"parts": parts, "counts": counts, "fingerprint": fingerprint}
        return Artifact(self.directory, {**self.manifest, **changed})

    @property
    def fingerprint(self) -> str:
        return str(self.manifest["fingerprint"])

    @property
    def counts(self) -> dict[str, Any]:
        """Row counts and other headline numbers of the stage."""
        return dict(self.manifest["counts"])

    def parts(self, group: str) -> list[Part]:
        """The parts of one group of files, in row order."""
        return [Part(**part) for part in self.manifest["parts"][group]]

    def path(self, group: str) -> Path:
        """The only file of a group."""
        (part,) = self.parts(group)
        return self.directory / part.path


@dataclass(frozen=True)
class RunDirectory:
    """A run: a folder of stage artifacts on a path that all nodes see."""

    path: Path

    def stage_dir(self, directory: str) -> Path:
        return self.path / directory

    def artifact(self, directory: str) -> Artifact | None:
        """The stage's artifact, or None while it is not finished."""
        stage_dir = self.stage_dir(directory)
        return Artifact(stage_dir) if (stage_dir / MANIFEST).is_file() else None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run against a second job; the operating system frees it when we die."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise RunDirectoryError(
                f"{self.path} is in use by another job; wait for it or choose another --run-dir"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def reopen(self, directory: str) -> Path:
        """Make a stage unfinished: drop its manifest, keep its parts; returns its folder."""
        stage_dir = self.stage_dir(directory)
        stage_dir.mkdir(parents=True, exist_ok=True)
        (stage_dir / MANIFEST).unlink(missing_ok=True)
        return stage_dir

    def commit(self, directory: str, manifest: Mapping[str, Any]) -> Artifact:
        """Write the manifest, the last act of a stage, and sweep parts that no longer belong."""
        stage_dir = self.stage_dir(directory)
        common = {
            "schema_version": SCHEMA_VERSION,
            "host": socket.gethostname(),
            "python": platform.python_version(),
            "packages": {name: metadata.version(name) for name in _PACKAGES},
        }
        write_json(stage_dir / MANIFEST, {**manifest, **common})
        artifact = Artifact(stage_dir)
        _sweep(artifact)
        return artifact


def _sweep(artifact: Artifact) -> None:
    kept = {MANIFEST}
    for group in artifact.manifest["parts"]:
        for part in artifact.parts(group):
            kept |= {part.path, record_path(Path(part.path)).as_posix()}
    for child in sorted(artifact.directory.rglob("*"), reverse=True):
        name = child.relative_to(artifact.directory).as_posix()
        if name in kept or name.split("/")[0] == STORE:
            continue
        if child.is_dir() and not child.is_symlink():
            with suppress(OSError):  # not empty: it holds files that are kept
                child.rmdir()
        else:
            child.unlink()


def discard(stage_dir: Path) -> None:
    """Remove an unfinished stage that failed before anything in it was paid for."""
    shutil.rmtree(stage_dir, ignore_errors=True)


# --- parts ---------------------------------------------------------------------------------------


def record_path(data_path: Path) -> Path:
    """Where the record of a data file lies: same folder, same name, `.json` added."""
    return data_path.with_name(data_path.name + ".json")


def finish_part(
    root: Path, data_path: Path, rows: int, usage: Mapping[str, float] | None = None
) -> Part:
    """Declare a data file finished by writing its record; returns the part."""
    part = Part(
        path=data_path.relative_to(root).as_posix(),
        rows=rows,
        sha256=file_sha256(data_path),
        usage=dict(usage or {}),
    )
    write_json(record_path(data_path), asdict(part))
    return part


def finished_part(data_path: Path) -> Part | None:
    """The part, if this file has been finished."""
    record = record_path(data_path)
    return Part(**read_json(record)) if record.is_file() and data_path.is_file() else None


def total_usage(parts: Sequence[Part]) -> dict[str, float]:
    """Sum of what the parts cost, whichever run made them."""
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.usage.items():
            total[name] = total.get(name, 0) + value
    return total


# --- files ---------------------------------------------------------------------------------------


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block succeeds.

    The name keeps the suffix, since some writers choose the format by it. After a crash at any
    moment `path` is either absent, or the old file, or the complete new one.
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
    return json.loads(path.read_text(encoding="utf-8"))


def file_sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    value = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            value.update(block)
    return value.hexdigest()


def digest(*values: Any) -> str:
    """Digest of JSON-able values, 16 hex digits: names parts and fingerprints stages."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
