"""A student that learns the teacher's vector of a row, where influence is their similarity.

Where a pair's score is <f(c), f(t)>, there are M + N vectors to learn and not M N scores. RDS+ and
DELIFT (SE) see both sides with one map f, so the targets' vectors are labels too, and all vectors
are predicted by kernel ridge regression. Exact ones are there for the targets, but what the student
makes of them finds the right rows more often: it smooths a noisy teacher on both sides
(`student.targets`; benchmarks/results/target_recovery.md). Influence Distillation (arXiv
2505.19051) is a published relative.

For a cosine the teacher's vectors have unit length, and what is predicted of one has less: the
regression shrinks what it does not know towards the mean. The expected score is linear in the
candidate's vector, so <f^(c), f(t)> is the best guess of a pair. But rows compete for places by it,
and there a row that is hard to predict is behind for no fault of its own: diverse target sets lose
most of their rows (benchmarks/results/target_recovery.md). So a candidate's vector is stretched
back, divided by a power of its length, as far as the order of candidates that were left out bears
it (`STRETCHES`). In full it would be too much: rows that nothing is known of would all look alike
and near to everything (docs/negative_results.md).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from engine.config import NetworkConfig, StudentConfig
from engine.errors import InputError, SettingsError
from engine.kernels.arrays import FloatArray
from engine.kernels.product import unit_rows
from engine.kernels.ranks import order_within_targets
from engine.network.training_set import TrainingSet
from engine.students.kernel_ridge import KernelName, KernelRidge
from engine.students.student import ProductStudent, load_student

__all__ = ["PredictedVectors", "Similarity", "VectorStudent", "labelled_rows", "stretched"]

Similarity = Literal["cosine", "dot"]

# Powers of a predicted vector's length that it may be divided by.
STRETCHES = (0.75, 0.5, 0.25)
# What a stretch may take from the order of candidates that were left out: the mean of both orders
# that students are compared by, which a fresh audit would not tell apart.
_BEARS = 0.01
_JUDGED = 2048  # candidates at most: more would tell no better


class PredictedVectors(ProductStudent):
    """What predicts the teacher's vectors of candidates, to compare with those of the targets.

    Args:
        similarity: of two vectors: "cosine" gives them unit length first.
        targets_too: whether the target side of a prediction passes through the student as well:
            it is then features. That smooths a noisy teacher on both sides.
    """

    needs_vectors = True
    needs_targets = True

    def __init__(self, similarity: Similarity, targets_too: bool) -> None:
        self.similarity = similarity
        self.reads_target_vectors = not targets_too

    @classmethod
    def learns_from(cls, data: TrainingSet) -> bool:
        return data.candidate_vectors is not None and data.targets is not None

    @property
    @abstractmethod
    def vector_size(self) -> int:
        """V, numbers of a vector."""

    @abstractmethod
    def predict(self, features: Any, *, threads: int | None = None) -> Any:
        """Vectors of rows: (m, F) -> (m, V) float32, shorter than 1 by what is not known.

        numpy in, numpy out; a tensor stays on its device.
        """

    def candidate_factors(self, features: Any, *, threads: int | None = None) -> Any:
        return self.predict(features, threads=threads)

    def target_factors(self, targets: Any, *, threads: int | None = None) -> Any:
        if not self.reads_target_vectors:
            found = self.predict(targets, threads=threads)
            # a target's length is no order of candidates: all targets count alike
            return found if self.similarity == "dot" else unit_rows(found)
        if targets.shape[1] != self.vector_size:
            raise SettingsError(
                f"the targets have vectors of {targets.shape[1]} numbers, the student learned "
                f"vectors of {self.vector_size}: pass the teacher's vectors of the targets (N, V), "
                "not their features"
            )
        return targets if self.similarity == "dot" else unit_rows(targets)

    def numbers(self) -> dict[str, Any]:
        return {"similarity": self.similarity, "targets_too": not self.reads_target_vectors}


class VectorStudent(PredictedVectors):
    """Kernel ridge regression from a row's features to the teacher's vector of the row.

    `fit` in a notebook, `predict` gives vectors, and `engine.predict_influence(student, features of
    candidates, vectors of targets)` the influence. Needs no Ray.

    Args:
        regression: the fitted map.
        similarity, targets_too: see `PredictedVectors`.
        stretch: power of a candidate's predicted length that its vector is divided by when it
            competes with others; 0 leaves expected scores, 1 gives all of them unit length.
    """

    name = "vectors"
    label = "kernel ridge regression to the teacher's vectors"
    preference = 10

    def __init__(
        self,
        regression: KernelRidge,
        similarity: Similarity,
        targets_too: bool = False,
        stretch: float = 0.0,
    ) -> None:
        super().__init__(similarity, targets_too)
        self.regression = regression
        self.stretch = stretch
        self.num_candidates = 0  # of the rows that it was fitted to; the others are targets

    @classmethod
    def learn(
        cls, data: TrainingSet, settings: StudentConfig, network: NetworkConfig, seed: int
    ) -> VectorStudent:
        return cls.of_training_set(data, settings, seed, "rbf")

    @classmethod
    def of_training_set(
        cls, data: TrainingSet, settings: StudentConfig, seed: int, kernel: KernelName
    ) -> VectorStudent:
        """From the vectors of both sides, each row once."""
        student = cls.fit(
            *labelled_rows(data),
            data.similarity,
            seed,
            kernel=kernel,
            max_landmarks=settings.max_landmarks,
            targets_too=settings.targets != "exact",
            left_out=True,
        )
        student.num_candidates = len(data.candidates)
        if data.similarity == "cosine":
            student.stretch = student._bearable_stretch(data)
        return student

    def _bearable_stretch(self, data: TrainingSet) -> float:
        """The most that leaves the order of the labelled candidates as it is without their own."""
        without = self.regression.left_out
        assert without is not None and data.target_vectors is not None, "see of_training_set"
        c, t = data.pairs.T
        some = c % -(-len(data.candidates) // _JUDGED) == 0
        targets = np.asarray(unit_rows(data.target_vectors))

        def score(power: float) -> float:
            influence = stretched(without[: self.num_candidates], power) @ targets.T
            pairs = data.pairs[some]
            return sum(order_within_targets(influence[c[some], t[some]], data.labels[some], pairs))

        scores = {power: score(power) / 2 for power in (*STRETCHES, 0.0)}
        best = max(scores.values())
        return next(power for power, found in scores.items() if found >= best - _BEARS)

    @classmethod
    def fit(
        cls,
        features: ArrayLike | Tensor,
        vectors: ArrayLike | Tensor,
        similarity: Similarity = "cosine",
        seed: int = 0,
        *,
        kernel: KernelName = "rbf",
        max_landmarks: int = 4096,
        targets_too: bool = False,
        left_out: bool = False,
    ) -> VectorStudent:
        """Fit to the teacher's vectors of some rows, candidates and targets alike.

        Args:
            features: (n, F), what the student reads of a row.
            vectors: (n, V), the teacher's.
            similarity: "cosine" or "dot".
            seed: draws the landmarks: same seed, same bytes.
            kernel: "rbf", or "linear".
            max_landmarks: rows that new rows are compared with, at most.
            targets_too: see the class.
            left_out: also find `regression.left_out`, what is predicted of each row without it.

        Raises InputError for shapes that do not match, values that are not finite, fewer than two
        rows, vectors that are all alike. Cost: `KernelRidge.fit`.
        """
        rows, wanted = _matrix(features, "features"), _matrix(vectors, "vectors")
        if len(rows) != len(wanted):
            raise InputError(
                f"got features of {len(rows)} rows and vectors of {len(wanted)}: expected one "
                "vector for each row"
            )
        if similarity not in ("cosine", "dot"):
            raise SettingsError(f'similarity must be "cosine" or "dot", got {similarity!r}')
        if similarity == "cosine":
            wanted = np.asarray(unit_rows(wanted))
        regression = KernelRidge.fit(
            rows, wanted, kernel, max_landmarks=max_landmarks, seed=seed, left_out=left_out
        )
        return cls(regression, similarity, targets_too)

    @property
    def num_parameters(self) -> int:
        return self.regression.num_parameters

    @property
    def dim(self) -> int:
        """F, size of a row's features."""
        return len(self.regression.centre)

    @property
    def vector_size(self) -> int:
        return len(self.regression.offset)

    def predict(self, features: Any, *, threads: int | None = None) -> Any:
        """As `PredictedVectors.predict`; cost m L (F + V) multiply-adds."""
        return self.regression.predict(features, threads=threads)

    def candidate_factors(self, features: Any, *, threads: int | None = None) -> Any:
        return stretched(self.predict(features, threads=threads), self.stretch)

    @property
    def left_out_factors(self) -> FloatArray | None:
        without = self.regression.left_out
        if without is None:
            return None
        return np.asarray(stretched(without[: self.num_candidates], self.stretch))

    def numbers(self) -> dict[str, Any]:
        return {**super().numbers(), "stretch": self.stretch}

    def facts(self) -> dict[str, Any]:
        return {**self.regression.facts(), "stretch": self.stretch}

    def arrays(self) -> dict[str, NDArray[Any]]:
        return self.regression.arrays("map")

    @classmethod
    def of_file(
        cls, arrays: Mapping[str, NDArray[Any]], numbers: Mapping[str, Any]
    ) -> VectorStudent:
        regression = KernelRidge.of_arrays(arrays, "map")
        similarity, stretch = numbers["similarity"], float(numbers["stretch"])
        return cls(regression, similarity, bool(numbers["targets_too"]), stretch)

    @classmethod
    def load(cls, path: Path) -> VectorStudent:
        """Read what `save` wrote; raises ModelError for a file that is none."""
        student = load_student(path)
        if not isinstance(student, VectorStudent):
            raise SettingsError(f"{path} is a student of another kind: {student.name}")
        return student


