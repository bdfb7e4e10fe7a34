"""Fit the InfluenceNetwork: on arrays, or for the pipeline on an executor.

`fit_network` is for notebooks, tests and small label sets; `train_network` is the same Trainer as a
training of the executor: on Ray Train with checkpoints, retries and workers on other machines or
GPUs. With one worker both give the same bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.artifacts.files import atomic_path
from engine.config import NetworkConfig
from engine.errors import SettingsError
from engine.network.ensemble import EnsembleTrainer
from engine.network.influence_network import InfluenceNetwork
from engine.network.training import EpochLoss
from engine.network.training_set import TrainingSet
from engine.runtime.executor import Executor, Team, Training

__all__ = ["FitSummary", "fit_network", "train_network"]

Array: TypeAlias = NDArray[Any] | Tensor

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


def train_network(
    executor: Executor,
    data_dir: Path,
    output_path: Path,
    settings: NetworkConfig,
    seed: int,
    storage_path: Path,
    name: str,
) -> FitSummary:
    """Fit by `settings.num_workers` workers of the executor and write the network.

    Args:
        executor: who trains: Ray Train, or this process.
        data_dir: where `TrainingSet.save` wrote; every worker's machine must see it.
        output_path: the safetensors file to write, whole or not at all; its directory exists.
        settings: how to fit. A worker takes half a CPU, or a CPU share and
            `execution.num_gpus` GPUs.
        seed: as for `fit_network`.
        storage_path, name: where checkpoints are kept. The same two go on with an unfinished fit,
            so `name` must change with the settings and the data. Nothing is removed; the two
            newest checkpoints stay.

    The same bytes for the same number of workers, also after a worker died; with one those of
    `fit_network`. Raises InputError and SettingsError as that does, without retrying, and
    EngineError when workers keep dying.
    """
    TrainingSet.open(data_dir).check()
    outcome = executor.train(
        Training(
            "the fit",
            _train_loop,
            {
                "data_dir": str(data_dir.absolute()),
                "output_path": str(output_path.absolute()),
                "network": settings.model_dump(mode="json"),
                "seed": seed,
            },
            num_workers=settings.num_workers,
            num_gpus=settings.execution.num_gpus,
            together=True,
            storage_path=storage_path,
            name=name,
        )
    )
    if "error" in outcome:
        raise SettingsError(outcome["error"])
    return FitSummary.from_dict(outcome)


def _train_loop(config: dict[str, Any], team: Team) -> dict[str, Any]:
    """What every worker runs; rank 0 returns the summary, or {"error": sentence}."""
    try:
        trainer = EnsembleTrainer(
            TrainingSet.open(Path(config["data_dir"])),
            NetworkConfig.model_validate(config["network"]),
            config["seed"],
            rank=team.rank,
            num_workers=team.size,
            reduce=team.sum if team.size > 1 else None,
            device=team.device,
        )
        _train_and_report(trainer, team)
    except SettingsError as error:
        # All workers meet it at the same point. Raised, it would only be tried three times more.
        return {"error": str(error)}
    if team.rank == 0:
        # Before the report: a report can be lost in a crash, this file cannot.
        with atomic_path(Path(config["output_path"])) as temporary:
            trainer.result().save(temporary)
    _report(trainer, team)
    return FitSummary.of(trainer).to_dict()


def _train_and_report(trainer: EnsembleTrainer, team: Team) -> None:
    """Train to the end, from the last checkpoint if there is one; the last report is left out."""
    with team.checkpoint() as directory:
        if directory is not None:
            trainer.restore(directory)
    epochs_per_report = max(1, STEPS_PER_CHECKPOINT // trainer.num_steps)
    while not trainer.done:
        trainer.train_epoch()
        if not trainer.done and len(trainer.history) % epochs_per_report == 0:
            _report(trainer, team)


def _report(trainer: EnsembleTrainer, team: Team) -> None:
    """How far it is; every worker must call it equally often."""
    metrics = {"epoch": trainer.epochs, **asdict(trainer.history[-1])}
    team.report(metrics, trainer.save if team.rank == 0 else None)


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
