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
import socket
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import ray
import ray.data
import ray.train
from ray.exceptions import (
    NodeDiedError,
    RayActorError,
    RayError,
    RayTaskError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from engine import errors, storage
from engine.config import Execution, RayConfig
from engine.crashes import Trail, crashed_loading, loaded
from engine.errors import EngineError, RunDirectoryError, SettingsError
from engine.progress import Progress
from engine.run_directory import Part, disk_problems_told, finish_part, finished_part
from engine.stage import Stopwatch

__all__ = [
    "Partition",
    "PartitionWorker",
    "connected",
    "cpu_resources",
    "node_cpus",
    "refuse_unseen",
    "run_partitions",
    "run_task",
    "storage_of",
    "training_failures_told",
]

T = TypeVar("T")

# Worker processes are replaced without end, since on a cluster of spot machines all of them are, in
# time; `crashes` is what ends work that kills every worker.
_WITHOUT_END = -1
_TASK_RETRIES = 5
_SLIVER = 0.001  # of `ray.cpu_resource`: enough to be placed by it

_cpu_resource: str | None = None


@contextmanager
def connected(config: RayConfig) -> Iterator[None]:
    """A Ray cluster for the duration: the one we are in, the one named, or a local one of ours.

    Only a cluster that was started here is shut down. A local cluster is guarded by a token that
    lives in this process' environment alone. EngineError when the cluster itself fails.
    """
    global _cpu_resource
    before, _cpu_resource = _cpu_resource, config.cpu_resource
    with _joined(config):
        try:
            yield
        except RayTaskError:  # of our own code: a bug, with its traceback
            raise
        except RayError as error:
            raise EngineError(
                f"the Ray cluster failed ({type(error).__name__}: {_first_line(error)}); what was "
                "finished is kept, and the same command goes on from there"
            ) from error
        finally:
            _cpu_resource = before


@contextmanager
def _joined(config: RayConfig) -> Iterator[None]:
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
    # the process of the dashboard, which we do not start, would still serve metrics to everybody:
    # a port that cannot be opened keeps it from that
    os.environ.setdefault("DASHBOARD_METRIC_PORT", "-1")
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        # given one here, Ray leaves none in the home directory, where later clusters would find it
        if not os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        ray._raylet.Config.initialize("")  # it was imported before, and keeps the mode it saw then
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


def cpu_resources() -> dict[str, float]:
    """What work without a GPU asks for beside CPUs, so that it keeps off the GPU nodes."""
    return {} if _cpu_resource is None else {_cpu_resource: _SLIVER}


def refuse_unseen(paths: Sequence[Path]) -> None:
    """Raise RunDirectoryError when a node of the cluster does not see one of these paths.

    The last moment at which a run directory on a laptop's own disk costs nothing. Nodes that join
    later are checked when their first actor starts.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    remote = ray.remote(num_cpus=0, max_retries=2)(_unseen)
    asked = [
        (
            node["NodeManagerHostname"],
            remote.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote([str(path) for path in paths]),
        )
        for node in nodes
        if node["Resources"].get("CPU", 0) > 0  # the others are given no work
    ]
    for host, answer in asked:
        with suppress(TaskUnschedulableError, NodeDiedError):  # gone, and not yet known to be
            if missing := ray.get(answer):
                raise RunDirectoryError(_unseen_sentence(missing[0], host))


def _unseen(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not os.path.lexists(path)]


def _unseen_sentence(path: str, host: str) -> str:
    return (
        f"node {host} of the cluster does not see {path}: put the run directory, the corpus and "
        "the models on a path that all nodes mount, or on object storage (s3://..., gs://...)"
    )


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

        Rows of `payload["left_out"]`, if there are any, get no answer but `crashes.CRASHED`. Raise
        EngineError for what the user can act on. Must be safe to repeat.
        """

    def num_rows(self, payload: Mapping[str, Any]) -> int:
        """Rows that `try_row` can try and `write` can leave out; 0 when it has none."""
        return 0

    def try_row(self, payload: Mapping[str, Any], row: int) -> None:
        """Do the work for one row alone and forget it, to find out whether it crashes."""
        raise AssertionError(f"{type(self).__name__} cannot try row {row} alone")


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
    with ThreadPoolExecutor(16) as threads_of_driver:  # in object storage each is a request
        records = threads_of_driver.map(lambda p: finished_part(root / p.path), partitions)
        found = {p.path: part for p, part in zip(partitions, records, strict=True)}
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
    pool, num_cpus = _pool_size(execution, threads, len(pending), ray.cluster_resources())
    job = secrets.token_hex(4)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = 0  # never drop a block
    context.execution_options.verbose_progress = False
    rows = [{"partition": json.dumps(asdict(p))} for p in pending]
    with warnings.catch_warnings():
        # Ray 2.60 announces other names for the two last arguments, and does not have them yet
        warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _PoolActor,
            fn_constructor_args=(worker, dict(worker_args), str(root), threads, job),
            compute=pool,
            batch_size=1,
            num_cpus=num_cpus,
            num_gpus=execution.num_gpus or None,
            resources=_placement(execution) or None,
            max_restarts=_WITHOUT_END,
            max_task_retries=_WITHOUT_END,
        )
    try:
        for row in dataset.iter_rows():
            yield _part_of(row["outcome"])
    except RayActorError as error:
        raise _died(error) from None


