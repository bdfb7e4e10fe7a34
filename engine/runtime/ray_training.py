"""Trainings on Ray Train: checkpoints, retries, workers on other machines and GPUs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed
from torch import Tensor

from engine import storage
from engine.errors import EngineError
from engine.runtime.executor import Team, Training
from engine.terminal.ends import own_handlers

__all__ = ["train"]

# Two workers, the controller and a driver fit on 2 CPUs; more would wait for ever.
_CPUS_PER_WORKER = 0.5
MAX_FAILURES = 3


def train(training: Training, resources: Mapping[str, float]) -> dict[str, Any]:
    """Run a training; a worker group that dies is restarted from its last checkpoint, up to 3
    times.

    Gradients travel by gloo, by NCCL from one whole GPU up. `resources` are further ones that each
    worker asks for. Cost: 15 to 30 s to start the workers.
    """
    gpus = {"GPU": training.num_gpus} if training.num_gpus else {}
    trainer = _Trainer(
        _on_worker,
        train_loop_config={"loop": training.loop, "settings": training.settings},
        # NCCL refuses two workers on one GPU; gloo does not mind
        torch_config=ray.train.torch.TorchConfig(
            backend="nccl" if training.num_gpus >= 1 and training.together else "gloo"
        ),
        scaling_config=ray.train.ScalingConfig(
            num_workers=training.num_workers,
            use_gpu=training.num_gpus > 0,
            resources_per_worker={"CPU": _CPUS_PER_WORKER, **gpus, **resources},
        ),
        run_config=ray.train.RunConfig(
            name=training.name,
            **_storage_of(training.storage_path),
            failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
        ),
    )
    with own_handlers(), _failures_told(training.what):
        outcome: dict[str, Any] = trainer.fit().return_value
    return outcome


class _Trainer(ray.train.torch.TorchTrainer):  # type: ignore[misc]
    """Ray Train without its answer to Ctrl-C, which ends the process with no word of ours."""

    def _register_sigint_handler(self, controller: Any) -> None:
        """Ctrl-C unwinds as anywhere else; the workers go with the job."""


def _on_worker(config: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(1)
    outcome: dict[str, Any] = config["loop"](config["settings"], _RayTeam())
    return outcome


class _RayTeam(Team):
    """The worker group of Ray Train that this process is in."""

    def __init__(self) -> None:
        context = ray.train.get_context()
        self.rank, self.size = context.get_world_rank(), context.get_world_size()

    @property
    def device(self) -> torch.device:
        device: torch.device = ray.train.torch.get_device()
        return device

    def sum(self, tensor: Tensor) -> Tensor:
        torch.distributed.all_reduce(tensor)
        return tensor

    @contextmanager
    def checkpoint(self) -> Iterator[Path | None]:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
            return
        with checkpoint.as_directory() as directory:
            yield Path(directory)

    def report(self, metrics: Mapping[str, Any], save: Callable[[Path], None] | None) -> None:
        if save is None:
            ray.train.report(dict(metrics))
            return
        with tempfile.TemporaryDirectory() as directory:
            save(Path(directory))
            checkpoint = ray.train.Checkpoint.from_directory(directory)
            ray.train.report(dict(metrics), checkpoint=checkpoint)


def _storage_of(path: Path) -> dict[str, Any]:
    """Where Ray Train keeps its checkpoints, as settings of ray.train.RunConfig."""
    uri = storage.uri_of(path)
    if uri is None:
        return {"storage_path": str(path.absolute())}
    filesystem, place = storage.filesystem_of(uri)
    return {"storage_path": place, "storage_filesystem": filesystem}


@contextmanager
def _failures_told(what: str) -> Iterator[None]:
    """Turn the end of Ray Train's retries into one sentence."""
    try:
        yield
    except ray.train.TrainingFailedError as error:
        reasons = [line for line in str(error).strip().splitlines() if line.strip()]
        raise EngineError(
            f"the workers of {what} failed until Ray Train gave up ({reasons[-1].strip()}); what "
            "was finished is kept, and the same command goes on from there"
        ) from error
