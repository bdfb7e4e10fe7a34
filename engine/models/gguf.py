"""GGUF files: converted once to a plain safetensors directory.

Loading a GGUF dequantises it every time, and transformers 5 refuses to save what it loaded that
way. So the first use builds the model from its config, lets it take over the dequantised weights,
and saves that in a cache that all processes of a machine share.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock

from engine.errors import ModelError

__all__ = ["cache_directory", "converted_directory"]

_ALONE = "model.gguf"


def cache_directory() -> Path:
    """Where converted models are kept: $NN_CIFT_CACHE, or ~/.cache/nn-cift."""
    folder = os.environ.get("NN_CIFT_CACHE")
    return Path(folder).expanduser() if folder else Path.home() / ".cache" / "nn-cift"


def converted_directory(file: Path, name: str) -> Path:
    """Directory with the float32 safetensors form of a GGUF file, made on the first call.

    `name` is the identity of the file's content; the directory is cache/models/NAME. The first
    call takes about half a minute and, for a moment, twice the model's float32 size in memory;
    processes that race wait for one of them. The directory appears complete (renamed into place)
    or not at all. Raises ModelError for a file that transformers cannot read.
    """
    final = cache_directory() / "models" / name
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(final.with_suffix(".lock")):
        if not final.is_dir():
            _convert_into_place(file, final)
    return final


def _convert_into_place(file: Path, final: Path) -> None:
    partial = Path(tempfile.mkdtemp(prefix=f".{final.name[:16]}-", dir=final.parent))
    try:
        _convert(file, partial)
        partial.chmod(0o755)
        partial.rename(final)
    except OSError:
        # On file systems without working locks another process may have been first.
        if not final.is_dir():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _convert(file: Path, directory: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # From a folder in which it is alone: transformers would take an adapter, settings and a
    # tokenizer from beside it, and none of them is part of the identity that names the result.
    # Left unsaid, trust_remote_code is a question on the terminal.
    apart = directory / ".gguf"
    apart.mkdir()
    (apart / _ALONE).symlink_to(file.resolve())
    shared = {"gguf_file": _ALONE, "local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(apart), **shared)
        loaded = AutoModelForCausalLM.from_pretrained(str(apart), dtype=torch.float32, **shared)
    except Exception as error:  # transformers raises whatever its GGUF reader trips over
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{file.name} cannot be read as GGUF: {reason}") from error
    finally:
        shutil.rmtree(apart)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
