"""Memory of a job and of the Ray that it starts, looked at from outside while it runs.

Four measures, in bytes. RSS counts a shared page in every process that maps it, PSS shares it out
among them, USS leaves it out; all three count pages of mapped files, which the system may drop at
any time. ANON leaves those out: what a process cannot do without. Of Linux only.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

__all__ = [
    "INTERVAL",
    "MEASURES",
    "ROLES",
    "MemorySampler",
    "Sample",
    "peak",
    "role_of",
    "worker_cpu_seconds",
]

Role = Literal["driver", "worker", "gcs", "raylet", "head_other"]
ROLES: tuple[Role, ...] = ("driver", "gcs", "raylet", "head_other", "worker")
MEASURES = ("rss", "pss", "uss", "anon")
INTERVAL = 0.5  # seconds between two looks
# Ray gives these two the titles of workers; they belong to the node.
_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


@dataclass(frozen=True)
class Sample:
    """One look: wall-clock time in seconds, and what the processes had then.

    Attributes:
        largest: (bytes, title) of the process that has most, by role and measure.
        cpu: seconds that each worker process has computed so far, by pid.
        load: runnable processes of the whole machine, the mean of the last minute.
    """

    time: float
    largest: Mapping[tuple[str, str], tuple[int, str]]
    cpu: Mapping[int, float] = field(default_factory=dict)
    load: float = 0.0


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
    largest: dict[tuple[str, str], tuple[int, str]] = {}
    cpu: dict[int, float] = {}
    for process in processes:
        try:
            command = " ".join(process.cmdline())
            role = role_of(process.pid, driver, process.name(), command)
            if role is None:
                continue
            sizes, times = _sizes(process), process.cpu_times()
        except (psutil.Error, OSError):  # it ended meanwhile
            continue
        if role == "worker":
            cpu[process.pid] = times.user + times.system
        for measure, size in sizes.items():
            largest[role, measure] = max(
                largest.get((role, measure), (0, "")), (size, command[:80])
            )
    return Sample(time.time(), largest, cpu, os.getloadavg()[0])


def _sizes(process: psutil.Process) -> dict[str, int]:
    found: Any = process.memory_full_info()
    sizes = {measure: int(getattr(found, measure)) for measure in ("rss", "pss", "uss")}
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    anon = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:")]
    return {**sizes, "anon": 1024 * int(anon[0]) if anon else 0}


def peak(
    samples: Sequence[Sample],
    role: Role,
    measure: str,
    start: float = 0.0,
    stop: float = math.inf,
) -> tuple[int, str]:
    """Most bytes of the largest process of a role between two times, and that process' title."""
    found = [
        sample.largest[role, measure]
        for sample in samples
        if (role, measure) in sample.largest and start <= sample.time <= stop
    ]
    return max(found, default=(0, ""))


def worker_cpu_seconds(samples: Sequence[Sample], start: float, stop: float) -> float:
    """CPU seconds of all worker processes between two times; what ended between two looks is lost.

    Unlike wall seconds they hardly depend on what else the machine does.
    """
    before: dict[int, float] = {}
    after: dict[int, float] = {}
    for sample in samples:
        if sample.time <= start:
            before |= sample.cpu
        if sample.time <= stop:
            after |= sample.cpu
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())
