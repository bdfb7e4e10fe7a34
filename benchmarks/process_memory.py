"""Memory of a job and of the Ray that it starts, looked at from outside while it runs.

Three measures, in bytes: RSS counts a shared page in every process that maps it, PSS shares it out
among them, USS leaves it out. Mapped files and Ray's object store are shared, so PSS is what sums.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import psutil

__all__ = ["INTERVAL", "MEASURES", "ROLES", "MemorySampler", "Sample", "peak", "role_of"]

Role = Literal["driver", "worker", "gcs", "raylet", "head_other"]
ROLES: tuple[Role, ...] = ("driver", "worker", "gcs", "raylet", "head_other")
MEASURES = ("rss", "pss", "uss")
INTERVAL = 0.5  # seconds between two looks
# Ray gives these two the titles of workers; they belong to the node.
_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


@dataclass(frozen=True)
class Sample:
    """One look: wall-clock time in seconds, and bytes by role and measure.

    Attributes:
        largest: of each role the process with the most PSS, {measure: bytes}.
        total: of all processes of the role together.
        titles: of the largest process of each role.
    """

    time: float
    largest: Mapping[str, Mapping[str, int]]
    total: Mapping[str, Mapping[str, int]]
    titles: Mapping[str, str]


def role_of(pid: int, driver: int, name: str, command: str) -> Role | None:
    """What a process below the driver is to Ray; None for a passing one, such as a shell."""
    if pid == driver:
        return "driver"
    if name == "gcs_server" or command.split(" ")[0].endswith("/gcs_server"):
        return "gcs"
    if name == "raylet" or command.split(" ")[0].endswith("/raylet"):
        return "raylet"
    if command.startswith(_AGENTS):
        return "head_other"
    if command.startswith("ray::") or "default_worker.py" in command:
        return "worker"
    return "head_other" if "/ray/" in command else None


@dataclass
class MemorySampler:
    """Samples a process and all below it, every INTERVAL seconds, in a thread of its own."""

    driver: int
    samples: list[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> MemorySampler:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL):
            sample = _look(self.driver)
            if sample is not None:
                self.samples.append(sample)


def _look(driver: int) -> Sample | None:
    try:
        root = psutil.Process(driver)
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:
        return None
    largest: dict[str, dict[str, int]] = {}
    total: dict[str, dict[str, int]] = {}
    titles: dict[str, str] = {}
    for process in processes:
        try:
            command = " ".join(process.cmdline())
            role = role_of(process.pid, driver, process.name(), command)
            if role is None:
                continue
            found: Any = process.memory_full_info()
        except psutil.Error:  # it ended meanwhile
            continue
        sizes = {measure: int(getattr(found, measure)) for measure in MEASURES}
        sums = total.setdefault(role, dict.fromkeys(MEASURES, 0))
        for measure in MEASURES:
            sums[measure] += sizes[measure]
        if role not in largest or sizes["pss"] > largest[role]["pss"]:
            largest[role], titles[role] = sizes, command[:80]
    return Sample(time.time(), largest, total, titles)


def peak(
    samples: list[Sample], role: Role, measure: str = "pss", start: float = 0.0, stop: float = 1e18
) -> tuple[int, str]:
    """Most bytes of the largest process of a role between two times, and that process' title."""
    found = [
        (sample.largest[role][measure], sample.titles[role])
        for sample in samples
        if role in sample.largest and start <= sample.time <= stop
    ]
    return max(found, default=(0, ""))
