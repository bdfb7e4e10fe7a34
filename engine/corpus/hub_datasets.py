"""The door to Hugging Face datasets: from the hub, or from a directory that save_to_disk wrote."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.corpus.paths import HUB_PREFIX
from engine.errors import InputError

__all__ = ["dataset_identity", "load_dataset"]


@lru_cache(maxsize=4)  # a worker reads many slices of one dataset, and loading asks the hub
def load_dataset(path: str, name: str | None, split: str) -> Any:
    """One split of a dataset as a `datasets.Dataset`, memory-mapped; never runs code of the hub.

    `path` is `hf:NAME` or a saved directory. Raises InputError when it cannot be had.
    """
    import datasets  # seconds to import, and most corpora are files

    try:
        if path.startswith(HUB_PREFIX):
            loaded = datasets.load_dataset(path.removeprefix(HUB_PREFIX), name, split=split)
        else:
            _check_names(Path(path))
            loaded = datasets.load_from_disk(path)
    except InputError:
        raise
    except Exception as error:  # the hub, the disk and the builders each raise their own kind
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"cannot load the Hugging Face dataset {path}: {reason}") from None
    if not isinstance(loaded, datasets.DatasetDict):
        return loaded
    if split not in loaded:
        raise InputError(f"no split {split} in {path}: found {', '.join(loaded)}; set split:")
    return loaded[split]


def _check_names(directory: Path) -> None:
    """A saved dataset names its splits and files, and those must be its own."""
    splits = _read(directory / "dataset_dict.json").get("splits", [])
    for split in splits:
        _check_name(directory, split)
    for folder in (directory, *(directory / split for split in splits)):
        for file in _read(folder / "state.json").get("_data_files", []):
            _check_name(directory, file["filename"])


def _check_name(directory: Path, name: Any) -> None:
    if not isinstance(name, str) or Path(name).name != name or name in ("", ".."):
        raise InputError(f"the saved dataset {directory} names {name!r}, which is not in it")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def dataset_identity(path: str, name: str | None, split: str) -> str:
    """The content of a dataset as `datasets` fingerprints it; raises as `load_dataset` does."""
    return str(load_dataset(path, name, split)._fingerprint)
