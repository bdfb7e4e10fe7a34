"""Fit the InfluenceNetwork: in this process, or on Ray Train for the pipeline.

`fit_network` is for notebooks, tests and small label sets; `fit_on_ray` is the same Trainer as a
Ray Train job with checkpoints, retries and workers on other machines or GPUs. With one worker both
give the same bytes.
"""

from __future__ import annotations

import contextlib
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import ray.train
import ray.train.torch
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor

from engine.cluster import cpu_resources, storage_of, training_failures_told
from engine.config import NetworkConfig
from engine.errors import SettingsError
from engine.network.ensemble import EnsembleTrainer
from engine.network.influence_network import InfluenceNetwork
from engine.network.training import EpochLoss
from engine.network.training_set import TrainingSet
from engine.run_directory import atomic_path

__all__ = ["FitSummary", "fit_network", "fit_on_ray"]

Array: TypeAlias = NDArray[Any] | Tensor

# Two workers, the controller and a driver fit on 2 CPUs; more would wait for ever.
CPUS_PER_WORKER = 0.5
MAX_FAILURES = 3
# Work at risk between two checkpoints; about 10 s at D = 384.
STEPS_PER_CHECKPOINT = 5_000


@dataclass(frozen=True)
class FitSummary:
    """What a fit did, for the manifest and the report.

    Attributes:
        epochs: epochs trained, of all members; early stopping may end before the setting.
        best_epochs: of each member the epoch, counted from 1, whose weights were kept.
        histories: of each member the losses of each epoch, in label variances when labels are
            standardised.
        num_parameters: weights and biases of the network.
        num_train_pairs, num_validation_pairs: labels learned from and labels held out, by one
            member.
        label_mean, label_std: the frozen label scaling, in teacher units.
    """

    epochs: int
    best_epochs: tuple[int, ...]
    histories: tuple[tuple[EpochLoss, ...], ...]
    num_parameters: int
    num_train_pairs: int
    num_validation_pairs: int
    label_mean: float
    label_std: float

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON-able values; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FitSummary:
        """Read what `to_dict` gave."""
        histories = tuple(tuple(EpochLoss(**loss) for loss in h) for h in values["histories"])
        best_epochs = tuple(values["best_epochs"])
        return cls(**{**values, "histories": histories, "best_epochs": best_epochs})

    @classmethod
    def of(cls, trainer: EnsembleTrainer) -> FitSummary:
        """Summarise a finished fit."""
        network, member = trainer.result(), trainer.members[0]
        return cls(
            epochs=trainer.epochs,
            best_epochs=(trainer.best_epoch,) * len(trainer.members),
            histories=tuple(map(tuple, trainer.histories)),
            num_parameters=sum(p.numel() for p in network.parameters()),
            num_train_pairs=len(member.train_rows),
            num_validation_pairs=len(member.validation_rows),
            label_mean=float(network.label_mean.mean()),
            label_std=float(network.label_std),
        )


def fit_network(
    candidates: Array,
    targets: Array | None,
    pairs: Array,
    labels: Array,
    settings: NetworkConfig | None = None,
    seed: int = 0,
) -> InfluenceNetwork:
    """Fit a network to a teacher's labels of some pairs, in this process and on one CPU thread.

    Args:
        candidates: embeddings, (C, D) float32; numpy array or tensor.
        targets: embeddings by the same encoder, (T, D) float32; None fits a pointwise network.
        pairs: (n, 2) int, [c, t] row numbers into the two; t is not read without targets.
        labels: the teacher's score of each pair, (n,), any units; of a network with a vector output
            (n, V).
        settings: default is the preset `default`; `num_workers` and `execution` are not used.
        seed: same seed, same bytes; the global random state is left alone.

    Returns the network in eval mode, with the label scaling frozen in its state. Raises InputError
    for labels that cannot be learned (fewer than 8, not finite, shapes that do not match) and
    SettingsError when the fit diverges or one candidate is all there is to hold out.
    Cost: 1.4 ms per batch of 64 pairs at D = 384, 2.8 ms at D = 1024, on one core.
    """
    data = TrainingSet(
        _as_numpy(candidates).astype(np.float32, copy=False),
        None if targets is None else _as_numpy(targets).astype(np.float32, copy=False),
        _as_numpy(pairs).astype(np.int64, copy=False),
        _as_numpy(labels).astype(np.float32, copy=False),
    )
    data.check()
    with _one_thread():
        trainer = EnsembleTrainer(data, settings or NetworkConfig.model_validate({}), seed)
        while not trainer.done:
            trainer.train_epoch()
    return trainer.result()


