"""The executor: what a stage asks for, whoever does it.

A *partition* is a piece of work that depends on the data alone: a row range, a group of pairs. A
worker takes one at a time, reads its rows from the run directory, writes its part there and returns
a record of a few hundred bytes. So rows never pass through the driver, neither the number of
workers nor who runs them can change a byte, and a partition whose part is finished is never done
again.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from engine.artifacts.parts import Part, finish_part, finished_part
from engine.runtime.crashes import Trail
from engine.runtime.stopwatch import Stopwatch
from engine.terminal.progress import Progress

if TYPE_CHECKING:
    import torch

    from engine.config import Execution

__all__ = [
    "Executor",
    "Partition",
    "PartitionRunner",
    "PartitionWorker",
    "Team",
    "Training",
    "limit_threads",
]

T = TypeVar("T")


@dataclass(frozen=True)
class Partition:
    """A piece of work and the file it ends in.

    Attributes:
        path: of the data file, relative to the artifact; its name holds a digest of all that the
            content depends on.
        units: how much work it is, in the unit of the progress bar.
        payload: what the worker needs to know: small and JSON-able, never rows.
    """

    path: str
    units: int
    payload: dict[str, Any] = field(default_factory=dict)


class PartitionWorker(ABC):
    """What is done with a partition; built once per actor, so `__init__` loads the model."""

    @abstractmethod
    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        """Write the partition's data file atomically; returns its rows and what it cost.

        Rows of `payload["left_out"]`, if there are any, get no answer but `crashes.CRASHED`. Raise
        EngineError for what the user can act on. Must be safe to repeat.
        """

    def num_rows(self, payload: Mapping[str, Any]) -> int:
        """Rows that `try_row` can try and `write` can leave out; 0 when it has none."""
        return 0

    def try_row(self, payload: Mapping[str, Any], row: int) -> None:
        """Do the work for one row alone and forget it, to find out whether it crashes."""
        raise AssertionError(f"{type(self).__name__} cannot try row {row} alone")


class Team(ABC):
    """What a training loop is given: its place among the workers, and where it can go on."""

    rank: int
    size: int

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where this worker computes."""

    @abstractmethod
    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all workers, in place."""

    @abstractmethod
    def checkpoint(self) -> AbstractContextManager[Path | None]:
        """A folder with the last state that was reported, if there is one."""

    @abstractmethod
    def report(self, metrics: Mapping[str, Any], save: Callable[[Path], None] | None) -> None:
        """Every worker, equally often: how far it is; rank 0 also what writes the state."""


TrainingLoop: TypeAlias = Callable[[dict[str, Any], Team], dict[str, Any]]


@dataclass(frozen=True)
class Training:
    """One training, by some workers that may compute together.

    Attributes:
        what: for people, e.g. "the fit".
        loop: what each worker does with `settings` and its Team; rank 0's result is the outcome.
            A function of a module; to be repeated after a crash, from the last checkpoint.
        settings: JSON-able.
        num_workers, num_gpus: how many, and GPUs of each.
        together: whether workers compute one sum: then their number decides its last bits.
        storage_path, name: where checkpoints are kept. The same two go on with what did not end,
            so `name` must change with the settings and the data.
    """

    what: str
    loop: TrainingLoop
    settings: dict[str, Any]
    num_workers: int
    num_gpus: float
    together: bool
    storage_path: Path
    name: str


class Executor(ABC):
    """Who does the work. Both kinds give the same bytes; what is finished is kept by both.

    Attributes:
        was_started_here: whether processes were started for this job alone.
    """

    was_started_here = False

    @property
    @abstractmethod
    def num_cpus(self) -> int:
        """The most threads that one task can ask for."""

    @abstractmethod
    def call(self, function: Callable[..., T], *args: Any, threads: int = 1) -> T:
        """A function of a module, away from the driver's memory where there is such a place; its
        result must be small. An EngineError arrives as itself.
        """

    def map(
        self,
        partitions: Sequence[Partition],
        root: Path,
        worker: type[PartitionWorker],
        worker_args: Mapping[str, Any],
        *,
        label: str,
        unit: str,
        execution: Execution,
        threads: int = 1,
    ) -> list[Part]:
        """Do the partitions that are not finished yet; returns all parts in order.

        Memory of the driver: one record per partition. A crash or kill loses at most the partition
        that each worker was at.
        """
        with ThreadPoolExecutor(16) as threads_of_driver:  # in object storage each is a request
            records = threads_of_driver.map(lambda p: finished_part(root / p.path), partitions)
            found = {p.path: part for p, part in zip(partitions, records, strict=True)}
        pending = [p for p in partitions if found[p.path] is None]
        total, left = sum(p.units for p in partitions), sum(p.units for p in pending)
        with Progress(label, total, unit, done=total - left) as progress:
            if pending:
                for part, units in self._do(pending, root, worker, worker_args, execution, threads):
                    found[part.path] = part
                    progress.advance(units)
        parts = [found[p.path] for p in partitions]
        assert all(part is not None for part in parts), "a partition ended without its part"
        return [part for part in parts if part is not None]

    @abstractmethod
    def _do(
        self,
        pending: Sequence[Partition],
        root: Path,
        worker: type[PartitionWorker],
        worker_args: Mapping[str, Any],
        execution: Execution,
        threads: int,
    ) -> Iterator[tuple[Part, int]]:
        """Parts and their units of work, in any order."""

    @abstractmethod
    def train(self, training: Training) -> dict[str, Any]:
        """Run a training to its end; EngineError when its workers keep failing."""

    @abstractmethod
    def refuse_unseen(self, paths: Sequence[Path]) -> None:
        """Raise RunDirectoryError when some machine that works does not see one of these paths."""


class PartitionRunner:
    """Does partitions with one worker: nothing twice, and what dies has left a trail."""

    def __init__(self, worker: PartitionWorker, root: Path, job: str) -> None:
        self._worker, self._root, self._job = worker, root, job

    def do(self, partition: Partition) -> Part:
        """The partition's part, which an earlier try whose answer was lost may have finished."""
        path = self._root / partition.path
        return finished_part(path) or self._finish(partition, path)

    def _finish(self, partition: Partition, path: Path) -> Part:
        watch, worker, payload = Stopwatch(), self._worker, partition.payload
        trail = Trail.start(self._root, partition.path, self._job, worker.num_rows(payload))
        try:
            for row in trail.suspects():
                worker.try_row(payload, row)
            left_out = {"left_out": trail.crashing} if trail.crashing else {}
            rows, usage = worker.write({**payload, **left_out}, path)
            usage = {**usage, **watch.usage()}
            return finish_part(self._root, path, rows, usage, trail.crashing)
        finally:  # not reached by a worker that dies
            trail.end()


def limit_threads(threads: int) -> None:
    """Fix the thread counts of this process: sums, and so the output, depend on them.

    For libraries that are loaded later through the environment, for loaded ones by call. numba is
    only told by call: Ray may take the variable back after a task, and numba then refuses to
    compile; its kernels give the same bits for any number of threads.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "numba" in sys.modules:
        import numba

        # before torch: starting numba's threads raises torch's count (they share one runtime)
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)
