"""From CorpusConfig.path to the data files that it means, in a fixed order.

A file that is named must be there and hold rows. A directory is searched, all the way down, for
the endings in ENDINGS (behind those of text also .gz, .zst, .bz2 or .xz); a saved dataset in it is
read as one; names that start with a dot or an underscore
(_SUCCESS, .cache) and the metadata files of Hugging Face are passed over. Addresses such as
s3://bucket/rows/*.parquet mean the same in object storage.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.config import CorpusConfig
from engine.errors import InputError
from engine.storage import find, is_remote

__all__ = ["ENDINGS", "HUB_PREFIX", "DataFile", "find_files", "unread_files"]

HUB_PREFIX = "hf:"
ENDINGS = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
}
_PACKED = (".gz", ".zst", ".bz2", ".xz")
_BINARY = ("parquet", "arrow")
_SAVED_DATASET = ("dataset_info.json", "state.json")
_SAVED_SPLITS = "dataset_dict.json"
# What lies beside data and is none.
_NO_DATA = frozenset((".md", ".rst", ".py", ".yaml", ".yml", ".toml", ".lock", ".sha256", ".md5"))
_NO_NAMES = frozenset(("README", "LICENSE", "LICENCE", "NOTICE", "CHANGELOG", "MANIFEST"))
_METADATA = frozenset((*_SAVED_DATASET, _SAVED_SPLITS, "dataset_infos.json"))


@dataclass(frozen=True)
class DataFile:
    """One file, or one Hugging Face dataset, before anyone looked inside.

    Attributes:
        path: as the user wrote it, or below the directory that the user wrote.
        format: parquet, arrow, jsonl, json, csv or huggingface.
        named: the user named this file: empty is an error, not an empty part of a data set.
    """

    path: str
    format: str
    named: bool


def find_files(config: CorpusConfig) -> list[DataFile]:
    """The data files of a corpus: listed paths in their order, each one's files sorted by name.

    A file that two paths reach is taken once. Raises InputError for a path that does not exist or
    holds no data file.
    """
    patterns = (config.path,) if isinstance(config.path, str) else config.path
    found: dict[str, DataFile] = {}
    for pattern in patterns:
        for file in _resolve(pattern, config.format):
            is_name = file.path.startswith(HUB_PREFIX) or is_remote(file.path)
            found.setdefault(file.path if is_name else str(Path(file.path).resolve()), file)
    if not found:
        raise InputError("the corpus path is an empty list: name at least one file")
    return list(found.values())


def _resolve(pattern: str, format: str) -> list[DataFile]:
    if is_remote(pattern):
        return _in_bucket(pattern, format)
    path = str(Path(pattern).expanduser())
    if Path(path).exists():
        return _existing(path, format)
    if pattern.startswith(HUB_PREFIX):
        return [DataFile(pattern, "huggingface", named=True)]
    if format == "huggingface":
        return [DataFile(HUB_PREFIX + pattern, "huggingface", named=True)]
    # Path.glob takes no absolute pattern.
    hits = [hit for hit in sorted(glob.glob(path, recursive=True)) if not _is_hidden(hit)]  # noqa: PTH207
    if not hits:
        hint = " (no file matches this pattern)" if glob.has_magic(path) else ""
        raise InputError(f"No such file: {pattern}{hint}")
    if path.endswith("**"):  # its hits are all files and directories below: search once
        hits = [hit for hit in hits if Path(hit).is_file() and _format_of(hit)]
    return [file for hit in hits for file in _existing(hit, format, named=False)]


def _in_bucket(pattern: str, format: str) -> list[DataFile]:
    """Files in object storage; an address that ends in none of our endings is a directory."""
    files = find(pattern)
    if [file.uri for file in files] == [pattern]:
        known = _format_of(pattern) if format == "auto" else format
        if known is None or known == "huggingface":
            raise InputError(_no_format(pattern))
        return [DataFile(pattern, known, named=True)]
    names = [file.uri for file in files if not _is_passed_over(file.uri, pattern)]
    found = [
        DataFile(name, known, named=False)
        for name in names
        if (known := _format_of(name)) and format in ("auto", known)
    ]
    if not found:
        raise InputError(f"No such file: {pattern}" if not files else _no_data(pattern, format, 1))
    return found


def _is_passed_over(uri: str, pattern: str) -> bool:
    below = uri.removeprefix(pattern.rstrip("/"))
    return any(_is_hidden(name) for name in below.split("/") if name) or (
        Path(uri).name in _METADATA
    )


def _no_format(path: str) -> str:
    return (
        f"cannot tell the format of {path} from its name: expected an ending of "
        f"{', '.join(ENDINGS)}, or set format:"
    )


def _no_data(directory: str, format: str, held: int) -> str:
    wanted = ", ".join(end for end, name in ENDINGS.items() if format in ("auto", name))
    return (
        f"no data file in directory {directory}: expected {wanted or 'a saved dataset'}, "
        f"found {held or 'no'} other file{'s' * (held != 1)}"
    )


def _existing(path: str, format: str, named: bool = True) -> list[DataFile]:
    if Path(path).is_dir():
        if _is_saved_dataset(path):
            return [DataFile(path, "huggingface", named)]
        return _search(path, format)
    if not Path(path).is_file():
        raise InputError(f"{path} is not a regular file: copy its content into one")
    known = _format_of(path) if format == "auto" else format
    if known is None:
        raise InputError(_no_format(path))
    if known == "huggingface":
        raise InputError(f"{path} is a file, not a Hugging Face dataset: leave out format:")
    return [DataFile(path, known, named)]


def _search(directory: str, format: str) -> list[DataFile]:
    files = [
        DataFile(path, known, named=False)
        for path in sorted(_walk(directory))
        if (known := _format_of(path)) and format in ("auto", known)
    ]
    if files:
        return files
    raise InputError(_no_data(directory, format, sum(1 for _ in _walk(directory))))


def unread_files(config: CorpusConfig) -> list[str]:
    """Files in the corpus's own directories that are passed over, though they may hold rows."""
    patterns = (config.path,) if isinstance(config.path, str) else config.path
    folders = [str(Path(p).expanduser()) for p in patterns if not is_remote(p)]
    return [
        path
        for folder in folders
        if Path(folder).is_dir() and not _is_saved_dataset(folder)
        for path in sorted(_walk(folder))
        if not (known := _format_of(path)) or config.format not in ("auto", known)
        if Path(path.lower()).suffix not in _NO_DATA and Path(path).name.upper() not in _NO_NAMES
    ]


def _walk(directory: str) -> Iterator[str]:
    """Files below a directory, and saved datasets, which are folders."""
    for folder, subfolders, names in os.walk(directory):
        below = [name for name in subfolders if not _is_hidden(name)]
        saved = [name for name in below if _is_saved_dataset(str(Path(folder, name)))]
        subfolders[:] = [name for name in below if name not in saved]
        yield from (str(Path(folder, name)) for name in saved)
        for name in names:
            if not _is_hidden(name) and name not in _METADATA:
                yield str(Path(folder, name))


def _is_hidden(path: str) -> bool:
    return Path(path).name.startswith((".", "_"))


def _is_saved_dataset(directory: str) -> bool:
    names = {entry.name for entry in Path(directory).iterdir()}
    return names.issuperset(_SAVED_DATASET) or _SAVED_SPLITS in names


def _format_of(path: str) -> str | None:
    if not is_remote(path) and Path(path).is_dir():
        return "huggingface" if _is_saved_dataset(path) else None
    name = Path(path.lower())
    if name.suffix in _PACKED:
        packed = ENDINGS.get(name.with_suffix("").suffix)
        return None if packed in _BINARY else packed
    return ENDINGS.get(name.suffix)
