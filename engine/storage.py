"""Files in object storage, worked on through local copies: s3://, gs://, or any fsspec scheme.

A run in a bucket is worked on as a folder of this machine, its *mirror*: s3://bucket/runs/a as
CACHE/nn-cift-storage/s3/bucket/runs/a. All paths of a run stay local paths, so parts are written,
mapped and read as ever; `publish` sends a finished file to the bucket, `fetch` brings one that this
node does not have, and both do nothing for a path outside a mirror. The bucket is the truth: a
mirror may be deleted at any time. A corpus is not mirrored but read where it lies (`open_input`).

Credentials come from the environment, or from the machine's role, and from nowhere else: they are
refused in an address, and never part of an error.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import io
import os
import posixpath
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs

from engine.errors import SettingsError, StorageError

__all__ = [
    "RemoteFile",
    "exists",
    "fetch",
    "fetch_tree",
    "files_in",
    "filesystem_of",
    "find",
    "is_remote",
    "mirror",
    "modified_ns",
    "open_input",
    "publish",
    "remote_size",
    "remove",
    "remove_tree",
    "sha256",
    "uri_of",
]

MIRRORS = "nn-cift-storage"  # marks a mirror in a path, wherever the cache lies
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://")
_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_RANGE_BYTES = 2**23  # of one request for a part of an object
_ATTEMPTS = 6  # of each request, over a few seconds where it is refused
# Named by a digest of all that it is computed from: there is no other version of it.
_NAMED_BY_CONTENT = re.compile(r"(^|-)[0-9a-f]{16}\.[a-z]+$")


@dataclass(frozen=True)
class RemoteFile:
    """An object, as listed."""

    uri: str
    size: int


# --- addresses -----------------------------------------------------------------------------------


def is_remote(place: str) -> bool:
    """Whether a setting names object storage: scheme://..., but file:// and hf:NAME."""
    match = _SCHEME.match(place)
    return match is not None and match[1] != "file"


def mirror(uri: str) -> Path:
    """The local folder or file that stands for an address; SettingsError for one of no use."""
    scheme, place = _split(uri)
    cache = Path(os.environ.get("NN_CIFT_CACHE") or "~/.cache").expanduser().absolute()
    return cache / MIRRORS / scheme / place


def uri_of(path: Path) -> str | None:
    """The address that a path is the mirror of; None for any other path."""
    parts = path.parts
    if MIRRORS not in parts:
        return None
    scheme, *place = parts[parts.index(MIRRORS) + 1 :]
    return f"{scheme}://{'/'.join(place)}"


def _split(uri: str) -> tuple[str, str]:
    match = _SCHEME.match(uri)
    assert match is not None, f"no address of object storage: {uri}"
    place = uri[match.end() :].rstrip("/")
    bucket = place.partition("/")[0]
    if "@" in bucket or "?" in place:
        raise SettingsError(
            f"{match[1]}://...: credentials and options do not belong in an address; set them in "
            "the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, ...)"
        )
    if not bucket or {"", ".", ".."} & set(place.split("/")):
        raise SettingsError(f"not an address in object storage: {uri}")
    return match[1], place


