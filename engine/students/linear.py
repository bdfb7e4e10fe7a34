"""Ridge regression: the strongest baseline that a line of algebra gives, made usable.

Of a teacher's vectors, of blocks of labels and of rows it is the linear kernel of their kernel
ridge regression; of single pairs the ridge on [e_c, e_t], one linear term a side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.config import NetworkConfig, StudentConfig
from engine.kernels.arrays import FloatArray
from engine.network.ridge import Ridge
from engine.network.training_set import TrainingSet
from engine.students.kernel import KernelStudent
from engine.students.kernel_ridge import KernelRidge
from engine.students.student import ProductStudent
from engine.students.vectors import VectorStudent

__all__ = ["LinearStudent"]


class LinearStudent(ProductStudent):
    """A linear map of the features, to whatever the teacher says; `learned` is what it became."""

    name = "linear"
    label = "ridge regression"
    preference = 50

    def __init__(self, learned: VectorStudent | KernelStudent) -> None:
        self._learned = learned
        self.pairwise = learned.pairwise
        self.reads_target_vectors = learned.reads_target_vectors

    @classmethod
    def learns_from(cls, data: TrainingSet) -> bool:
        return True

    @classmethod
    def learn(
        cls, data: TrainingSet, settings: StudentConfig, network: NetworkConfig, seed: int
    ) -> LinearStudent:
        if VectorStudent.learns_from(data):
            return cls(VectorStudent.of_training_set(data, settings, seed, "linear"))
        if data.targets is None or data.block() is not None:
            return cls(KernelStudent.of_training_set(data, settings, seed, "linear"))
        return cls(_of_pairs(data, seed))

    @property
    def num_parameters(self) -> int:
        return self._learned.num_parameters

    def candidate_factors(self, features: Any, *, threads: int | None = None) -> Any:
        return self._learned.candidate_factors(features, threads=threads)

    def target_factors(self, targets: Any, *, threads: int | None = None) -> Any:
        return self._learned.target_factors(targets, threads=threads)

    @property
    def left_out_factors(self) -> FloatArray | None:
        return self._learned.left_out_factors

    def facts(self) -> dict[str, Any]:
        return self._learned.facts()

    def arrays(self) -> dict[str, NDArray[Any]]:
        return self._learned.arrays()

    def numbers(self) -> dict[str, Any]:
        return {"learned": self._learned.name, **self._learned.numbers()}

    @classmethod
    def of_file(
        cls, arrays: Mapping[str, NDArray[Any]], numbers: Mapping[str, Any]
    ) -> LinearStudent:
        kind = VectorStudent if numbers["learned"] == VectorStudent.name else KernelStudent
        return cls(kind.of_file(arrays, numbers))


def _of_pairs(data: TrainingSet, seed: int) -> KernelStudent:
    """A ridge on [e_c, e_t] as factors [w_c e_c, 1] and [1, w_t e_t + constant]."""
    assert data.targets is not None, "pairs have targets"
    ridge = Ridge.fit(
        data.candidates, data.targets, data.pairs, data.labels.astype(np.float64), seed
    )
    sides = []
    for side, (own, constant) in enumerate(((0, 0.0), (1, ridge.intercept))):
        weights = np.zeros((len(ridge.weights[side]), 2), np.float32)
        weights[:, own] = ridge.weights[side]
        offset = np.ones(2, np.float32)
        offset[own] = constant
        sides.append(
            KernelRidge(
                kernel="linear",
                landmarks=np.zeros((0, len(weights)), np.float32),
                weights=weights,
                offset=offset,
                centre=ridge.centres[side].astype(np.float32),
                width=1.0,
                penalty=ridge.penalty,
                leave_one_out=1.0,
            )
        )
    return KernelStudent(*sides)
