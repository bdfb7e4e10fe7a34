"""The executor of tests, notebooks and small runs: everything in this process, one by one.

It starts nothing, so a run of a few hundred rows takes seconds in place of a minute. A row that
crashes the process ends the run, which Ray's workers would survive.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from threadpoolctl import threadpool_limits

from engine.artifacts.files import disk_problems_told
from engine.artifacts.parts import Part
from engine.errors import SettingsError
from engine.runtime.executor import (
    Executor,
    Partition,
    PartitionRunner,
    PartitionWorker,
    Team,
    Training,
)

if TYPE_CHECKING:
    import torch

    from engine.config import Execution

__all__ = ["LocalExecutor"]

T = TypeVar("T")


class LocalExecutor(Executor):
    """One process, one partition at a time, as many threads as a stage asks for."""

    @property
    def num_cpus(self) -> int:
        return (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )

    def call(self, function: Callable[..., T], *args: Any, threads: int = 1) -> T:
        with _threads(threads), disk_problems_told(Path("the working directory")):
            return function(*args)

    def _do(
        self,
        pending: Sequence[Partition],
        root: Path,
        worker: type[PartitionWorker],
        worker_args: Mapping[str, Any],
        execution: Execution,
        threads: int,
    ) -> Iterator[tuple[Part, int]]:
        with _threads(threads), disk_problems_told(root):
            runner = PartitionRunner(worker(**worker_args), root, secrets.token_hex(4))
            for partition in pending:
                yield runner.do(partition), partition.units

    def train(self, training: Training) -> dict[str, Any]:
        """As one worker. SettingsError where several would compute one sum."""
        if training.together and training.num_workers > 1:
            raise SettingsError(
                f"{training.what} by {training.num_workers} workers gives other sums than by one, "
                "and execution: local has one: set network.num_workers to 1, or leave out execution"
            )
        with _threads(1), disk_problems_told(training.storage_path):
            return training.loop(training.settings, _Alone(training.num_gpus))

    def refuse_unseen(self, paths: Sequence[Path]) -> None:
        """Nobody else works."""


class _Alone(Team):
    """A team of one, that keeps no checkpoints: it is for fits of seconds."""

    rank, size = 0, 1

    def __init__(self, num_gpus: float) -> None:
        self._on_gpu = num_gpus > 0

    @property
    def device(self) -> torch.device:
        import torch

        return torch.device("cuda" if self._on_gpu and torch.cuda.is_available() else "cpu")

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    def checkpoint(self) -> nullcontext[None]:
        return nullcontext(None)

    def report(self, metrics: Mapping[str, Any], save: Callable[[Path], None] | None) -> None:
        pass


@contextmanager
def _threads(threads: int) -> Iterator[None]:
    """So many threads for a while, as a worker of Ray has them: sums depend on their number."""
    import numba
    import torch

    before = torch.get_num_threads(), numba.get_num_threads()
    with threadpool_limits(threads):
        # numba first: starting its threads raises torch's count
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            numba.set_num_threads(before[1])
            torch.set_num_threads(before[0])
