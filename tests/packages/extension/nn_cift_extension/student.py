"""A linear guess of a candidate's mean label: the same for every target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.config import NetworkConfig, StudentConfig
from engine.network.training_set import TrainingSet
from engine.students.student import ProductStudent

__all__ = ["CandidateMeansStudent"]


class CandidateMeansStudent(ProductStudent):
    """Least squares, a little pulled to zero, from features to labels."""

    name = "candidate_means"
    label = "candidates' means"

    def __init__(self, weights: NDArray[np.float32]) -> None:
        self._weights = weights

    @classmethod
    def learns_from(cls, data: TrainingSet) -> bool:
        return True

    @classmethod
    def learn(
        cls, data: TrainingSet, settings: StudentConfig, network: NetworkConfig, seed: int
    ) -> CandidateMeansStudent:
        rows = data.candidates[data.pairs[:, 0]].astype(np.float64)
        gram = rows.T @ rows + 0.1 * len(rows) * np.eye(rows.shape[1])
        return cls(np.linalg.solve(gram, rows.T @ data.labels).astype(np.float32))

    @property
    def num_parameters(self) -> int:
        return len(self._weights)

    def candidate_factors(self, features: Any, *, threads: int | None = None) -> Any:
        return (features @ self._weights)[:, None]

    def target_factors(self, targets: Any, *, threads: int | None = None) -> Any:
        return np.ones((len(targets), 1), np.float32)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"weights": self._weights}

    def numbers(self) -> dict[str, Any]:
        return {}

    @classmethod
    def of_file(
        cls, arrays: Mapping[str, NDArray[Any]], numbers: Mapping[str, Any]
    ) -> CandidateMeansStudent:
        return cls(arrays["weights"])
