"""The door to Hugging Face datasets: from the hub, or from a directory that save_to_disk wrote."""

from __future__ import annotations

from functools import lru_cache
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
            loaded = datasets.load_from_disk(path)
    except Exception as error:  # the hub, the disk and the builders each raise their own kind
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"cannot load the Hugging Face dataset {path}: {reason}") from None
    if not isinstance(loaded, datasets.DatasetDict):
        return loaded
    if split not in loaded:
        raise InputError(f"no split {split} in {path}: found {', '.join(loaded)}; set split:")
    return loaded[split]


def dataset_identity(path: str, name: str | None, split: str) -> str:
    """The content of a dataset as `datasets` fingerprints it; raises as `load_dataset` does."""
    return str(load_dataset(path, name, split)._fingerprint)
