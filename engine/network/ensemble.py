"""Several small networks that are fitted side by side and become one.

Each member has its share of the hidden units and a fold of the candidates held out, so every label
teaches all members but one and judges that one. They are trained for as many epochs as serve the
held-out labels of all of them best: how long to train is not left to a handful of candidates. Their
mean has less of the noise that a few thousand labels teach a network, and the mean of networks with
one hidden layer is again such a network, their units side by side: the same size, the same speed,
the same factorised form as the published one.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from engine.config import NetworkConfig
from engine.errors import RunDirectoryError
from engine.kernels.arrays import FloatArray, IndexArray
from engine.network.influence_network import InfluenceNetwork
from engine.network.training import EpochLoss, Reduce, Trainer
from engine.network.training_set import TrainingSet

__all__ = ["EnsembleTrainer"]

MEMBER_SEEDS, FOLDS = 4, 5  # keys of random streams; the others are those of `training`
_VALIDATION_PAIRS = 4096


class EnsembleTrainer:
    """Fits the `settings.members` of a network; arguments, errors and workers as of `Trainer`.

    With one member it is a Trainer of the whole network. Memory: all members.
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
    ) -> None:
        self.data, self.settings, self.seed, self.rank = data, settings, seed, rank
        self._team = (rank, num_workers, reduce, device)
        folds = _folds(data, settings, seed)
        self.members = [self._member(number, fold) for number, fold in enumerate(folds)]
        self.history: list[EpochLoss] = []
        self.best_epoch = 0
        self._best = [member.best_weights for member in self.members]

    @property
    def done(self) -> bool:
        """Whether the last epoch is over or `patience` has run out."""
        patience = self.settings.patience
        waited = len(self.history) - self.best_epoch
        judged = any(len(member.validation_rows) for member in self.members)
        stopped = patience is not None and judged and waited >= patience
        return len(self.history) >= self.settings.epochs or stopped

    @property
    def epochs(self) -> int:
        """Epochs trained so far, of all members."""
        return len(self.history) * len(self.members)

    @property
    def num_steps(self) -> int:
        """Optimiser steps of one call of `train_epoch`."""
        return sum(member.num_steps for member in self.members)

    @property
    def histories(self) -> list[list[EpochLoss]]:
        """The losses of each member."""
        return [member.history for member in self.members]

    def train_epoch(self) -> EpochLoss:
        """Train every member for one more epoch; losses are means over all of them."""
        losses = [member.train_epoch() for member in self.members]
        sizes = [len(member.validation_rows) for member in self.members]
        found = [loss.validation * size for loss, size in zip(losses, sizes, strict=True)
                 if loss.validation is not None]  # fmt: skip
        validation = sum(found) / sum(sizes) if found else None
        loss = EpochLoss(sum(one.train for one in losses) / len(losses), validation)
        best = self.history[self.best_epoch - 1].validation if self.best_epoch else None
        self.history.append(loss)
        if best is None or validation is None or validation < best:
            self.best_epoch = len(self.history)
            self._best = [member.weights() for member in self.members]
        return loss

    def result(self) -> InfluenceNetwork:
        """The members as one network, with the weights of the best epoch, on the CPU."""
        return InfluenceNetwork.mean_of(self._networks())

    @torch.no_grad()
    def held_out_predictions(self) -> tuple[IndexArray, FloatArray, IndexArray]:
        """Labels that some member held out, by row, what that member says of them, and its number,
        (n,) each.
        """
        rows, values = [], []
        for member, network in zip(self.members, self._networks(), strict=True):
            for start in range(0, len(member.validation_rows), _VALIDATION_PAIRS):
                some = member.validation_rows[start : start + _VALIDATION_PAIRS]
                c, t = self.data.pairs[some].T
                e_c = torch.from_numpy(np.array(self.data.candidates[c]))
                targets = self.data.targets
                e_t = None if targets is None else torch.from_numpy(np.array(targets[t]))
                rows.append(some)
                values.append(network(e_c, e_t).numpy())
        sizes = [len(member.validation_rows) for member in self.members]
        numbers = np.repeat(np.arange(len(self.members)), sizes)
        return np.concatenate(rows), np.concatenate(values), numbers

    def save(self, directory: Path) -> None:
        """Write the whole state into `directory`."""
        for number, (member, best) in enumerate(zip(self.members, self._best, strict=True)):
            (directory / f"member-{number}").mkdir(exist_ok=True)
            member.save(directory / f"member-{number}")
            tensors = {name: value.detach().cpu() for name, value in best.items()}
            safetensors.torch.save_file(tensors, directory / f"best-{number}.safetensors")
        numbers = {
            "best_epoch": self.best_epoch,
            "history": [[loss.train, loss.validation] for loss in self.history],
        }
        (directory / "members.json").write_text(json.dumps(numbers), encoding="utf-8")

    def restore(self, directory: Path) -> None:
        """Go on from what `save` wrote: the same bytes as if never stopped.

        Raises RunDirectoryError when the state is damaged or of a network of another shape.
        """
        try:
            numbers = json.loads((directory / "members.json").read_text(encoding="utf-8"))
            self.history = [EpochLoss(*loss) for loss in numbers["history"]]
            self.best_epoch = int(numbers["best_epoch"])
            self._best = [
                safetensors.torch.load_file(
                    directory / f"best-{number}.safetensors", device=str(self._team[3])
                )
                for number in range(len(self.members))
            ]
        except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
            raise RunDirectoryError(
                f"{directory} is no checkpoint of this fit ({error}): remove it to start again"
            ) from None
        for number, member in enumerate(self.members):
            member.restore(directory / f"member-{number}")

    def _networks(self) -> list[InfluenceNetwork]:
        return [
            member.network_of(best) for member, best in zip(self.members, self._best, strict=True)
        ]

    def _member(self, number: int, held_out: IndexArray | None) -> Trainer:
        settings, seed = self.settings, self.seed
        if settings.members > 1:
            (units,) = settings.hidden
            share = units // settings.members + (number < units % settings.members)
            settings = settings.model_copy(update={"hidden": (share,), "members": 1})
            stream = np.random.SeedSequence([seed % 2**64, MEMBER_SEEDS, number])
            seed = int(stream.generate_state(1, np.uint64)[0])
        return Trainer(self.data, settings, seed, *self._team, held_out=held_out)


def _folds(data: TrainingSet, settings: NetworkConfig, seed: int) -> list[IndexArray | None]:
    """The candidates that each member holds out; None leaves it to the Trainer."""
    if settings.members == 1:
        return [None]
    ids = np.unique(data.pairs[:, 0])
    if settings.validation_fraction == 0:
        return [ids[:0]] * settings.members
    if len(ids) < 2:
        return [None] * settings.members  # the Trainer says what is wrong
    stream = np.random.SeedSequence([seed % 2**64, FOLDS])
    order = ids[np.random.default_rng(stream).permutation(len(ids))]
    num_folds = min(settings.members, len(ids))  # of fewer candidates some are held out twice
    folds = [np.sort(order[number::num_folds]) for number in range(num_folds)]
    return [folds[number % num_folds] for number in range(settings.members)]
