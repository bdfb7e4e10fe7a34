"""The training loop of the InfluenceNetwork, for one process or one of W equal workers.

`Trainer` runs epochs over a `TrainingSet`. Pure torch: who the other workers are is hidden behind
one function that sums a tensor over them, so `engine.network.fit` runs the same code in-process
and under Ray Train.

Everything random is a function of (seed, epoch, step) and made for the whole global batch before a
worker takes its slice, so 1..W workers see the same batches and the same dropout and take the same
steps up to the rounding of one sum; a long fit amplifies that rounding, as any change of machine
does. For a fixed number of workers the result is the same bytes.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from engine.config import NetworkConfig
from engine.errors import RunDirectoryError, SettingsError
from engine.kernels.arrays import FloatArray, IndexArray
from engine.network.influence_network import InfluenceNetwork
from engine.network.training_set import TrainingSet

__all__ = ["EpochLoss", "Reduce", "Trainer"]

Reduce = Callable[[Tensor], Tensor]

VALIDATION_BATCH = 4096
# Keys of the random streams, so that no two of them share numbers.
WEIGHTS, VALIDATION, ORDER, DROPOUT = range(4)


@dataclass(frozen=True)
class EpochLoss:
    """Mean squared errors of one epoch, in label variances when labels are standardised.

    `train` is taken during the epoch, with dropout; `validation` after it, without, and is None
    when no candidate is held out.
    """

    train: float
    validation: float | None


class Trainer:
    """Fits an InfluenceNetwork, epoch by epoch, as worker `rank` of `num_workers`.

    Args:
        data: labels and embeddings; call `data.check()` first.
        settings: how to fit; `num_workers` and `execution` are not read here.
        seed: of weights, held-out candidates, batch order and dropout; the global random state is
            neither read nor changed.
        rank, num_workers: which contiguous slice of each global batch is this worker's.
        reduce: sums a tensor over all workers in place and returns it; every worker calls it
            equally often.
        device: where the network lives.
        held_out: candidates to hold out, (m,); default: a share of them by seed.

    Raises SettingsError when a share of candidates is to be held out and there is only one.
    Memory: the network thrice, the pairs' order, one batch; embeddings are gathered row by row.
    Time: about 6 n D h flops per epoch and worker share, plus 0.3 ms per step.
    """

    def __init__(
        self,
        data: TrainingSet,
        settings: NetworkConfig,
        seed: int,
        rank: int = 0,
        num_workers: int = 1,
        reduce: Reduce | None = None,
        device: torch.device | str = "cpu",
        held_out: IndexArray | None = None,
    ) -> None:
        self.data, self.settings, self.seed = data, settings, seed
        self.rank, self.num_workers = rank, num_workers
        self.reduce: Reduce = reduce or _alone
        self.device = torch.device(device)
        self.train_rows, self.validation_rows = _split(data, settings, seed, held_out)
        self._width = 1 if data.labels.ndim == 1 else data.labels.shape[1]
        self.network = _new_network(data, settings, seed, self.train_rows).to(self.device)
        self.optimizer = _new_optimizer(self.network, settings)
        self.history: list[EpochLoss] = []
        self.best_epoch = 0
        self.best_weights = _copy_weights(self.network)

    @property
    def epochs(self) -> int:
        """Epochs trained so far."""
        return len(self.history)

    @property
    def num_steps(self) -> int:
        """Optimiser steps per epoch."""
        return math.ceil(len(self.train_rows) / self.settings.batch_size)

    @property
    def done(self) -> bool:
        """Whether the last epoch is over or `patience` has run out."""
        patience = self.settings.patience
        waited = self.epochs - self.best_epoch
        stopped = patience is not None and len(self.validation_rows) > 0 and waited >= patience
        return self.epochs >= self.settings.epochs or stopped

    def train_epoch(self) -> EpochLoss:
        """Train one more epoch, validate, keep the weights if they are the best so far.

        Raises SettingsError, on every worker alike, when the loss is no longer a finite number.
        """
        epoch = self.epochs
        rows = self._order(epoch)
        self.network.train()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for step in range(self.num_steps):
            batch = rows[step * self.settings.batch_size :][: self.settings.batch_size]
            total += self._train_step(batch, epoch, step)
        loss = EpochLoss(float(self.reduce(total)) / (len(rows) * self._width), self._validate())
        if not math.isfinite(loss.train) or not math.isfinite(loss.validation or 0.0):
            raise SettingsError(
                f"the fit diverged in epoch {epoch + 1} (loss {loss.train}): "
                f"lower network.learning_rate, now {self.settings.learning_rate}"
            )
        self.history.append(loss)
        best = self.history[self.best_epoch - 1].validation if self.best_epoch else None
        if best is None or loss.validation is None or loss.validation < best:
            self.best_epoch = self.epochs
            self.best_weights = _copy_weights(self.network)
        return loss

    def result(self) -> InfluenceNetwork:
        """The network with the weights of its best epoch, on the CPU, ready to predict."""
        return self.network_of(self.best_weights)

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights as they are."""
        return _copy_weights(self.network)

    def network_of(self, weights: dict[str, Tensor]) -> InfluenceNetwork:
        """The network with other weights, on the CPU, ready to predict."""
        network = copy.deepcopy(self.network)
        network.load_state_dict(weights)
        return network.cpu().eval()

    def save(self, directory: Path) -> None:
        """Write the whole state as state.safetensors and state.json into `directory`."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self.best_weights.items()}
        for name, parameter in self.network.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{key}.{name}"] = value
        numbers = {
            "best_epoch": self.best_epoch,
            "history": [[loss.train, loss.validation] for loss in self.history],
        }
        safetensors.torch.save_file(
            {name: value.detach().cpu() for name, value in tensors.items()},
            directory / "state.safetensors",
        )
        (directory / "state.json").write_text(json.dumps(numbers), encoding="utf-8")

    def restore(self, directory: Path) -> None:
        """Go on from what `save` wrote: the same bytes as if never stopped.

        Raises RunDirectoryError when the state is damaged or of a network of another shape.
        """
        try:
            numbers = json.loads((directory / "state.json").read_text(encoding="utf-8"))
            tensors = safetensors.torch.load_file(
                directory / "state.safetensors", device=str(self.device)
            )
            self.network.load_state_dict(_under("network.", tensors))
            self.best_weights = _under("best.", tensors)
            # before its first step an optimiser has no state
            named = self.network.named_parameters() if numbers["history"] else ()
            for name, parameter in named:
                keys = ("step", "exp_avg", "exp_avg_sq")
                state = {key: tensors[f"optimizer.{key}.{name}"] for key in keys}
                self.optimizer.state[parameter] = state
            self.history = [EpochLoss(*losses) for losses in numbers["history"]]
            self.best_epoch = numbers["best_epoch"]
        except (OSError, KeyError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
            raise RunDirectoryError(
                f"{directory} is no checkpoint of this fit ({error}): remove it to start again"
            ) from None

    def _order(self, epoch: int) -> IndexArray:
        rng = np.random.default_rng(_stream(self.seed, ORDER, epoch))
        return self.train_rows[rng.permutation(len(self.train_rows))]

    def _train_step(self, batch: IndexArray, epoch: int, step: int) -> Tensor:
        """One step on the global batch; returns this worker's share of the squared errors."""
        mine = _slice_of(len(batch), self.rank, self.num_workers)
        candidates, targets, labels = self._gather(batch[mine])
        if self.settings.input_dropout > 0:
            mask = self._dropout_mask(len(batch), epoch, step)[mine].to(self.device)
            candidates = candidates * mask[:, : self.data.dim]
            if targets is not None:
                targets = targets * mask[:, self.data.dim :]
        errors = self.network.standardised(candidates, targets) - labels
        squared_error = errors.square().sum()
        self.optimizer.zero_grad(set_to_none=True)
        # Over the size of the global batch, so that the sum over workers is the batch mean.
        mean = self._loss(errors, squared_error) / (len(batch) * self._width)
        mean.backward()  # type: ignore[no-untyped-call]
        self._sum_gradients()
        self.optimizer.step()
        return squared_error.detach().double()

    def _loss(self, errors: Tensor, squared_error: Tensor) -> Tensor:
        """What is minimised, summed over a batch; huber is the squared error for small errors."""
        if self.settings.loss == "mse":
            return squared_error
        zero = torch.zeros_like(errors)
        return 2 * torch.nn.functional.huber_loss(errors, zero, reduction="sum")

    def _dropout_mask(self, size: int, epoch: int, step: int) -> Tensor:
        """Factors 0 or 1 / keep of the inputs of one global batch, (B, 2 D); made on the CPU."""
        generator = _generator(self.seed, DROPOUT, epoch, step)
        drop = self.settings.input_dropout
        kept = torch.rand(size, 2 * self.data.dim, generator=generator) >= drop
        return kept.float() / (1 - drop)

    def _sum_gradients(self) -> None:
        """Replace all gradients by their sum over the workers, in one message."""
        if self.num_workers == 1:
            return
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        flat = self.reduce(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    @torch.no_grad()
    def _validate(self) -> float | None:
        if not len(self.validation_rows):
            return None
        self.network.eval()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        rows = self.validation_rows[
            _slice_of(len(self.validation_rows), self.rank, self.num_workers)
        ]
        for start in range(0, len(rows), VALIDATION_BATCH):
            candidates, targets, labels = self._gather(rows[start : start + VALIDATION_BATCH])
            errors = self.network.standardised(candidates, targets) - labels
            total += errors.square().sum().double()
        return float(self.reduce(total)) / (len(self.validation_rows) * self._width)

    def _gather(self, rows: IndexArray) -> tuple[Tensor, Tensor | None, Tensor]:
        """Embeddings and standardised labels of pairs: (B, D), (B, D) or None, (B,) or (B, V)."""
        pairs = np.asarray(self.data.pairs[rows])
        candidates = self._rows(self.data.candidates, pairs[:, 0])
        targets = None
        if self.data.targets is not None:
            targets = self._rows(self.data.targets, pairs[:, 1])
        labels = torch.from_numpy(self.data.labels[rows]).to(self.device)
        labels = (labels - self.network.label_mean) / self.network.label_std
        return candidates, targets, labels

    def _rows(self, embeddings: FloatArray, rows: IndexArray) -> Tensor:
        return torch.from_numpy(np.asarray(embeddings[rows], np.float32)).to(self.device)


def _alone(tensor: Tensor) -> Tensor:
    return tensor


def _slice_of(size: int, rank: int, num_workers: int) -> slice:
    return slice(size * rank // num_workers, size * (rank + 1) // num_workers)


def _stream(seed: int, *keys: int) -> np.random.SeedSequence:
    """Independent random numbers per key; negative seeds, which numpy refuses, are folded."""
    return np.random.SeedSequence([seed % 2**64, *keys])


def _generator(seed: int, *keys: int) -> torch.Generator:
    state = _stream(seed, *keys).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def _split(
    data: TrainingSet, settings: NetworkConfig, seed: int, held_out: IndexArray | None
) -> tuple[IndexArray, IndexArray]:
    """Pairs to train on and pairs of held-out candidates: ascending rows of the training set.

    Whole candidates are held out: a new row is what the network will meet, and other pairs of a
    candidate that it trained on would tell it too much.
    """
    everything = np.arange(len(data.labels))
    if held_out is not None:
        chosen = np.isin(data.pairs[:, 0], held_out)
        return everything[~chosen], everything[chosen]
    if settings.validation_fraction == 0:
        return everything, everything[:0]
    ids = np.unique(data.pairs[:, 0])
    if len(ids) < 2:
        raise SettingsError(
            f"the teacher labels cover {len(ids)} candidate, expected at least 2 to hold out some: "
            "ask the teacher about more candidates or set network.validation_fraction to 0"
        )
    num_held_out = min(max(1, round(settings.validation_fraction * len(ids))), len(ids) - 1)
    order = np.random.default_rng(_stream(seed, VALIDATION)).permutation(len(ids))
    chosen = np.isin(data.pairs[:, 0], ids[order[:num_held_out]])
    return everything[~chosen], everything[chosen]


def _new_network(
    data: TrainingSet, settings: NetworkConfig, seed: int, train_rows: IndexArray
) -> InfluenceNetwork:
    """A network with seeded weights and the label scaling of the training pairs."""
    network = InfluenceNetwork(
        data.dim,
        settings.hidden,
        pairwise=data.pairwise,
        main_effects=settings.main_effects,
        outputs=None if data.labels.ndim == 1 else data.labels.shape[1],
        generator=_generator(seed, WEIGHTS),
    )
    if settings.standardise_labels:
        labels = data.labels[train_rows].astype(np.float64)
        mean = labels.mean(axis=0)
        std = float(np.sqrt(np.square(labels - mean).mean()))
        # Equal labels have a std of rounding only: predict their mean instead of dividing by it.
        is_constant = std <= 1e-6 * max(float(np.abs(mean).max()), np.finfo(np.float32).tiny)
        network.label_mean.copy_(torch.as_tensor(mean))
        network.label_std.fill_(1.0 if is_constant else std)
    return network


def _new_optimizer(network: InfluenceNetwork, settings: NetworkConfig) -> torch.optim.AdamW:
    """AdamW that leaves biases undecayed; with weight_decay 0 it is Adam."""
    weights = [p for p in network.parameters() if p.ndim > 1]
    biases = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": settings.weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


def _copy_weights(network: InfluenceNetwork) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
