"""Opening text files, zipped or not, and telling from the first bytes what they really hold."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from engine.errors import InputError
from engine.storage import is_remote, open_input, remote_size

__all__ = [
    "BOM",
    "check_opening",
    "delimiter_of",
    "is_escaped",
    "looks_like",
    "open_bytes",
    "open_file",
    "open_text",
    "packing_of",
    "size_of",
    "text_layout",
]

BOM = b"\xef\xbb\xbf"
_OPENING_BYTES = 2**20
_SIGNATURES = (
    (b"PAR1", "parquet", "rename it or set format: parquet"),
    (b"PK\x03\x04", "a zip archive or a spreadsheet", "unpack it or export it as CSV"),
    (b"ARROW1", "an Arrow file", "rename it or set format: arrow"),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8"),
    (b"version https://git-lfs", "a Git LFS pointer", "fetch the data with git lfs pull"),
    (b"<", "HTML or XML", "download the data itself"),
)
_JSON_SIGNATURES = (
    (b"{", "JSON lines", "rename it or set format: jsonl"),
    (b"[", "a JSON array", "rename it or set format: json"),
)


def open_file(path: str) -> BinaryIO:
    """A file's own bytes, wherever it lies; seekable."""
    if is_remote(path):
        return open_input(path)
    return open(path, "rb")


def size_of(path: str) -> int:
    """Bytes of a file, wherever it lies."""
    return remote_size(path) if is_remote(path) else Path(path).stat().st_size


def packing_of(path: str) -> str | None:
    """How a file is packed, by its first bytes: gzip, zstd, bzip2, xz; None if it is not.

    A file whose name says gzip is one, so that a broken one is told as such.
    """
    with open_file(path) as file:
        opening = file.read(6)
    found = (name for magic, name in _PACKINGS.items() if opening.startswith(magic))
    return next(found, "gzip" if opening and path.lower().endswith(".gz") else None)


@contextmanager
def open_bytes(path: str) -> Iterator[BinaryIO]:
    """A file's bytes, unpacked if it is packed. Raises InputError for a broken one."""
    packing = packing_of(path)
    if packing is None:
        with open_file(path) as plain:
            yield plain
        return
    try:
        with open_file(path) as packed, _UNPACKERS[packing](packed) as unpacked:
            yield cast(BinaryIO, unpacked)
    except _BROKEN as error:
        if getattr(error, "errno", None) is not None:
            raise
        raise InputError(f"truncated or corrupt {packing}: {path} ({error})") from None


class _Zstd(io.RawIOBase):
    """An unpacked zstd file that can be read from the start again."""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed = packed
        self._position = 0
        self._stream = self._opened()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        assert (offset, whence) == (0, io.SEEK_SET), "packed files are one slice"
        self._packed.seek(0)
        self._stream, self._position = self._opened(), 0
        return 0

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _opened(self) -> pa.CompressedInputStream:
        return pa.CompressedInputStream(pa.PythonFile(_LeftOpen(self._packed), mode="r"), "zstd")


class _LeftOpen:
    """A file for Arrow, which closes what it has read."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self.read = file.read

    def close(self) -> None:
        """Whoever opened the file closes it."""


_PACKINGS = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
}
_UNPACKERS: dict[str, Callable[[BinaryIO], Any]] = {
    "gzip": lambda packed: gzip.GzipFile(fileobj=packed),
    "zstd": lambda packed: io.BufferedReader(_Zstd(packed), _OPENING_BYTES),
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}
_BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError, pa.ArrowException)


@contextmanager
def open_text(path: str) -> Iterator[io.TextIOWrapper]:
    """A UTF-8 file as text; bytes that are not UTF-8 come out as lone surrogates DC80..DCFF."""
    with open_bytes(path) as raw:
        yield io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")


def delimiter_of(path: str) -> str:
    """What stands between the fields of a table: a comma, in a .tsv a tab."""
    return "\t" if ".tsv" in Path(path.lower()).suffixes else ","


def is_escaped(text: str) -> bool:
    """Whether `open_text` met bytes in it that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def looks_like(opening: bytes) -> tuple[str, str] | None:
    """What the first bytes of a file give away: (what it is, what to do about it)."""
    for signature, name, advice in (*_SIGNATURES, *_JSON_SIGNATURES):
        if opening.startswith(signature):
            return name, advice
    return None


def check_opening(path: str, format: str) -> bool:
    """Whether a text file holds anything; InputError when it is no text file at all.

    `format` is only named in the error. Reads the first bytes, and the blank lines before a text.
    """
    with open_bytes(path) as file:
        opening = file.read(64)
        for signature, name, advice in _SIGNATURES:
            if opening.startswith(signature):
                raise InputError(
                    f"{path} is not {format}: it starts with {opening[:12]!r}; "
                    f"it looks like {name}, {advice}"
                )
        file.seek(0)
        return bool(_first_line(file))


def text_layout(path: str) -> str:
    """`jsonl`, `json` (an array) or `empty`: what a JSON file holds, whatever its name.

    An array opens with a bracket, and its first line is either all of the file or no JSON by
    itself; so lines of which the first is a (bad) list still count as lines. Raises InputError for
    one object over many lines.
    """
    with open_bytes(path) as file:
        line = _first_line(file)
        is_long = not line.endswith(b"\n") and len(line) == _OPENING_BYTES
        rest = b"" if is_long else _first_line(file)
    if not line:
        return "empty"
    if line.startswith(b"{"):
        if rest and line.rstrip().endswith((b"{", b"[")):
            raise InputError(
                f"{path} holds one JSON object over many lines, not rows: "
                "expected an array of objects, or one object per line"
            )
        return "jsonl"
    if not line.startswith(b"[") or (rest and _is_json(line)):
        return "jsonl"
    return "empty" if b"".join((line + rest).split()).startswith(b"[]") else "json"


def _first_line(file: BinaryIO) -> bytes:
    """The next line that is not blank, without blanks or BOM before it, cut at a megabyte."""
    while line := file.readline(_OPENING_BYTES):
        line = line.removeprefix(BOM).lstrip()
        if line:
            return line
    return b""


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
