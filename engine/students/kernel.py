"""Kernel ridge regression to the labels themselves: of rows, of whole blocks, of single pairs.

    rows      one output, for teachers that score rows alone
    block     every asked candidate with the same targets: an output per target, and for a target
              that was not asked the outputs of those like it
    pairs     some targets of each candidate: a Gaussian process whose kernel is a sum of one of the
              candidate, one of the target, and their product (Stock et al., Neural Computation
              30(8), 2018, on kernels of pairs)

All end as factors of both sides. Penalties are chosen by leaving out whole candidates, which is
what a prediction meets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from engine.config import NetworkConfig, StudentConfig
from engine.kernels.arrays import DoubleArray, FloatArray, IndexArray
from engine.network.training_set import TrainingSet
from engine.students.kernel_ridge import (
    CHOOSING_ROWS,
    PENALTIES,
    Gram,
    KernelName,
    KernelRidge,
    solved,
    width_of,
)
from engine.students.student import ProductStudent

__all__ = ["KernelStudent"]

# Weights of the kernels of the candidate, of the target, and of their product.
MIXES = ((1.0, 1.0, 1.0), (1.0, 1.0, 0.3), (0.3, 1.0, 1.0), (1.0, 0.3, 1.0))
_INTERPOLATING = 1e-6  # penalty of a target side that gives back what it was told
_SUM_PAIRS = 4096
CHOOSING_PAIRS = 800  # that mix and penalty are chosen on: all pairs of some candidates


class KernelStudent(ProductStudent):
    """Kernel ridge regression to labels.

    Args:
        candidates: features of a candidate -> its factors.
        targets: the same of a target; None for a teacher that scores rows alone.
    """

    name = "kernel"
    label = "kernel ridge regression to the teacher's labels"
    preference = 30

    def __init__(self, candidates: KernelRidge, targets: KernelRidge | None) -> None:
        self._candidates, self._targets = candidates, targets
        self.pairwise = targets is not None

    @classmethod
    def learns_from(cls, data: TrainingSet) -> bool:
        return True

    @classmethod
    def contends(cls, data: TrainingSet) -> bool:
        """Where there are no vectors: what learns scores beside them is behind, or, with hundreds
        of labels, learns the teacher's whims as well (docs/negative_results.md).
        """
        return data.candidate_vectors is None

    @classmethod
    def learn(
        cls, data: TrainingSet, settings: StudentConfig, network: NetworkConfig, seed: int
    ) -> KernelStudent:
        return cls.of_training_set(data, settings, seed, "rbf")

    @classmethod
    def of_training_set(
        cls, data: TrainingSet, settings: StudentConfig, seed: int, kernel: KernelName
    ) -> KernelStudent:
        """From labels of rows or of a block, with the kernel named; of pairs with the Gaussian."""
        most = settings.max_landmarks
        if data.targets is None:
            rows, labels = data.candidates[data.pairs[:, 0]], data.labels[:, None]
            found = KernelRidge.fit(
                rows, labels, kernel, max_landmarks=most, seed=seed, left_out=True
            )
            return cls(found, None)
        block = data.block()
        if block is None:
            return cls(*_fit_pairs(data, data.targets, most, seed))
        candidates = KernelRidge.fit(
            data.candidates, block, kernel, max_landmarks=most, seed=seed, left_out=True
        )
        return cls(candidates, _target_side(data.targets, block, settings, seed, kernel))

    @property
    def num_parameters(self) -> int:
        sides = (self._candidates, self._targets)
        return sum(side.num_parameters for side in sides if side is not None)

    def candidate_factors(self, features: Any, *, threads: int | None = None) -> Any:
        return self._candidates.predict(features, threads=threads)

    def target_factors(self, targets: Any, *, threads: int | None = None) -> Any:
        if self._targets is None:
            if isinstance(targets, Tensor):
                return targets.new_ones((len(targets), 1))
            return np.ones((len(targets), 1), np.float32)
        return self._targets.predict(targets, threads=threads)

    @property
    def left_out_factors(self) -> FloatArray | None:
        return self._candidates.left_out

    def facts(self) -> dict[str, Any]:
        return self._candidates.facts()

    def arrays(self) -> dict[str, NDArray[Any]]:
        found = self._candidates.arrays("candidates")
        return found if self._targets is None else found | self._targets.arrays("targets")

    def numbers(self) -> dict[str, Any]:
        return {"pairwise": self.pairwise}

    @classmethod
    def of_file(
        cls, arrays: Mapping[str, NDArray[Any]], numbers: Mapping[str, Any]
    ) -> KernelStudent:
        candidates = KernelRidge.of_arrays(arrays, "candidates")
        if not numbers["pairwise"]:
            return cls(candidates, None)
        return cls(candidates, KernelRidge.of_arrays(arrays, "targets"))


def _target_side(
    targets: FloatArray, block: FloatArray, settings: StudentConfig, seed: int, kernel: KernelName
) -> KernelRidge:
    """How much of each asked target's outputs any target takes: features (n, F) -> (n, T).

    An asked target takes its own alone, or with `student.targets: student` also those of targets
    like it, as much as the regression of the block from the targets' side finds best.
    """
    if len(targets) == 1:
        return KernelRidge.constant(targets.shape[1], np.ones(1))
    penalty = _INTERPOLATING
    if settings.targets == "student":
        penalty = KernelRidge.fit(targets, block.T, kernel, seed=seed).penalty
    return KernelRidge.fit(targets, np.eye(len(targets)), kernel, penalty=penalty, seed=seed)


# --- single pairs --------------------------------------------------------------------------------


class _PairGram:
    """The kernel of pairs (n, 2) of rows of two sides: K_c K_t, K_c and K_t, mixed."""

    def __init__(self, candidates: FloatArray, targets: FloatArray, mix: tuple[float, ...]) -> None:
        self._sides = (candidates, targets)
        self.widths = [width_of(side[:CHOOSING_ROWS].astype(np.float64)) for side in self._sides]
        self.mix = mix

    def __call__(self, rows: IndexArray, columns: IndexArray) -> DoubleArray:
        of_candidate, of_target = (self._of_side(n, rows, columns) for n in (0, 1))
        own, other, both = self.mix
        mixed: DoubleArray = both * of_candidate * of_target
        mixed += own * of_candidate
        mixed += other * of_target
        return mixed

    def _of_side(self, side: int, rows: IndexArray, columns: IndexArray) -> DoubleArray:
        (of_rows, r), (of_columns, c) = (
            np.unique(pairs[:, side], return_inverse=True) for pairs in (rows, columns)
        )
        features, gram = self._sides[side], Gram("rbf", self.widths[side])
        values = gram(features[of_rows].astype(np.float64), features[of_columns].astype(np.float64))
        return np.asarray(values[np.ix_(r, c)], np.float64)


def _fit_pairs(
    data: TrainingSet, targets: FloatArray, max_landmarks: int, seed: int
) -> tuple[KernelRidge, KernelRidge]:
    """The maps of both sides. Cost: four eigenvalue problems of about CHOOSING_PAIRS pairs, then
    n L (L + F) multiply-adds for n pairs and L landmarks.
    """
    centres = [side.mean(axis=0) for side in (data.candidates, targets)]
    sides = [
        side - centre for side, centre in zip((data.candidates, targets), centres, strict=True)
    ]
    ids = np.unique(data.pairs[:, 0])
    order = ids[np.random.default_rng(seed % 2**64).permutation(len(ids))]
    offset = float(data.labels.mean(dtype=np.float64))
    residual = data.labels.astype(np.float64) - offset
    with threadpool_limits(1, user_api="blas"):
        some = _pairs_of(data.pairs, order, CHOOSING_PAIRS)
        tried = []
        for mix in MIXES:
            gram = _PairGram(sides[0], sides[1], mix)
            own = gram(data.pairs[some], data.pairs[some])
            tried += [
                (error, penalty, mix)
                for penalty, error in _errors(own, data.pairs[some, 0], residual[some])
            ]
        error, penalty, mix = min(tried)
        gram = _PairGram(sides[0], sides[1], mix)
        landmarks = data.pairs[_pairs_of(data.pairs, order, max_landmarks)]
        if len(landmarks) == len(data.pairs):
            system = gram(landmarks, landmarks)
            system[np.diag_indices(len(system))] += penalty
            weights = solved(system, residual)
        else:
            system, right = penalty * gram(landmarks, landmarks), np.zeros(len(landmarks))
            for start in range(0, len(residual), _SUM_PAIRS):
                part = gram(data.pairs[start : start + _SUM_PAIRS], landmarks)
                system += part.T @ part
                right += part.T @ residual[start : start + _SUM_PAIRS]
            weights = solved(system, right)
    return _maps(sides, centres, gram, landmarks, weights, offset, penalty, error)


def _pairs_of(pairs: IndexArray, order: IndexArray, most: int) -> IndexArray:
    """Positions of all pairs of the first candidates of an order, about `most`, two at least."""
    counts = np.bincount(pairs[:, 0], minlength=int(order.max()) + 1)[order]
    kept = max(2, int(np.searchsorted(np.cumsum(counts), most, side="right")))
    return np.flatnonzero(np.isin(pairs[:, 0], order[:kept]))


def _errors(
    gram: DoubleArray, candidates: IndexArray, residual: DoubleArray
) -> list[tuple[float, float]]:
    """For each penalty the squared error of leaving out whole candidates, over that of 0.

    Of a group B of labels the error is (G_BB)^-1 (G y)_B with G = (K + lambda I)^-1.
    """
    eigenvalues, vectors = scipy.linalg.eigh(gram)
    eigenvalues = np.maximum(eigenvalues, 0)
    turned = vectors.T @ residual
    groups = [np.flatnonzero(candidates == c) for c in np.unique(candidates)]
    spread = max(float(residual @ residual), 1e-300)
    found = []
    for penalty in PENALTIES:
        inverse = 1 / (eigenvalues + penalty)
        solution = vectors @ (inverse * turned)
        error = 0.0
        for group in groups:
            part = vectors[group]
            own = (part * inverse) @ part.T
            error += float(np.square(np.linalg.solve(own, solution[group])).sum())
        found.append((penalty, error / spread))
    return found


def _maps(
    sides: list[FloatArray],
    centres: list[FloatArray],
    gram: _PairGram,
    landmarks: IndexArray,
    weights: DoubleArray,
    offset: float,
    penalty: float,
    error: float,
) -> tuple[KernelRidge, KernelRidge]:
    """The sum over landmarks as factors: [k_c W, k_c w, 1] and [k_t, 1, k_t v + offset]."""
    (of_c, c), (of_t, t) = (np.unique(landmarks[:, n], return_inverse=True) for n in (0, 1))
    own, other, both = gram.mix
    products = np.zeros((len(of_c), len(of_t)))
    np.add.at(products, (c, t), both * weights)
    alone = own * np.bincount(c, weights, minlength=len(of_c))
    of_target = other * np.bincount(t, weights, minlength=len(of_t))
    left = np.concatenate((products, alone[:, None], np.zeros((len(of_c), 1))), axis=1)
    right = np.concatenate(
        (np.eye(len(of_t)), np.zeros((len(of_t), 1)), of_target[:, None]), axis=1
    )
    nothing = np.zeros(len(of_t))
    offsets = (np.append(nothing, (0.0, 1.0)), np.append(nothing, (1.0, offset)))
    return tuple(  # type: ignore[return-value]
        KernelRidge(
            kernel="rbf",
            landmarks=side[rows].astype(np.float32),
            weights=matrix.astype(np.float32),
            offset=constant.astype(np.float32),
            centre=centre.astype(np.float32),
            width=width,
            penalty=penalty,
            leave_one_out=error,
        )
        for side, rows, matrix, constant, centre, width in zip(
            sides, (of_c, of_t), (left, right), offsets, centres, gram.widths, strict=True
        )
    )
