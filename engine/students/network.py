"""The InfluenceNetwork as a student, and what students share whose network Ray Train fits."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.config import NetworkConfig, StudentConfig
from engine.kernels.arrays import FloatArray, IndexArray
from engine.network.ensemble import EnsembleTrainer
from engine.network.influence_network import InfluenceNetwork
from engine.network.training_set import TrainingSet
from engine.students.student import Student

__all__ = ["NetworkStudent", "TrainedStudent", "fit_members"]

_PAIRS_PER_PASS = 4096


class TrainedStudent(Student):
    """A student that is an InfluenceNetwork fitted by gradient descent, or is made from one.

    The pipeline fits the network on Ray Train (`engine.network.fit`), `learn` in this process.
    """

    @classmethod
    @abstractmethod
    def training_set(cls, data: TrainingSet) -> TrainingSet:
        """What its network is fitted to."""

    @classmethod
    @abstractmethod
    def training_settings(cls, settings: StudentConfig, network: NetworkConfig) -> NetworkConfig:
        """How its network is fitted."""

    @classmethod
    @abstractmethod
    def of_network(
        cls, network: InfluenceNetwork, data: TrainingSet, settings: StudentConfig
    ) -> TrainedStudent:
        """The student whose network was fitted to `training_set(data)`."""

    @classmethod
    @abstractmethod
    def held_out(
        cls, data: TrainingSet, settings: StudentConfig, network: NetworkConfig, seed: int
    ) -> tuple[IndexArray, FloatArray, IndexArray]:
        """One fit in place of a cross-fit: labels by row, what those members of the network
        predict of them that held them out, and the members' numbers, (n,) each.
        """

    @classmethod
    def learn(
        cls, data: TrainingSet, settings: StudentConfig, network: NetworkConfig, seed: int
    ) -> TrainedStudent:
        from engine.network.fit import fit_network

        known = cls.training_set(data)
        fitted = fit_network(
            known.candidates,
            known.targets,
            known.pairs,
            known.labels,
            cls.training_settings(settings, network),
            seed,
        )
        return cls.of_network(fitted, data, settings)


class NetworkStudent(TrainedStudent):
    """Learns pairs or rows by gradient descent; see `InfluenceNetwork` and `fit_network`."""

    name = "network"
    label = "InfluenceNetwork"
    preference = 40

    def __init__(self, network: InfluenceNetwork) -> None:
        self.network = network
        self.pairwise = network.pairwise

    @classmethod
    def learns_from(cls, data: TrainingSet) -> bool:
        return True

    @classmethod
    def contends(cls, data: TrainingSet) -> bool:
        """Of single pairs only: of whole blocks and of rows it was never the best
        (docs/studies.md), and it costs most of the fit.
        """
        return data.pairwise and data.block() is None

    @classmethod
    def training_set(cls, data: TrainingSet) -> TrainingSet:
        return data

    @classmethod
    def training_settings(cls, settings: StudentConfig, network: NetworkConfig) -> NetworkConfig:
        return network

    @classmethod
    def of_network(
        cls, network: InfluenceNetwork, data: TrainingSet, settings: StudentConfig
    ) -> NetworkStudent:
        return cls(network)

    @classmethod
    def held_out(
        cls, data: TrainingSet, settings: StudentConfig, network: NetworkConfig, seed: int
    ) -> tuple[IndexArray, FloatArray, IndexArray]:
        return fit_members(data, network, seed)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())

    @torch.no_grad()
    def predict_pairs(
        self, candidates: FloatArray, targets: FloatArray | None, pairs: IndexArray
    ) -> FloatArray:
        pieces = [np.empty(0, np.float32)]
        for start in range(0, len(pairs), _PAIRS_PER_PASS):
            c, t = pairs[start : start + _PAIRS_PER_PASS].T
            e_c = torch.from_numpy(candidates[c])
            e_t = torch.from_numpy(targets[t]) if self.pairwise and targets is not None else None
            pieces.append(self.network(e_c, e_t).numpy())
        return np.concatenate(pieces)

    def save(self, path: Path) -> None:
        self.network.save(path)

    @classmethod
    def load(cls, path: Path) -> NetworkStudent:
        """Read what `save` wrote; raises ModelError for a file that is none."""
        return cls(InfluenceNetwork.load(path))

    def facts(self) -> dict[str, Any]:
        return {"hidden": list(self.network.hidden)}


def fit_members(
    data: TrainingSet, network: NetworkConfig, seed: int
) -> tuple[IndexArray, FloatArray, IndexArray]:
    """Fit the members of a network on one thread: the labels that each held out, by row, what it
    says of them, and its number, (n,) each.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trainer = EnsembleTrainer(data, network, seed)
        while not trainer.done:
            trainer.train_epoch()
        return trainer.held_out_predictions()
    finally:
        torch.set_num_threads(before)
