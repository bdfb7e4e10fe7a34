"""Pools of actors over partitions, by Ray Data; fewer partitions than actors are tasks.

A worker takes one partition at a time, so Ray's block layout and the number of actors cannot change
a byte, and neither can workers that die: they are replaced, and what they had finished is there.
"""

from __future__ import annotations

import json
import logging
import secrets
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import ray.data
from ray.exceptions import RayActorError, WorkerCrashedError

from engine import errors, storage
from engine.artifacts.files import disk_problems_told
from engine.artifacts.parts import Part
from engine.config import Execution
from engine.errors import EngineError, RunDirectoryError
from engine.runtime.crashes import crashed_loading, loaded
from engine.runtime.executor import Partition, PartitionRunner, PartitionWorker, limit_threads
from engine.runtime.ray_cluster import first_line, unseen_sentence

__all__ = ["on_pool"]

# Its errors reach the user through us; importing it has set the level.
logging.getLogger("ray.data").setLevel(logging.CRITICAL)

# Worker processes are replaced without end, since on a cluster of spot machines all of them are, in
# time; `crashes` is what ends work that kills every worker.
_WITHOUT_END = -1
_SECONDS_TO_END = 30.0


def on_pool(
    pending: Sequence[Partition],
    root: Path,
    worker: type[PartitionWorker],
    worker_args: Mapping[str, Any],
    execution: Execution,
    threads: int,
    resources: Mapping[str, float],
) -> Iterator[tuple[Part, int]]:
    """Parts of some partitions and their units of work, in the order in which they are finished."""
    pool, num_cpus = _pool_size(execution, threads, len(pending), ray.cluster_resources())
    if len(pending) <= pool.max_size:
        yield from _as_tasks(pending, root, worker, worker_args, execution, threads, resources)
        return
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
            resources=dict(resources) or None,
            max_restarts=_WITHOUT_END,
            max_task_retries=_WITHOUT_END,
        )
    try:
        for row in dataset.iter_rows():
            yield _part_of(row["outcome"])
    except RayActorError as error:
        raise _died(error) from None


def _as_tasks(
    pending: Sequence[Partition],
    root: Path,
    worker: type[PartitionWorker],
    worker_args: Mapping[str, Any],
    execution: Execution,
    threads: int,
    resources: Mapping[str, float],
) -> Iterator[tuple[Part, int]]:
    """Each partition as a task, where an actor would do no more than one of them.

    Tasks take the worker processes that the last stage has left, with all that those have imported;
    a pool starts new ones, some ten seconds each.
    """
    cpus = min(float(threads), max(ray.cluster_resources().get("CPU", 1.0), 1.0))
    remote = ray.remote(
        num_cpus=cpus,
        num_gpus=execution.num_gpus or None,
        resources=dict(resources) or None,
        max_retries=_WITHOUT_END,
    )(_do_alone)
    given = (worker, dict(worker_args), str(root), threads, secrets.token_hex(4))
    left = [remote.remote(*given, json.dumps(asdict(partition))) for partition in pending]
    try:
        while left:
            (done,), left = ray.wait(left, num_returns=1)
            yield _part_of(ray.get(done))
    except WorkerCrashedError as error:
        raise _died(error) from None
    finally:  # after an error the others end at once: the caller may remove the folder
        for task in left:
            ray.cancel(task, force=True)
        if left:
            ray.wait(left, num_returns=len(left), timeout=_SECONDS_TO_END)


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
        f"same command goes on from there ({first_line(error)})"
    )


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
        limit_threads(threads)
        try:
            self._runner = PartitionRunner(self._load(worker, worker_args), self._root, job)
        except EngineError as error:  # told as a result: Ray would wrap it in its own traceback
            self._failure = _told(error, where=_other_node())

    def _load(self, worker: type[PartitionWorker], worker_args: dict[str, Any]) -> PartitionWorker:
        # a node that joined after the check at the start
        if storage.uri_of(self._root) is None and not self._root.is_dir():
            raise RunDirectoryError(unseen_sentence(str(self._root), socket.gethostname()))
        context = ray.get_runtime_context()
        actor = context.get_actor_id() or context.get_task_id()  # the same in every try
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
        try:
            with disk_problems_told(self._root):
                part = self._runner.do(partition)
        except EngineError as error:
            return _told(error)
        return {"part": asdict(part), "units": partition.units}


def _told(error: EngineError, where: str = "") -> dict[str, str]:
    return {"error": type(error).__name__, "message": f"{where}{error}"}


def _other_node() -> str:
    """Which node this is, where that tells anything: what one cannot load, others may."""
    alive = sum(node["Alive"] for node in ray.nodes())
    return f"on node {socket.gethostname()}: " if alive > 1 else ""
