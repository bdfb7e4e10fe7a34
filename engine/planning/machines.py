"""Where a run could go: this machine, or the cluster of a Ray cluster launcher's file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from engine.errors import SettingsError

__all__ = ["Machines", "read_cluster", "this_machine"]


@dataclass(frozen=True)
class Machines:
    """CPUs and GPUs of all workers together, at their largest number."""

    name: str
    cpus: int
    gpus: int


def this_machine() -> Machines:
    """The CPUs that this process may use."""
    return Machines("this machine", len(os.sched_getaffinity(0)), 0)


def read_cluster(path: Path) -> Machines:
    """All workers of a cluster file, each node type at its max_workers.

    Raises SettingsError for a file that cannot be read, or whose node types do not say their
    resources.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        types = dict(values["available_node_types"])
        head = values.get("head_node_type")
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError):
        raise SettingsError(
            f"{path} is not a cluster file of Ray: expected available_node_types"
        ) from None
    cpus = gpus = 0
    for name, node in types.items():
        count = 1 if name == head else int(node.get("max_workers", values.get("max_workers", 0)))
        resources: dict[str, Any] = node.get("resources") or {}
        if count and "CPU" not in resources:
            raise SettingsError(f"{path}: node type {name} does not say its resources: set CPU")
        cpus += count * int(resources.get("CPU", 0))
        gpus += count * int(resources.get("GPU", 0))
    return Machines(str(values.get("cluster_name", path.name)), cpus, gpus)
