"""Several small networks that are fitted one after the other and become one.

Each member has its share of the hidden units and held-out candidates of its own, so every label
teaches most of them, and their mean has less of the noise that 2,500 labels teach a network. The
mean of networks with one hidden layer is again such a network, their units side by side: the same
size, the same speed, the same factorised form as the published one.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from engine.config import NetworkConfig
from engine.errors import RunDirectoryError
from engine.network.influence_network import InfluenceNetwork
from engine.network.training import EpochLoss, Reduce, Trainer
from engine.network.training_set import TrainingSet

__all__ = ["EnsembleTrainer"]

MEMBER_SEEDS = 4  # key of a random stream; the others are those of `training`


class EnsembleTrainer:
    """Fits the `settings.members` of a network; arguments, errors and workers as of `Trainer`.

    With one member it is a Trainer of the whole network. Memory: one member in training, and the
    finished ones.
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
        self._finished: list[InfluenceNetwork] = []
        self.histories: list[list[EpochLoss]] = []
        self.best_epochs: list[int] = []
        self.current = self._trainer(0)

    @property
    def done(self) -> bool:
        """Whether the last member is fitted."""
        return len(self._finished) == self.settings.members

    @property
    def epochs(self) -> int:
        """Epochs trained so far, of all members."""
        return sum(map(len, self.histories)) + (0 if self.done else self.current.epochs)

    @property
    def num_steps(self) -> int:
        """Optimiser steps per epoch."""
        return self.current.num_steps

    def train_epoch(self) -> EpochLoss:
        """Train the current member for one more epoch; the next one is up once it is done."""
        loss = self.current.train_epoch()
        if self.current.done:
            self._finished.append(self.current.result())
            self.histories.append(self.current.history)
            self.best_epochs.append(self.current.best_epoch)
            if not self.done:
                self.current = self._trainer(len(self._finished))
        return loss

    def result(self) -> InfluenceNetwork:
        """The members as one network, on the CPU, ready to predict."""
        assert self.done, "the members are not all fitted yet"
        return InfluenceNetwork.mean_of(self._finished)

    def save(self, directory: Path) -> None:
        """Write the whole state into `directory`."""
        self.current.save(directory)
        for number, network in enumerate(self._finished):
            network.save(directory / f"member-{number}.safetensors")
        histories = [[[loss.train, loss.validation] for loss in h] for h in self.histories]
        numbers = {"histories": histories, "best_epochs": self.best_epochs}
        (directory / "members.json").write_text(json.dumps(numbers), encoding="utf-8")

    def restore(self, directory: Path) -> None:
        """Go on from what `save` wrote: the same bytes as if never stopped.

        Raises RunDirectoryError when the state is damaged or of a network of another shape.
        """
        try:
            numbers = json.loads((directory / "members.json").read_text(encoding="utf-8"))
            self.histories = [[EpochLoss(*loss) for loss in h] for h in numbers["histories"]]
            self.best_epochs = [int(epoch) for epoch in numbers["best_epochs"]]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise RunDirectoryError(
                f"{directory} is no checkpoint of this fit ({error}): remove it to start again"
            ) from None
        self._finished = [
            InfluenceNetwork.load(directory / f"member-{number}.safetensors")
            for number in range(len(self.histories))
        ]
        self.current = self._trainer(min(len(self._finished), self.settings.members - 1))
        self.current.restore(directory)

    def _trainer(self, member: int) -> Trainer:
        settings, seed = self.settings, self.seed
        if settings.members > 1:
            (units,) = settings.hidden
            share = units // settings.members + (member < units % settings.members)
            settings = settings.model_copy(update={"hidden": (share,), "members": 1})
            stream = np.random.SeedSequence([seed % 2**64, MEMBER_SEEDS, member])
            seed = int(stream.generate_state(1, np.uint64)[0])
        return Trainer(self.data, settings, seed, *self._team)