def filesystem_of(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The pyarrow file system of an address, and the path in it."""
    scheme, place = _split(uri)
    return _filesystem(scheme, place.partition("/")[0]), place


@functools.cache
def _filesystem(scheme: str, bucket: str) -> pyarrow.fs.FileSystem:
    if scheme == "s3":
        return pyarrow.fs.S3FileSystem(
            endpoint_override=os.environ.get("AWS_ENDPOINT_URL"),
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
            retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
            connect_timeout=5,
            request_timeout=30,  # without a byte
        )
    try:
        return pyarrow.fs.FileSystem.from_uri(f"{scheme}://{bucket}/")[0]
    except (pa.ArrowException, OSError):
        return _by_fsspec(scheme)


def _by_fsspec(scheme: str) -> pyarrow.fs.FileSystem:
    import fsspec

    try:
        found = fsspec.filesystem(scheme)
    except (ValueError, ImportError) as error:
        raise SettingsError(f"no file system for {scheme}://: {error}") from None
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(found))


@contextmanager
def _told(doing: str, uri: str) -> Iterator[None]:
    """Turn what a store answers into one sentence without credentials."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:300]
        for name in _SECRETS:
            if secret := os.environ.get(name):
                reason = reason.replace(secret, "***")
        raise StorageError(
            f"cannot {doing} {uri}: {reason}; what was finished is kept, and the same command goes "
            "on from there"
        ) from None


def _info(uri: str) -> Any:
    filesystem, place = filesystem_of(uri)
    with _told("look at", uri):
        return filesystem.get_file_info(place)


def _is_file(info: Any) -> bool:
    return bool(info.type == pyarrow.fs.FileType.File)


# --- files of a mirror ---------------------------------------------------------------------------


def exists(path: Path) -> bool:
    """Whether a file is finished: in the bucket for a path of a mirror, else on the disk."""
    uri = uri_of(path)
    return path.is_file() if uri is None else _is_file(_info(uri))


def fetch(path: Path) -> Path:
    """The path, its file brought here if it lies in a bucket and this node's copy is not it.

    Atomic: readers and other fetchers of the same file see all of it or nothing. A file that is
    named by its content is not asked about again.
    """
    uri = uri_of(path)
    if uri is None or (_NAMED_BY_CONTENT.search(path.name) and path.is_file()):
        return path
    info = _info(uri)
    if not _is_file(info) or _is_copy(path, info):
        return path
    filesystem, place = filesystem_of(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with _told("read", uri):
            pyarrow.fs.copy_files(
                place,
                str(temporary),
                source_filesystem=filesystem,
                destination_filesystem=pyarrow.fs.LocalFileSystem(),
            )
        os.utime(temporary, ns=(info.mtime_ns or 0,) * 2)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _is_copy(path: Path, info: Any) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return bool(found.st_size == info.size and found.st_mtime_ns == (info.mtime_ns or 0))


def publish(path: Path) -> None:
    """Send a finished file to its bucket; it appears there whole or not at all."""
    uri = uri_of(path)
    if uri is None:
        return
    filesystem, place = filesystem_of(uri)
    with _told("write", uri):
        pyarrow.fs.copy_files(
            str(path),
            place,
            source_filesystem=pyarrow.fs.LocalFileSystem(),
            destination_filesystem=filesystem,
        )
    if not _NAMED_BY_CONTENT.search(path.name):  # else its age is never asked for
        os.utime(path, ns=(_info(uri).mtime_ns or 0,) * 2)


def files_in(folder: Path) -> list[Path]:
    """All files below a folder, sorted; those of the bucket for a mirror."""
    uri = uri_of(folder)
    if uri is None:
        return sorted(path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    filesystem, place = filesystem_of(uri)
    selector = pyarrow.fs.FileSelector(place, allow_not_found=True, recursive=True)
    with _told("list", uri):
        found = filesystem.get_file_info(selector)
    return sorted(folder / posixpath.relpath(i.path, place) for i in found if _is_file(i))


def modified_ns(path: Path) -> int | None:
    """When a file of a bucket was last written, by the store's clock; None when it is not there."""
    uri = uri_of(path)
    assert uri is not None, "asked of files in object storage only"
    info = _info(uri)
    return int(info.mtime_ns or 0) if _is_file(info) else None


def remove(path: Path) -> None:
    """Delete a file, in the bucket too; one that is not there is no error."""
    uri = uri_of(path)
    if uri is not None:
        filesystem, place = filesystem_of(uri)
        if _is_file(_info(uri)):
            with _told("delete", uri):
                filesystem.delete_file(place)
    path.unlink(missing_ok=True)


def remove_tree(folder: Path) -> None:
    """Delete all files below a folder of a mirror in its bucket; the disk is the caller's."""
    if uri_of(folder) is not None:
        for path in files_in(folder):
            remove(path)


# --- trees and corpora ---------------------------------------------------------------------------


def fetch_tree(uri: str) -> Path:
    """Bring a file or a whole directory, such as a model's; returns its mirror."""
    path = mirror(uri)
    if _is_file(_info(uri)):
        return fetch(path)
    files = files_in(path)
    if not files:
        raise StorageError(f"there is no file at {uri} and none below it")
    for file in files:
        fetch(file)
    return path


def find(pattern: str) -> list[RemoteFile]:
    """Objects that an address or a glob of addresses means, sorted; a directory means all below."""
    literal = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    is_glob = literal != pattern
    base = posixpath.dirname(literal) if is_glob else pattern.rstrip("/")
    scheme, _ = _split(base)
    filesystem, place = filesystem_of(base)
    with _told("list", base):
        if not is_glob and _is_file(info := filesystem.get_file_info(place)):
            return [RemoteFile(pattern, info.size)]
        selector = pyarrow.fs.FileSelector(place, allow_not_found=True, recursive=True)
        found = [i for i in filesystem.get_file_info(selector) if _is_file(i)]
    files = [RemoteFile(f"{scheme}://{i.path}", i.size) for i in found]
    if is_glob:
        files = [file for file in files if _matches(file.uri, pattern)]
    return sorted(files, key=lambda file: file.uri)


def _matches(uri: str, pattern: str) -> bool:
    """As the shell has it: * stays within one level, ** does not."""
    if "**" in pattern:
        return fnmatch.fnmatchcase(uri, pattern.replace("**/", "*").replace("**", "*"))
    names, wanted = uri.split("/"), pattern.split("/")
    return len(names) == len(wanted) and all(map(fnmatch.fnmatchcase, names, wanted))


def remote_size(uri: str) -> int:
    """Bytes of an object; StorageError when it is not there."""
    info = _info(uri)
    if not _is_file(info):
        raise StorageError(f"there is no file at {uri}")
    return int(info.size)


def open_input(uri: str) -> io.BufferedReader:
    """A seekable binary file over an object, read by ranges; StorageError when reading fails."""
    return io.BufferedReader(_Object(uri), _RANGE_BYTES)


class _Object(io.RawIOBase):
    """An object as Python's own readers want it, its failures told."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        filesystem, place = filesystem_of(uri)
        with _told("read", uri):
            self._file = filesystem.open_input_file(place)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with _told("read", self._uri):
            return int(self._file.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        with _told("read", self._uri):
            return int(self._file.readinto(buffer))

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def sha256(uri: str) -> str:
    """Hex digest of an object's content, read once per machine and version of the object."""
    info, copy = _info(uri), mirror(uri)
    known = copy.with_name(f"{copy.name}.{info.size}-{info.mtime_ns}.sha256")
    if known.is_file():
        return known.read_text(encoding="ascii")
    value = hashlib.sha256()
    with open_input(uri) as file:
        while block := file.read(2**23):
            value.update(block)
    known.parent.mkdir(parents=True, exist_ok=True)
    known.write_text(value.hexdigest(), encoding="ascii")
    return value.hexdigest()
