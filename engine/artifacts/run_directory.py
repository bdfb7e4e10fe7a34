"""Artifacts on disk: one folder per stage, its parts, and a manifest that is written last.

No manifest means not finished. What is in a folder is finished part by part (`parts`), so a killed
run goes on where it was. A run is locked while somebody works on it.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import filelock

from engine import storage
from engine.artifacts.files import digest, read_json, shown, write_json
from engine.artifacts.parts import Part, record_path
from engine.errors import RunDirectoryError, StorageError
from engine.terminal.progress import say

__all__ = ["Artifact", "RunDirectory", "discard"]

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
CONFIG = "config.json"  # of a run: the settings of its last job
LOCK = "lock.json"  # of a run in object storage: who writes there
LOCK_BEAT_S, LOCK_DEAD_S = 15.0, 60.0
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


class Artifact:
    """A finished stage's folder, read through its manifest."""

    def __init__(self, directory: Path, manifest: dict[str, Any] | None = None) -> None:
        self.directory = directory
        self.manifest: dict[str, Any] = manifest or _read_manifest(directory / MANIFEST)

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
    """A run: a folder of artifacts on a path that all nodes see, or the mirror of a bucket's."""

    path: Path

    @classmethod
    def at(cls, place: Path | str) -> RunDirectory:
        """The run at a path or an address such as s3://bucket/runs/a."""
        text = str(place)
        return cls(storage.mirror(text) if storage.is_remote(text) else Path(text).absolute())

    def __str__(self) -> str:
        return shown(self.path)

    def stage_dir(self, directory: str) -> Path:
        return self.path / directory

    def artifact(self, directory: str) -> Artifact | None:
        """The stage's artifact, or None while it is not finished."""
        stage_dir = self.stage_dir(directory)
        return Artifact(stage_dir) if storage.exists(stage_dir / MANIFEST) else None

    @property
    def is_new(self) -> bool:
        """Whether no job has worked here."""
        is_remote = storage.uri_of(self.path) is not None
        return not storage.exists(self.path / CONFIG) if is_remote else not self.path.exists()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run against a second job; the operating system frees it when we die.

        In object storage it is a heartbeat lock: renewed every 15 s, taken over after 60 s without
        renewal. RunDirectoryError for a place that cannot be a run.
        """
        lock = filelock.FileLock(self.path / ".lock", timeout=0)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except filelock.Timeout:
            raise RunDirectoryError(_in_use(self)) from None
        except OSError as error:
            is_file = isinstance(error, FileExistsError | NotADirectoryError)
            why = "a file is in its place" if is_file else error.strerror
            raise RunDirectoryError(
                f"{self} cannot be a run directory: {why}; choose another --run-dir"
            ) from None
        try:
            with _touched(self) if storage.uri_of(self.path) else nullcontext():
                yield
        finally:
            lock.release()

    def reopen(self, directory: str) -> Path:
        """Make a stage unfinished: drop its manifest, keep its parts; returns its folder."""
        stage_dir = self.stage_dir(directory)
        _refuse_links(stage_dir)
        stage_dir.mkdir(parents=True, exist_ok=True)
        storage.remove(stage_dir / MANIFEST)
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


def _read_manifest(path: Path) -> dict[str, Any]:
    """A manifest whose parts lie in its folder; only views, which no file holds, look further."""
    manifest: dict[str, Any] = read_json(path)
    for group in manifest["parts"].values():
        for part in group:
            name = PurePosixPath(str(part["path"]))
            if name.is_absolute() or ".." in name.parts:
                raise RunDirectoryError(
                    f"{shown(path)} names {str(name)!r}, which is not in its folder"
                )
    return manifest


def _refuse_links(stage_dir: Path) -> None:
    """A stage writes into its folders and sweeps them: what is behind a link is not the run's."""
    folders = [
        stage_dir,
        *(Path(at, name) for at, names, _ in os.walk(stage_dir) for name in names),
    ]
    for folder in folders:
        if folder.is_symlink():
            raise RunDirectoryError(
                f"{folder} is a link, and a stage deletes what it does not know in its folder: "
                "put the folder itself there, or choose another --run-dir"
            )


def _in_use(run: RunDirectory) -> str:
    return f"{run} is in use by another job; wait for it or choose another --run-dir"


@contextmanager
def _touched(run: RunDirectory) -> Iterator[None]:
    """Own the lock object of a run in object storage, and keep it young."""
    path = run.path / LOCK
    me = {"host": socket.gethostname(), "pid": os.getpid(), "token": secrets.token_hex(8)}
    _wait_for_the_dead(run, path)
    write_json(path, me)
    if storage.exists(path) and read_json(path) != me:  # two came at the same moment
        raise RunDirectoryError(_in_use(run))
    done = threading.Event()

    def beat() -> None:
        while not done.wait(LOCK_BEAT_S):
            with suppress(StorageError):  # the next one may get through; so may a real write
                write_json(path, me)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with suppress(StorageError):
            storage.remove(path)


def _wait_for_the_dead(run: RunDirectory, path: Path) -> None:
    """Return when nobody owns the lock object; RunDirectoryError when somebody touches it."""
    seen = storage.modified_ns(path)
    if seen is None:
        return
    owner = read_json(path)
    if owner["host"] == socket.gethostname():
        return  # a job of this machine would hold the lock of the mirror: it is dead
    say(f"job {owner['pid']} on {owner['host']} may be at work in {run}: waiting a minute to see")
    deadline = time.monotonic() + LOCK_DEAD_S
    while time.monotonic() < deadline:
        time.sleep(5)
        now = storage.modified_ns(path)
        if now is None:
            return
        if now != seen:
            raise RunDirectoryError(_in_use(run))


def _sweep(artifact: Artifact) -> None:
    kept = {MANIFEST}
    for group in artifact.manifest["parts"]:
        for part in artifact.parts(group):
            kept |= {part.path, record_path(Path(part.path)).as_posix()}
    for path in storage.files_in(artifact.directory):
        name = path.relative_to(artifact.directory).as_posix()
        if name not in kept and name.split("/")[0] != STORE:
            storage.remove(path)
    for folder in sorted(artifact.directory.rglob("*"), reverse=True):
        if folder.is_dir() and not folder.is_symlink():
            with suppress(OSError):  # not empty: it holds files that are kept
                folder.rmdir()


def discard(stage_dir: Path) -> None:
    """Remove an unfinished stage that failed before anything in it was paid for."""
    storage.remove_tree(stage_dir)
    shutil.rmtree(stage_dir, ignore_errors=True)
