"""What the files of a model may ask for: a model is data here, not a program.

Loaders follow what a model's own settings name: classes to import, other models to put below it,
files of weights that are pickles, kernels to fetch from a hub. Each of these is refused before a
loader sees the model; only `trust_remote_code` lets classes and kernels of others in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from engine.errors import ModelError

__all__ = ["FindFile", "check_model_files"]

# A file of the model by its name, where it has one of that name.
FindFile = Callable[[str], Path | None]

_ADAPTER = "adapter_config.json"
_WEIGHTS = "model.safetensors"
_INDEX = f"{_WEIGHTS}.index.json"
_MODULES = "modules.json"
_KINDS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
_SETTINGS = ("config.json", *(f"sentence_{kind}_config.json" for kind in _KINDS))
# Arguments of a loader that a sentence encoder's settings may hold, and that point it elsewhere.
_REDIRECTIONS = frozenset(
    ("adapter_kwargs", "gguf_file", "subfolder", "use_safetensors", "variant", "weights_only")
)
_ARGUMENTS = ("model_args", "model_kwargs")
# Modules of sentence-transformers that import nothing by name; those with weights of their own.
_WITH_WEIGHTS = ("CNN", "Dense", "LSTM", "LayerNorm", "StaticEmbedding", "WeightedLayerPooling")
_PLAIN = ("Dropout", "Normalize", "Pooling", "Transformer")
_CLASS = re.compile(rf"sentence_transformers(\.\w+)*\.({'|'.join((*_WITH_WEIGHTS, *_PLAIN))})")


def check_model_files(find: FindFile, setting: str, trusted: bool) -> None:
    """Raise ModelError, in one sentence, for a model whose files ask for more than to be read.

    Args:
        find: gives the model's files by name, such as "1_Pooling/config.json".
        setting: what the settings call the model, for messages.
        trusted: its `trust_remote_code`, which allows classes and kernels that are not ours.

    Reads a handful of small JSON files.
    """
    folders = [""]
    for kind, folder in _modules(find, setting, trusted):
        if kind == "Transformer":
            folders.append(folder)
        elif kind in _WITH_WEIGHTS and find(_inside(folder, _WEIGHTS)) is None:
            raise ModelError(
                f"model {setting}: its module {folder or kind} has no {_WEIGHTS}; other weights "
                "can run code when opened: convert it with model.save_pretrained(directory)"
            )
    for folder in dict.fromkeys(folders):
        _check_folder(find, folder, setting, trusted)


def _check_folder(find: FindFile, folder: str, setting: str, trusted: bool) -> None:
    if find(_inside(folder, _ADAPTER)) is not None:
        raise ModelError(
            f"model {setting} holds {_ADAPTER}, which puts an adapter on a model of its choice: "
            "merge the two with merge_and_unload() and save_pretrained(directory)"
        )
    shards = _read(find, _inside(folder, _INDEX), setting).get("weight_map", {})
    for name in shards.values() if isinstance(shards, Mapping) else (shards,):
        if (
            not isinstance(name, str)
            or "/" in name
            or "\\" in name
            or Path(name).suffix != (".safetensors")
        ):
            raise ModelError(
                f"model {setting}: {_INDEX} names {name!r} as weights: expected safetensors files "
                "beside it"
            )
    for name in _SETTINGS:
        values = _read(find, _inside(folder, name), setting)
        _check_settings(values, name, setting, trusted)


def _check_settings(values: Mapping[str, Any], name: str, setting: str, trusted: bool) -> None:
    for section in _ARGUMENTS:
        arguments = values.get(section)
        asked = sorted(_REDIRECTIONS & arguments.keys()) if isinstance(arguments, Mapping) else []
        if asked:
            raise ModelError(
                f"model {setting}: {section} in {name} sets {asked[0]}, which decides what files "
                "are read: remove it"
            )
    for kernel in () if trusted else _kernels(values):
        raise ModelError(
            f"model {setting}: {name} asks for the attention {kernel!r}, which is code of a hub "
            "repository: remove it, or set trust_remote_code for this model if you have read it"
        )


def _modules(find: FindFile, setting: str, trusted: bool) -> Iterator[tuple[str, str]]:
    """Class and folder of each module of a sentence encoder; none of any other model."""
    found = _parsed(find, _MODULES, setting)
    for module in [] if found is None else found if isinstance(found, list) else [found]:
        kind, folder = (
            (str(module.get(key, "")) for key in ("type", "path"))
            if isinstance(module, Mapping)
            else (repr(module), "")
        )
        if not trusted and not _CLASS.fullmatch(kind):
            raise ModelError(
                f"model {setting}: {_MODULES} asks for the class {kind!r}, whose code would run: "
                f"expected one of {', '.join(sorted((*_WITH_WEIGHTS, *_PLAIN)))} of "
                "sentence_transformers; set trust_remote_code for this model if you have read it"
            )
        path = PurePosixPath(folder)
        if path.is_absolute() or ".." in path.parts or "\\" in folder or "\0" in folder:
            raise ModelError(
                f"model {setting}: {_MODULES} names the folder {folder!r}, which is not in it"
            )
        yield kind.rpartition(".")[2], folder


def _kernels(value: Any) -> Iterator[str]:
    """Attention implementations anywhere in settings that are repositories, not names."""
    if isinstance(value, list):
        for inner in value:
            yield from _kernels(inner)
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if str(key).endswith("attn_implementation"):
                choices = inner.values() if isinstance(inner, Mapping) else [inner]
                yield from (str(choice) for choice in choices if "/" in str(choice))
            yield from _kernels(inner)


def _read(find: FindFile, name: str, setting: str) -> Mapping[str, Any]:
    """The object in a JSON file; empty where there is no such file."""
    value = _parsed(find, name, setting)
    if value is not None and not isinstance(value, Mapping):
        raise ModelError(f"model {setting}: expected an object in {name}")
    return value or {}


def _parsed(find: FindFile, name: str, setting: str) -> Any:
    path = find(name)
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ModelError(f"model {setting}: {name} is not JSON") from None


def _inside(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
