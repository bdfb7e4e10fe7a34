"""What a run would find on this machine: versions, processors, memory, models, disk, Ray.

Looks only: starts no Ray and loads no model. Costs importing torch, some seconds.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from engine.config import PACKAGED_ENCODER, PACKAGED_LANGUAGE_MODEL, ModelConfig
from engine.errors import ModelError
from engine.models.resolve import resolve
from engine.planning.machines import this_machine
from engine.runtime.processor import emulates_bfloat16
from engine.terminal.progress import say

__all__ = ["doctor"]

_PACKAGES = ("ray", "torch", "transformers", "sentence-transformers", "peft", "numpy", "numba",
             "pyarrow", "faiss-cpu")  # fmt: skip
_OPTIONAL = {
    "bitsandbytes": "quantised models, QLoRA",
    "rouge-score": "evaluations",
    "bm25s": "the arm bm25",
    "vl-convert-python": "charts of studies as pictures",
}
_LOW_DISK_GIB, _LOW_MEMORY_GIB = 5.0, 4.0
_GIB = 2**30


def doctor() -> dict[str, Any]:
    """Say what is here on stderr, and what is wrong with it; returns the same as numbers.

    `problems` are sentences, empty where a run with packaged models would work.
    """
    problems: list[str] = []
    found: dict[str, Any] = {
        "nn_cift": metadata.version("nn-cift-engine"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in (*_PACKAGES, *_OPTIONAL)},
        "cpus": this_machine().cpus,
        "memory_gib": _memory_gib(),
        "emulates_bfloat16": emulates_bfloat16(),
        "gpus": _gpus(),
        "models": {path: _model(path) for path in (PACKAGED_ENCODER, PACKAGED_LANGUAGE_MODEL)},
        "free_gib": {name: _free_gib(path) for name, path in _places().items()},
        "ray_address": os.environ.get("RAY_ADDRESS"),
    }
    for name in _PACKAGES:
        if found["packages"][name] is None:
            problems.append(f"{name} is not installed: pip install . brings it")
    problems += [f"{told}" for told in found["models"].values() if told is not None]
    for name, free in found["free_gib"].items():
        if free < _LOW_DISK_GIB:
            problems.append(f"{free:.1f} GiB are free in {name}: Ray and a run want some")
    if found["memory_gib"] and found["memory_gib"] < _LOW_MEMORY_GIB:
        problems.append(
            f"{found['memory_gib']:.1f} GiB of memory: two models and Ray want {_LOW_MEMORY_GIB:g}"
        )
    found["problems"] = problems
    _tell(found)
    return found


def _tell(found: dict[str, Any]) -> None:
    say(f"nn-cift {found['nn_cift']}, Python {found['python']}, {found['system']}")
    say("  " + ", ".join(f"{name} {v}" for name, v in found["packages"].items() if v))
    for name, use in _OPTIONAL.items():
        if not found["packages"][name]:
            say(f"  {name} is not installed: it is for {use}")
    said = f"{found['cpus']} CPUs, {found['memory_gib'] or 0:.1f} GiB of memory"
    if found["emulates_bfloat16"]:
        said += "; bfloat16 is emulated here, many times slower than float32"
    say(said)
    say(", ".join(found["gpus"]) or "no GPU that torch can use")
    for path, wrong in found["models"].items():
        say(f"{path}: {'found' if wrong is None else 'not found'}")
    say(", ".join(f"{free:.0f} GiB free in {name}" for name, free in found["free_gib"].items()))
    address = found["ray_address"]
    say(f"Ray: runs go to RAY_ADDRESS {address}" if address else "Ray: a run starts its own")
    for problem in found["problems"]:
        say(f"problem: {problem}")
    if not found["problems"]:
        say("nothing is missing")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _model(path: str) -> str | None:
    """None where it is found, else why not."""
    try:
        resolve(ModelConfig(path=path))
    except ModelError as error:
        return str(error)
    return None


def _gpus() -> list[str]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    described = (torch.cuda.get_device_properties(i) for i in range(count))
    return [f"{one.name}, {one.total_memory / _GIB:.0f} GiB" for one in described]


def _memory_gib() -> float | None:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB)
    except (ValueError, OSError):
        return None


def _places() -> dict[str, Path]:
    return {"this folder": Path.cwd(), "the temporary folder": Path(tempfile.gettempdir())}


def _free_gib(path: Path) -> float:
    return shutil.disk_usage(path).free / _GIB
