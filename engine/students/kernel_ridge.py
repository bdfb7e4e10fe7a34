"""Kernel ridge regression from features of rows to whatever a teacher says of them.

    f(x) = mu + k(x, X_L) W,     W = (K + lambda I)^-1 (Y - mu)

with the kernel of a Gaussian, exp(-|x - x'|^2 / (2 s^2)), s^2 the median squared distance of the
labelled rows or half of it, or a linear one, <x - m, x' - m> over its mean on the diagonal. Lambda
and s^2 are those of a grid whose closed-form leave-one-out error e_i / (1 - H_ii) is least, on up
to `CHOOSING_ROWS` rows: the noise that lambda stands for does not change with their number. With
more labelled rows than landmarks W minimises the same loss over functions of the landmarks (subset
of regressors; Rasmussen and Williams 2006, section 8.3.1), which are drawn by seed.

Everything is numpy on one thread of BLAS per block of rows, so a row's prediction is a function of
the block of BLOCK_ROWS that it lies in, whatever number of threads or actors computes it; tensors
on a CUDA device are predicted there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from engine.errors import InputError
from engine.kernels.arrays import DoubleArray, FloatArray

__all__ = [
    "BLOCK_ROWS",
    "CHOOSING_ROWS",
    "PENALTIES",
    "Gram",
    "KernelName",
    "KernelRidge",
    "by_blocks",
    "solved",
    "width_of",
]

KernelName = Literal["rbf", "linear"]
Rows: TypeAlias = NDArray[np.float32] | Tensor

BLOCK_ROWS = 1024  # always that many in a product, the last ones padded
PENALTIES = tuple(10.0 ** (power / 2) for power in range(-8, 5))  # of a kernel of about 1
WIDTHS = (0.5, 1.0)  # of the Gaussian, in median squared distances
CHOOSING_ROWS = 2048
_SUM_ROWS = 8192
# Eigenvalues below this share of the largest are rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class KernelRidge:
    """A fitted map (n, F) -> (n, K), or with `weights` (F, K) and a linear kernel an affine one.

    Attributes:
        kernel: rbf or linear.
        landmarks: rows that the kernel compares with, (L, F) float32; of a linear kernel (0, F).
        weights: (L, K) float32, of a linear kernel (F, K).
        offset: mu, (K,) float32.
        centre: m, (F,) float32; subtracted from features first.
        width: s^2 of the Gaussian.
        penalty: lambda that was chosen.
        leave_one_out: mean squared error of its leave-one-out predictions over that of the mean.
        left_out: on request, of each labelled row what is predicted without it, (n, K) float32; not
            saved.
    """

    kernel: KernelName
    landmarks: FloatArray
    weights: FloatArray
    offset: FloatArray
    centre: FloatArray
    width: float
    penalty: float
    leave_one_out: float
    left_out: FloatArray | None = field(default=None, compare=False, repr=False)

    @classmethod
    def fit(
        cls,
        features: FloatArray,
        values: NDArray[np.floating[Any]],
        kernel: KernelName = "rbf",
        *,
        max_landmarks: int = 4096,
        penalty: float | None = None,
        seed: int = 0,
        left_out: bool = False,
    ) -> KernelRidge:
        """Fit features (n, F) to values (n, K), both finite; `penalty` in place of the best.

        Raises InputError for fewer than two rows. Cost: an eigenvalue problem of up to
        CHOOSING_ROWS rows, then n L (F + K + L) multiply-adds; memory 8 L^2 bytes and the inputs.
        """
        if len(features) < 2:
            raise InputError(
                f"{len(features)} labelled row is too few to learn from, expected at least 2: "
                "raise sample.fraction"
            )
        order = np.random.default_rng(seed % 2**64).permutation(len(features))
        centre = features.mean(axis=0, dtype=np.float64)
        rows = (features - centre).astype(np.float32)
        wanted = np.asarray(values, np.float64)
        offset = wanted.mean(axis=0)
        some = np.sort(order[:CHOOSING_ROWS])
        few = rows[some].astype(np.float64)
        width = width_of(few) if kernel == "rbf" else _mean_square(few)
        error = 1.0
        with threadpool_limits(1, user_api="blas"):
            if penalty is None:
                tried = []
                for share in WIDTHS if kernel == "rbf" else (1.0,):
                    own = Gram(kernel, share * width)(few, few)
                    tried.append((*_choose(own, wanted[some]), share * width))
                error, penalty, width = min(tried)
            gram = Gram(kernel, width)
            solution = _Solution(kernel, gram, rows, wanted - offset, penalty)
            solution.solve(rows[np.sort(order[:max_landmarks])])
            without = solution.left_out() + offset if left_out else None
        return cls(
            kernel,
            solution.landmarks if kernel == "rbf" else rows[:0],
            # as a file holds them: products of another layout differ in their last bits
            np.ascontiguousarray(solution.weights, np.float32),
            offset.astype(np.float32),
            centre.astype(np.float32),
            width,
            penalty,
            error,
            None if without is None else without.astype(np.float32),
        )

    @classmethod
    def constant(cls, dim: int, value: DoubleArray) -> KernelRidge:
        """The map of rows (n, `dim`) to one value (K,)."""
        offset = np.asarray(value, np.float32)
        weights, centre = np.zeros((dim, len(offset)), np.float32), np.zeros(dim, np.float32)
        return cls("linear", np.zeros((0, dim), np.float32), weights, offset, centre, 1.0, 0.0, 1.0)

    @property
    def num_parameters(self) -> int:
        """Numbers that the fit found."""
        return self.weights.size + self.offset.size

    def predict(self, features: Rows, *, threads: int | None = None) -> FloatArray | Tensor:
        """(m, F) -> (m, K) float32; cost m L (F + K) multiply-adds, m F K for a linear kernel.

        A tensor stays a tensor on its device. The same bits for any number of threads.
        """
        if isinstance(features, Tensor):
            return self._block_on_device(features)
        return by_blocks(self._block, features, len(self.offset), threads)

    def _block(self, features: FloatArray) -> FloatArray:
        rows: Any = features - self.centre
        if self.kernel == "rbf":
            rows = Gram("rbf", self.width)(rows, self.landmarks)
        found: FloatArray = rows @ self.weights + self.offset
        return found

    def _block_on_device(self, features: Tensor) -> Tensor:
        landmarks, weights, offset, centre = (
            torch.from_numpy(part).to(features.device)
            for part in (self.landmarks, self.weights, self.offset, self.centre)
        )
        pieces = [features.new_empty((0, len(offset)))]
        for some in torch.split(features.float(), _SUM_ROWS):
            rows = some - centre
            if self.kernel == "rbf":
                rows = torch.exp(torch.cdist(rows, landmarks).square_().mul_(-0.5 / self.width))
            pieces.append(rows @ weights + offset)
        return torch.cat(pieces)

    def facts(self) -> dict[str, float]:
        """What a manifest says of it."""
        return {
            "landmarks": len(self.landmarks),
            "penalty": self.penalty,
            "leave_one_out": self.leave_one_out,
        }

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """What a file holds of it, by name."""
        numbers = np.array([self.width, self.penalty, self.leave_one_out])
        return {
            f"{prefix}.landmarks": self.landmarks,
            f"{prefix}.weights": self.weights,
            f"{prefix}.offset": self.offset,
            f"{prefix}.centre": self.centre,
            f"{prefix}.{self.kernel}": numbers,
        }

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]], prefix: str) -> KernelRidge:
        """Read what `arrays` gave; raises KeyError when it is not there."""
        kernel: KernelName = "rbf" if f"{prefix}.rbf" in arrays else "linear"
        width, penalty, error = arrays[f"{prefix}.{kernel}"].tolist()
        landmarks, weights, offset, centre = (
            arrays[f"{prefix}.{name}"] for name in ("landmarks", "weights", "offset", "centre")
        )
        return cls(kernel, landmarks, weights, offset, centre, width, penalty, error)


def by_blocks(
    function: Callable[[FloatArray], FloatArray],
    rows: FloatArray,
    width: int,
    threads: int | None = None,
) -> FloatArray:
    """A function of BLOCK_ROWS rows over any number of them: (m, F) -> (m, width) float32.

    The last block is filled up with zeros, and every block runs on one thread of BLAS, so that the
    result does not depend on how many blocks are computed at a time.
    """
    found = np.empty((len(rows), width), np.float32)

    def do(start: int) -> None:
        some = np.asarray(rows[start : start + BLOCK_ROWS], np.float32)
        missing = BLOCK_ROWS - len(some)
        if missing:
            some = np.concatenate((some, np.zeros((missing, some.shape[1]), np.float32)))
        found[start : start + BLOCK_ROWS] = function(some)[: BLOCK_ROWS - missing]

    starts = range(0, len(rows), BLOCK_ROWS)
    with threadpool_limits(1, user_api="blas"):
        if len(starts) < 2 or threads == 1:
            for start in starts:
                do(start)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(do, starts))
    return found


# --- fitting -------------------------------------------------------------------------------------


class Gram:
    """The kernel of rows, centred features, as a matrix: (m, F), (n, F) -> (m, n)."""

    def __init__(self, kernel: KernelName, width: float) -> None:
        self._kernel, self.width = kernel, width

    def __call__(self, rows: Any, columns: Any) -> Any:
        products = rows @ columns.T
        if self._kernel == "linear":
            return products / self.width
        # (2 <x, y> - |x|^2 - |y|^2) / 2 s^2, in place
        products -= np.einsum("nf,nf->n", rows, rows)[:, None] / 2
        products -= np.einsum("nf,nf->n", columns, columns)[None, :] / 2
        products /= self.width
        np.minimum(products, 0, out=products)
        return np.exp(products, out=products)


def width_of(rows: DoubleArray) -> float:
    """The median squared distance of two rows; 1 when all are alike."""
    squares = np.einsum("nf,nf->n", rows, rows)
    distances = squares[:, None] + squares[None, :] - 2 * rows @ rows.T
    above = distances[np.triu_indices(len(rows), 1)]
    median = float(np.median(above))
    return median if median > _ROUNDING * max(float(squares.max()), 1e-30) else 1.0


def _mean_square(rows: DoubleArray) -> float:
    mean = float(np.einsum("nf,nf->n", rows, rows).mean())
    return mean if mean > 0 else 1.0


def _choose(gram: DoubleArray, values: DoubleArray) -> tuple[float, float]:
    """The least leave-one-out error, over that of the mean, and the penalty that has it."""
    residual = values - values.mean(axis=0)
    spread = float(np.square(residual * len(values) / (len(values) - 1)).mean())
    eigenvalues, vectors = scipy.linalg.eigh(gram)
    eigenvalues = np.maximum(eigenvalues, 0)
    turned, of_ones = vectors.T @ residual, vectors.sum(axis=0)
    best = (1.0, PENALTIES[-1])
    if spread == 0:
        return best
    for penalty in reversed(PENALTIES):  # of two that serve alike the smoother
        shrunk = eigenvalues / (eigenvalues + penalty)
        # of the row itself, through the kernel and through the mean
        leverage = np.square(vectors) @ shrunk + (1 - vectors @ (shrunk * of_ones)) / len(values)
        errors = residual - vectors @ (shrunk[:, None] * turned)
        errors /= np.maximum(1 - leverage, 1e-9)[:, None]
        error = float(np.square(errors).mean()) / spread
        if error < best[0]:
            best = (error, penalty)
    return best


class _Solution:
    """W, and what is predicted of each labelled row without it.

    Every row a landmark: (K + lambda I) W = Y. Else, and for a linear kernel, whose design is the
    rows themselves, least squares over a design A of the rows: (A' A + lambda P) W = A' Y.
    """

    def __init__(
        self,
        kernel: KernelName,
        gram: Gram,
        rows: FloatArray,
        values: DoubleArray,
        penalty: float,
    ) -> None:
        self._kernel, self._gram, self._penalty = kernel, gram, penalty
        self._rows, self._values = rows, values

    def solve(self, landmarks: FloatArray) -> None:
        self.landmarks = landmarks
        self._wide = landmarks.astype(np.float64)
        self._exact = self._kernel == "rbf" and len(landmarks) == len(self._rows)
        if self._exact:
            system = self._gram(self._wide, self._wide)
            system[np.diag_indices(len(system))] += self._penalty
            right = self._values
        else:
            system, right = _sums(self._design, self._rows, self._values)
            if self._kernel == "linear":
                system[np.diag_indices(len(system))] += self._penalty * self._gram.width
            else:
                system += self._penalty * self._gram(self._wide, self._wide)
        self._factor = factored(system)
        self.weights: DoubleArray = self._solved(right)

    def _solved(self, right: DoubleArray) -> DoubleArray:
        found: DoubleArray = scipy.linalg.cho_solve(self._factor, right, check_finite=False)
        return found

    def _design(self, rows: DoubleArray) -> DoubleArray:
        return rows if self._kernel == "linear" else np.asarray(self._gram(rows, self._wide))

    def left_out(self) -> DoubleArray:
        """(n, K): y_i - e_i / (1 - H_ii), H with the share of the mean that is the row's own."""
        count = len(self._rows)
        if self._exact:  # with A = (K + lambda I)^-1, e = lambda W and 1 - H = lambda (A - A 1 / n)
            inverse = self._solved(np.eye(count))
            slack = np.diag(inverse) - inverse.sum(axis=1) / count
            return np.asarray(self._values - self.weights / np.maximum(slack, _ROUNDING)[:, None])
        found = np.empty_like(self._values)
        ones = np.zeros(len(self.weights))
        for start in range(0, count, _SUM_ROWS):
            ones += self._design(self._rows[start : start + _SUM_ROWS].astype(float)).sum(axis=0)
        for start in range(0, count, _SUM_ROWS):
            some = slice(start, start + _SUM_ROWS)
            design = self._design(self._rows[some].astype(np.float64))
            turned = self._solved(np.ascontiguousarray(design.T))
            leverage = np.einsum("nl,ln->n", design, turned) + (1 - ones @ turned) / count
            errors = self._values[some] - design @ self.weights
            found[some] = self._values[some] - errors / np.maximum(1 - leverage, 1e-6)[:, None]
        return found


def _sums(
    function: Callable[[DoubleArray], DoubleArray], rows: FloatArray, values: DoubleArray
) -> tuple[DoubleArray, DoubleArray]:
    """A' A and A' Y with A a function of the rows, block by block, added in their order."""

    def of_block(start: int) -> tuple[DoubleArray, DoubleArray]:
        some = function(rows[start : start + _SUM_ROWS].astype(np.float64))
        return some.T @ some, some.T @ values[start : start + _SUM_ROWS]

    starts = range(0, len(rows), _SUM_ROWS)
    # each on one thread of BLAS, so that no number of threads changes a sum
    with ThreadPoolExecutor(min(len(starts), os.cpu_count() or 1)) as pool:
        found = pool.map(of_block, starts)
        system, right = next(found)
        for more, of_values in found:
            system += more
            right += of_values
    return system, right


def solved(system: DoubleArray, right: DoubleArray) -> DoubleArray:
    """system^-1 right of a matrix that is positive but for rounding."""
    found: DoubleArray = scipy.linalg.cho_solve(factored(system), right, check_finite=False)
    return found


def factored(system: DoubleArray) -> tuple[DoubleArray, bool]:
    """Its Cholesky factor, as scipy has it; what rounding takes is put on the diagonal."""
    floor = _ROUNDING * float(np.trace(system)) / len(system)
    while True:
        try:
            factor: tuple[DoubleArray, bool] = scipy.linalg.cho_factor(
                system, lower=True, check_finite=False
            )
            return factor
        except np.linalg.LinAlgError:  # equal landmarks: their kernel is singular
            system[np.diag_indices(len(system))] += floor
            floor *= 100
