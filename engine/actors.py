"""The one door to Ray: a cluster to work on, actor pools over partitions, and single tasks.

A *partition* is a piece of work that depends on the data alone: a row range, a group of pairs. An
actor of a Ray Data pool takes one partition at a time, reads its rows from the run directory,
writes its part there and returns a record of a few hundred bytes. So rows never pass through the
driver, Ray's block layout and the number of actors cannot change a byte, and a partition whose
part is finished is never done again.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import ray
import ray.data
from ray.exceptions import RayActorError, RayTaskError, WorkerCrashedError

from engine import errors
from engine.config import Execution, RayConfig
from engine.errors import EngineError, SettingsError
from engine.progress import Progress
from engine.run_directory import Part, finish_part, finished_part
from engine.stage import Stopwatch

__all__ = [
    "Partition",
    "PartitionWorker",
    "connected",
    "node_cpus",
    "run_partitions",
    "run_task",
]

T = TypeVar("T")

# A worker process that dies is replaced and its partition retried this often; then the job stops.
# Ray's default is without end, which turns one row that crashes the process into a hang.
_MAX_RESTARTS = 3


@contextmanager
def connected(config: RayConfig) -> Iterator[None]:
    """A Ray cluster for the duration: the one we are in, the one named, or a local one of ours.

    Only a cluster that was started here is shut down. A local cluster is guarded by a token that
    lives in this process' environment alone.
    """
    if ray.is_initialized():
        yield
        return
    address = config.address or os.environ.get("RAY_ADDRESS")
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors reach the user through us
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        try:
            ray.init(address=address, **quiet)
        except ConnectionError as error:
            raise SettingsError(f"no Ray cluster answers at {address}: {error}") from None
    else:
        _start_local(config, quiet)
    try:
        yield
    finally:
        ray.shutdown()  # of a cluster that we joined, this only leaves it


def _start_local(config: RayConfig, quiet: Mapping[str, Any]) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray turns tokens on for a new cluster unless RAY_AUTH_MODE says otherwise; given one here,
    # it does not leave its own in the home directory, where later clusters would find it.
    if not os.environ.keys() & {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    for is_last in (False, True):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Ray about its own future defaults
                ray.init(
                    address="local",
                    num_cpus=config.num_cpus,
                    include_dashboard=False,
                    object_store_memory=config.object_store_mib * 2**20,
                    **quiet,
                )
            return
        except RuntimeError:  # on a busy machine its processes may miss a fixed 15 s deadline
            if is_last:
                raise
            ray.shutdown()


# --- actor pools over partitions -----------------------------------------------------------------


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
    """What an actor does with a partition; built once per actor, so `__init__` loads the model."""

    @abstractmethod
    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        """Write the partition's data file atomically; returns its rows and what it cost.

        Raise EngineError for what the user can act on. Must be safe to repeat.
        """


def run_partitions(
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
    """Do the partitions that are not finished yet on an actor pool; returns all parts in order.

    Memory of the driver: one record per partition. A crash or kill loses at most the partition
    that each actor was at.
    """
    found = {p.path: finished_part(root / p.path) for p in partitions}
    pending = [p for p in partitions if found[p.path] is None]
    total, left = sum(p.units for p in partitions), sum(p.units for p in pending)
    with Progress(label, total, unit, done=total - left) as progress:
        for part, units in _on_pool(pending, root, worker, worker_args, execution, threads):
            found[part.path] = part
            progress.advance(units)
    parts = [found[p.path] for p in partitions]
    assert all(part is not None for part in parts), "a partition ended without its part"
    return [part for part in parts if part is not None]


def _on_pool(
    pending: Sequence[Partition],
    root: Path,
    worker: type[PartitionWorker],
    worker_args: Mapping[str, Any],
    execution: Execution,
    threads: int,
) -> Iterator[tuple[Part, int]]:
    if not pending:
        return
    if len(pending) == 1:
        yield _alone(pending[0], root, worker, worker_args, execution, threads)
        return
    pool, num_cpus = _pool_size(execution, threads, len(pending))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = 0  # never drop a block; with restarts left this could hang
    context.execution_options.verbose_progress = False
    rows = [{"partition": json.dumps(asdict(p))} for p in pending]
    with warnings.catch_warnings():
        # Ray 2.60 announces other names for the two last arguments, and does not have them yet
        warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _PoolActor,
            fn_constructor_args=(worker, dict(worker_args), str(root), threads),
            compute=pool,
            batch_size=1,
            num_cpus=num_cpus,
            num_gpus=execution.num_gpus or None,
            max_restarts=_MAX_RESTARTS,
            max_task_retries=_MAX_RESTARTS,
        )
    try:
        for row in dataset.iter_rows():
            yield _part_of(row["outcome"])
    except RayActorError as error:
        raise _died(error) from None


def _alone(
    partition: Partition,
    root: Path,
    worker: type[PartitionWorker],
    worker_args: Mapping[str, Any],
    execution: Execution,
    threads: int,
) -> tuple[Part, int]:
    """A single partition as a task: a pool would start a process for it, some ten seconds."""
    cpus = min(float(threads), max(ray.cluster_resources().get("CPU", 1.0), 1.0))
    remote = ray.remote(
        num_cpus=cpus, num_gpus=execution.num_gpus or None, max_retries=_MAX_RESTARTS
    )(_do_alone)
    text = json.dumps(asdict(partition))
    try:
        outcome = ray.get(remote.remote(worker, dict(worker_args), str(root), threads, text))
    except WorkerCrashedError as error:
        raise _died(error) from None
    return _part_of(outcome)


def _do_alone(
    worker: type[PartitionWorker], worker_args: dict[str, Any], root: str, threads: int, text: str
) -> str:
    outcomes: list[str] = _PoolActor(worker, worker_args, root, threads)({"partition": [text]})[
        "outcome"
    ]
    return outcomes[0]


def _part_of(text: str) -> tuple[Part, int]:
    """The part of an outcome and its units of work; raises what the worker told the user."""
    outcome = json.loads(text)
    if "error" in outcome:
        raise getattr(errors, outcome["error"])(outcome["message"])
    return Part(**outcome["part"]), outcome["units"]


def _died(error: Exception) -> EngineError:
    return EngineError(
        f"a worker process died {_MAX_RESTARTS + 1} times at the same piece of work; what was "
        f"finished is kept, and the same command goes on from there ({_first_line(error)})"
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _pool_size(
    execution: Execution, threads: int, num_partitions: int
) -> tuple[ray.data.ActorPoolStrategy, float]:
    """The pool, and the CPUs that each actor asks for so that the pool leaves one CPU free.

    Actors that hold every CPU can starve the rest of the job for ever (Ray issue 44687).
    """
    available = ray.cluster_resources()
    cpus = available.get("CPU", 1.0)
    fits = max(1, int(cpus // threads))
    if execution.num_gpus:
        fits = max(1, int(available.get("GPU", 0.0) // execution.num_gpus))
    largest = min(execution.max_actors or fits, num_partitions)
    start = max(1, min(fits, largest))
    num_cpus = min(float(threads), round(max(cpus - 1, 0.5) / start, 2))
    pool = ray.data.ActorPoolStrategy(
        min_size=min(execution.min_actors, largest), max_size=largest, initial_size=start
    )
    return pool, num_cpus


class _PoolActor:
    """Adapts a PartitionWorker to Ray Data: one JSON text in, one JSON text out."""

    def __init__(
        self, worker: type[PartitionWorker], worker_args: dict[str, Any], root: str, threads: int
    ) -> None:
        self._root = Path(root)
        self._failure: dict[str, str] | None = None
        _limit_threads(threads)
        try:
            self._worker = worker(**worker_args)
        except EngineError as error:  # told as a result: Ray would wrap it in its own traceback
            self._failure = _told(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        return {"outcome": [json.dumps(self._do(text)) for text in batch["partition"]]}

    def _do(self, text: str) -> dict[str, Any]:
        if self._failure is not None:
            return self._failure
        partition = Partition(**json.loads(text))
        path = self._root / partition.path
        watch = Stopwatch()
        try:
            rows, usage = self._worker.write(partition.payload, path)
        except EngineError as error:
            return _told(error)
        part = finish_part(self._root, path, rows, {**usage, **watch.usage()})
        return {"part": asdict(part), "units": partition.units}


def _told(error: EngineError) -> dict[str, str]:
    return {"error": type(error).__name__, "message": str(error)}


def _limit_threads(threads: int) -> None:
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


# --- single tasks --------------------------------------------------------------------------------


def run_task(function: Callable[..., T], *args: Any, threads: int = 1) -> T:
    """Run a function in a Ray worker, so that its memory is not the driver's; returns its result.

    The result must be small. An EngineError arrives as itself.
    """
    cpus = min(float(threads), max(ray.cluster_resources().get("CPU", 1.0), 1.0))
    remote = ray.remote(num_cpus=cpus, max_retries=2)(_with_threads)
    try:
        result: T = ray.get(remote.remote(function, threads, *args))
    except RayTaskError as error:
        if isinstance(error.cause, EngineError):
            raise error.cause from None
        raise
    return result


def node_cpus() -> int:
    """CPUs of the largest node: the most threads that one task can ask for."""
    nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    return max(1, int(max(nodes, default=1.0)))


def _with_threads(function: Callable[..., T], threads: int, *args: Any) -> T:
    _limit_threads(threads)
    return function(*args)