def fit_on_ray(
    data_dir: Path,
    output_path: Path,
    settings: NetworkConfig,
    seed: int,
    storage_path: Path,
    name: str,
) -> FitSummary:
    """Fit as a Ray Train job of `settings.num_workers` workers and write the network.

    Args:
        data_dir: where `TrainingSet.save` wrote; every worker's machine must see it.
        output_path: the safetensors file to write, whole or not at all; its directory exists.
        settings: how to fit. A worker takes half a CPU, or a CPU share and
            `execution.num_gpus` GPUs; gradients travel by gloo, by NCCL from one whole GPU up.
        seed: as for `fit_network`.
        storage_path, name: where Ray Train keeps its checkpoints. The same two go on with an
            unfinished fit, so `name` must change with the settings and the data. Nothing is
            removed; the two newest checkpoints stay.

    The same bytes for the same number of workers, also after a worker died: Ray Train restarts the
    group from the last checkpoint, up to 3 times, then raises EngineError.
    Raises InputError and SettingsError as `fit_network` does, without retrying.
    Cost: 15 to 30 s to start the workers, then as `fit_network` divided by the workers.
    """
    TrainingSet.open(data_dir).check()
    use_gpu = settings.execution.num_gpus > 0
    resources = {"CPU": CPUS_PER_WORKER}
    resources |= {"GPU": settings.execution.num_gpus} if use_gpu else cpu_resources()
    # NCCL refuses two workers on one GPU; gloo does not mind.
    backend = "nccl" if settings.execution.num_gpus >= 1 else "gloo"
    trainer = ray.train.torch.TorchTrainer(
        _train_loop,
        train_loop_config={
            "data_dir": str(data_dir.absolute()),
            "output_path": str(output_path.absolute()),
            "settings": settings.model_dump(mode="json"),
            "seed": seed,
        },
        torch_config=ray.train.torch.TorchConfig(backend=backend),
        scaling_config=ray.train.ScalingConfig(
            num_workers=settings.num_workers, use_gpu=use_gpu, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name=name,
            **storage_of(storage_path),
            failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
        ),
    )
    with _own_interrupt_handler(), training_failures_told("the fit"):
        outcome = trainer.fit().return_value
    if "error" in outcome:
        raise SettingsError(outcome["error"])
    return FitSummary.from_dict(outcome)


def _train_loop(config: dict[str, Any]) -> dict[str, Any]:
    """What every Ray Train worker runs; rank 0 returns the summary, or {"error": sentence}."""
    torch.set_num_threads(1)
    try:
        trainer = _worker_trainer(config)
        _train_and_report(trainer)
    except SettingsError as error:
        # All workers meet it at the same point. Raised, it would only be tried three times more.
        return {"error": str(error)}
    if trainer.rank == 0:
        # Before the report: a report can be lost in a crash, this file cannot.
        with atomic_path(Path(config["output_path"])) as temporary:
            trainer.result().save(temporary)
    _report(trainer)
    return FitSummary.of(trainer).to_dict()


def _train_and_report(trainer: EnsembleTrainer) -> None:
    """Train to the end, from the last checkpoint if there is one; the last report is left out."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as directory:
            trainer.restore(Path(directory))
    epochs_per_report = max(1, STEPS_PER_CHECKPOINT // trainer.num_steps)
    while not trainer.done:
        trainer.train_epoch()
        if not trainer.done and len(trainer.history) % epochs_per_report == 0:
            _report(trainer)


def _worker_trainer(config: Mapping[str, Any]) -> EnsembleTrainer:
    context = ray.train.get_context()
    num_workers = context.get_world_size()
    return EnsembleTrainer(
        TrainingSet.open(Path(config["data_dir"])),
        NetworkConfig.model_validate(config["settings"]),
        config["seed"],
        rank=context.get_world_rank(),
        num_workers=num_workers,
        reduce=_sum_over_workers if num_workers > 1 else None,
        device=ray.train.torch.get_device(),
    )


def _sum_over_workers(tensor: Tensor) -> Tensor:
    torch.distributed.all_reduce(tensor)
    return tensor


def _report(trainer: EnsembleTrainer) -> None:
    """Hand Ray Train a checkpoint; every worker must call it equally often."""
    metrics = {"epoch": trainer.epochs, **asdict(trainer.history[-1])}
    if trainer.rank != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as directory:
        trainer.save(Path(directory))
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(directory))


def _as_numpy(values: Array) -> NDArray[Any]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread for a while: sums, and so the result, depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _own_interrupt_handler() -> Iterator[None]:
    """Put the caller's Ctrl-C handler back afterwards; Ray Train installs one and leaves it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