def _placement(execution: Execution) -> dict[str, float]:
    return {} if execution.num_gpus else cpu_resources()


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
        num_cpus=cpus,
        num_gpus=execution.num_gpus or None,
        resources=_placement(execution) or None,
        max_retries=_WITHOUT_END,
    )(_do_alone)
    text, job = json.dumps(asdict(partition)), secrets.token_hex(4)
    try:
        outcome = ray.get(remote.remote(worker, dict(worker_args), str(root), threads, job, text))
    except WorkerCrashedError as error:
        raise _died(error) from None
    return _part_of(outcome)


def _do_alone(
    worker: type[PartitionWorker],
    worker_args: dict[str, Any],
    root: str,
    threads: int,
    job: str,
    text: str,
) -> str:
    actor = _PoolActor(worker, worker_args, root, threads, job)
    outcomes: list[str] = actor({"partition": [text]})["outcome"]
    return outcomes[0]


def _part_of(text: str) -> tuple[Part, int]:
    """The part of an outcome and its units of work; raises what the worker told the user."""
    outcome = json.loads(text)
    if "error" in outcome:
        raise getattr(errors, outcome["error"])(outcome["message"])
    return Part(**outcome["part"]), outcome["units"]


def _died(error: Exception) -> EngineError:
    return EngineError(
        "a worker process died and could not be replaced; what was finished is kept, and the "
        f"same command goes on from there ({_first_line(error)})"
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _pool_size(
    execution: Execution, threads: int, num_partitions: int, available: Mapping[str, float]
) -> tuple[ray.data.ActorPoolStrategy, float]:
    """The pool, and the CPUs that each actor asks for.

    By default as many actors as fit the cluster as it is. Where `max_actors` allows more, all of
    them are asked for at once, which is what makes an autoscaler add nodes; work begins with the
    first that is there, and each asks for whole CPUs. Otherwise each asks for a share that leaves
    one CPU free: actors that hold every CPU can starve a job for ever (Ray issue 44687).
    """
    cpus = available.get("CPU", 0.0)
    fits = int(cpus // threads)
    if execution.num_gpus:
        fits = int(available.get("GPU", 0.0) // execution.num_gpus)
    largest = min(execution.max_actors or max(fits, 1), num_partitions)
    smallest = min(execution.min_actors, largest)
    start = min(execution.initial_actors or largest, largest)
    share = round(max(cpus - 1, 0.5) / max(start, 1), 2)
    grows = largest > max(fits, 1)
    pool = ray.data.ActorPoolStrategy(
        min_size=smallest, max_size=largest, initial_size=max(start, smallest)
    )
    return pool, float(threads) if grows else min(float(threads), share)


class _PoolActor:
    """Adapts a PartitionWorker to Ray Data: one JSON text in, one JSON text out."""

    def __init__(
        self,
        worker: type[PartitionWorker],
        worker_args: dict[str, Any],
        root: str,
        threads: int,
        job: str,
    ) -> None:
        self._root, self._job = Path(root), job
        self._failure: dict[str, str] | None = None
        _limit_threads(threads)
        try:
            self._worker = self._load(worker, worker_args)
        except EngineError as error:  # told as a result: Ray would wrap it in its own traceback
            self._failure = _told(error, where=_other_node())

    def _load(self, worker: type[PartitionWorker], worker_args: dict[str, Any]) -> PartitionWorker:
        # a node that joined after the check at the start
        if storage.uri_of(self._root) is None and not self._root.is_dir():
            raise RunDirectoryError(_unseen_sentence(str(self._root), socket.gethostname()))
        actor = ray.get_runtime_context().get_actor_id() or "task"
        mark = (self._root, worker.__name__, self._job, actor)
        with disk_problems_told(self._root):
            if error := crashed_loading(*mark):
                raise error
            try:
                return worker(**worker_args)
            finally:
                loaded(*mark)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        return {"outcome": [json.dumps(self._do(text)) for text in batch["partition"]]}

    def _do(self, text: str) -> dict[str, Any]:
        if self._failure is not None:
            return self._failure
        partition = Partition(**json.loads(text))
        path = self._root / partition.path
        try:
            with disk_problems_told(self._root):
                # of an earlier try, whose answer was lost with its node
                part = finished_part(path) or self._finish(partition, path)
        except EngineError as error:
            return _told(error)
        return {"part": asdict(part), "units": partition.units}

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


def _told(error: EngineError, where: str = "") -> dict[str, str]:
    return {"error": type(error).__name__, "message": f"{where}{error}"}


def _other_node() -> str:
    """Which node this is, where that tells anything: what one cannot load, others may."""
    alive = sum(node["Alive"] for node in ray.nodes())
    return f"on node {socket.gethostname()}: " if alive > 1 else ""


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
    resources = cpu_resources() or None
    remote = ray.remote(num_cpus=cpus, resources=resources, max_retries=_TASK_RETRIES)(
        _with_threads
    )
    try:
        result: T = ray.get(remote.remote(function, threads, *args))
    except WorkerCrashedError as error:
        raise EngineError(
            f"a worker process died {_TASK_RETRIES + 1} times in {function.__name__.strip('_')}; "
            "out of memory is the usual reason. What was finished is kept, and the same command "
            f"goes on from there ({_first_line(error)})"
        ) from None
    except RayTaskError as error:
        if isinstance(error.cause, EngineError):
            raise error.cause from None
        raise
    return result


def storage_of(path: Path) -> dict[str, Any]:
    """Where Ray Train keeps its checkpoints, as settings of ray.train.RunConfig."""
    uri = storage.uri_of(path)
    if uri is None:
        return {"storage_path": str(path.absolute())}
    filesystem, place = storage.filesystem_of(uri)
    return {"storage_path": place, "storage_filesystem": filesystem}


@contextmanager
def training_failures_told(what: str) -> Iterator[None]:
    """Turn the end of Ray Train's retries into one sentence."""
    try:
        yield
    except ray.train.TrainingFailedError as error:
        reasons = [line for line in str(error).strip().splitlines() if line.strip()]
        raise EngineError(
            f"the workers of {what} failed until Ray Train gave up ({reasons[-1].strip()}); what "
            "was finished is kept, and the same command goes on from there"
        ) from error


def node_cpus() -> int:
    """CPUs of the largest node: the most threads that one task can ask for."""
    nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    return max(1, int(max(nodes, default=1.0)))


def _with_threads(function: Callable[..., T], threads: int, *args: Any) -> T:
    _limit_threads(threads)
    with disk_problems_told(Path("the working directory")):
        return function(*args)