def stretched(vectors: Any, power: float) -> Any:
    """Rows (n, V), each divided by that power of its length; numpy or a tensor, float32."""
    if not power:
        return vectors
    if isinstance(vectors, Tensor):
        lengths = vectors.double().norm(dim=1, keepdim=True)
        return (vectors / lengths.clamp_min(1e-30) ** power).float()
    lengths = np.sqrt(np.einsum("nv,nv->n", vectors, vectors, dtype=np.float64))
    scales = np.where(lengths > 0, lengths, 1) ** power
    return (vectors / scales[:, None]).astype(np.float32)


def labelled_rows(data: TrainingSet) -> tuple[FloatArray, FloatArray]:
    """Features (n, F) and the teacher's vectors (n, V) of every labelled row, candidates first."""
    assert data.targets is not None, "vectors of a teacher of pairs"
    assert data.candidate_vectors is not None and data.target_vectors is not None, "vectors"
    features = np.concatenate((data.candidates, data.targets))
    return features, np.concatenate((data.candidate_vectors, data.target_vectors))


def _matrix(values: ArrayLike | Tensor, name: str) -> FloatArray:
    """A finite float32 matrix; raises InputError."""
    if isinstance(values, Tensor):
        values = values.detach().float().cpu().numpy()
    matrix = np.asarray(values, np.float32)
    if matrix.ndim != 2 or not matrix.shape[1]:
        raise InputError(f"{name} must be a matrix with a row for each row, got {matrix.shape}")
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(bad):
        raise InputError(
            f"{name}: row {bad[0]} ({len(bad)} of {len(matrix)} rows) holds NaN or infinity: "
            "leave those rows out"
        )
    return matrix
