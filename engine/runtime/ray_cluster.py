"""The one door to Ray: a cluster to work on, and single tasks on it.

Pools of actors over many partitions are in ray_pools.py, trainings in ray_training.py.
"""

from __future__ import annotations

import logging
import os
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import (
    NodeDiedError,
    RayError,
    RayTaskError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from engine.artifacts.files import disk_problems_told
from engine.artifacts.parts import Part
from engine.config import Execution, RayConfig
from engine.errors import EngineError, RunDirectoryError, SettingsError
from engine.runtime.executor import (
    Executor,
    Partition,
    PartitionWorker,
    Training,
    limit_threads,
)
from engine.terminal.ends import own_handlers, undisturbed

__all__ = ["RayExecutor", "connected", "first_line", "unseen_sentence"]

T = TypeVar("T")
_TASK_RETRIES = 5
_SLIVER = 0.001  # of the resource: enough to be placed by it


@contextmanager
def connected(config: RayConfig) -> Iterator[RayExecutor]:
    """Work on a Ray cluster: the one we are in, the one named, or a local one for the duration.

    Only a cluster that was started here is shut down. A local cluster is guarded by a token that
    lives in this process' environment alone. EngineError when the cluster itself fails.
    """
    with _joined(config) as is_ours:
        try:
            yield RayExecutor(config.cpu_resource, is_ours)
        except RayTaskError:  # of our own code: a bug, with its traceback
            raise
        except RayError as error:
            raise EngineError(
                f"the Ray cluster failed ({type(error).__name__}: {first_line(error)}); what was "
                "finished is kept, and the same command goes on from there"
            ) from error


class RayExecutor(Executor):
    """Tasks, pools of actors and Ray Train on the cluster that this process is connected to.

    Attributes:
        cpu_resource: a custom resource of nodes without a GPU, which work that needs none asks for.
        was_started_here: whether the cluster is this job's own.
    """

    def __init__(self, cpu_resource: str | None = None, was_started_here: bool = False) -> None:
        self.cpu_resource, self.was_started_here = cpu_resource, was_started_here

    @property
    def num_cpus(self) -> int:
        nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
        return max(1, int(max(nodes, default=1.0)))

    def resources(self, num_gpus: float = 0) -> dict[str, float]:
        """What work asks for beside CPUs and GPUs: without a GPU it keeps off their nodes."""
        off = self.cpu_resource is None or num_gpus
        return {} if off else {str(self.cpu_resource): _SLIVER}

    def call(self, function: Callable[..., T], *args: Any, threads: int = 1) -> T:
        """In a worker process, so that its memory is not the driver's."""
        cpus = min(float(threads), max(ray.cluster_resources().get("CPU", 1.0), 1.0))
        remote = ray.remote(
            num_cpus=cpus, resources=self.resources() or None, max_retries=_TASK_RETRIES
        )(_with_threads)
        try:
            result: T = ray.get(remote.remote(function, threads, *args))
        except WorkerCrashedError as error:
            raise EngineError(
                f"a worker process died {_TASK_RETRIES + 1} times in "
                f"{function.__name__.strip('_')}; out of memory is the usual reason. What was "
                "finished is kept, and the same command goes on from there "
                f"({first_line(error)})"
            ) from None
        except RayTaskError as error:
            if isinstance(error.cause, EngineError):
                raise error.cause from None
            raise
        return result

    def _do(
        self,
        pending: Sequence[Partition],
        root: Path,
        worker: type[PartitionWorker],
        worker_args: Mapping[str, Any],
        execution: Execution,
        threads: int,
    ) -> Iterator[tuple[Part, int]]:
        from engine.runtime.ray_pools import on_pool

        resources = self.resources(execution.num_gpus)
        return on_pool(pending, root, worker, worker_args, execution, threads, resources)

    def train(self, training: Training) -> dict[str, Any]:
        from engine.runtime.ray_training import train

        return train(training, self.resources(training.num_gpus))

    def refuse_unseen(self, paths: Sequence[Path]) -> None:
        """The last moment at which a run directory on a laptop's own disk costs nothing. Nodes that
        join later are checked when their first actor starts.
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
                    raise RunDirectoryError(unseen_sentence(missing[0], host))


@contextmanager
def _joined(config: RayConfig) -> Iterator[bool]:
    """Whether the cluster is ours alone."""
    if ray.is_initialized():
        yield False
        return
    address = config.address or os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with own_handlers():  # Ray has one for SIGTERM, which ends the process with a dump
        if address:
            try:
                ray.init(address=address, **quiet)
            except ConnectionError as error:
                raise SettingsError(f"no Ray cluster answers at {address}: {error}") from None
        else:
            _start_local(config, quiet)
    try:
        yield not address
    finally:
        with undisturbed():
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


def _unseen(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not os.path.lexists(path)]


def unseen_sentence(path: str, host: str) -> str:
    """What is said of a path that a node does not see."""
    return (
        f"node {host} of the cluster does not see {path}: put the run directory, the corpus and "
        "the models on a path that all nodes mount, or on object storage (s3://..., gs://...)"
    )


def _with_threads(function: Callable[..., T], threads: int, *args: Any) -> T:
    limit_threads(threads)
    with disk_problems_told(Path("the working directory")):
        return function(*args)


def first_line(error: Exception) -> str:
    """Of an error of Ray, which tells the rest to its developers."""
    return str(error).partition("\n")[0]
