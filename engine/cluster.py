"""The one door to Ray: a cluster to work on, and single tasks on it.

Actor pools over many pieces of work are in actors.py, which stands on this.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import ray
import ray.train
from ray.exceptions import (
    NodeDiedError,
    RayError,
    RayTaskError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from engine import storage
from engine.config import RayConfig
from engine.errors import EngineError, RunDirectoryError, SettingsError
from engine.run_directory import disk_problems_told

__all__ = [
    "connected",
    "cpu_resources",
    "first_line",
    "limit_threads",
    "node_cpus",
    "refuse_unseen",
    "run_task",
    "storage_of",
    "training_failures_told",
    "unseen_sentence",
]

T = TypeVar("T")
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
                f"the Ray cluster failed ({type(error).__name__}: {first_line(error)}); what was "
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


def node_cpus() -> int:
    """CPUs of the largest node: the most threads that one task can ask for."""
    nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    return max(1, int(max(nodes, default=1.0)))


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
                raise RunDirectoryError(unseen_sentence(missing[0], host))


def _unseen(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not os.path.lexists(path)]


def unseen_sentence(path: str, host: str) -> str:
    """What is said of a path that a node does not see."""
    return (
        f"node {host} of the cluster does not see {path}: put the run directory, the corpus and "
        "the models on a path that all nodes mount, or on object storage (s3://..., gs://...)"
    )


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
            f"goes on from there ({first_line(error)})"
        ) from None
    except RayTaskError as error:
        if isinstance(error.cause, EngineError):
            raise error.cause from None
        raise
    return result


def _with_threads(function: Callable[..., T], threads: int, *args: Any) -> T:
    limit_threads(threads)
    with disk_problems_told(Path("the working directory")):
        return function(*args)


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


def first_line(error: Exception) -> str:
    """Of an error of Ray, which tells the rest to its developers."""
    return str(error).partition("\n")[0]
