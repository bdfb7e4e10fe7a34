"""Random networks, embeddings and units for the kernel tests."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.kernels.arrays import DoubleArray, FloatArray
from engine.kernels.units import TILE, PairwiseForm, UnitArray, Units

ABSENT = -(2**31)  # the unit of a side that has none


class Layers(NamedTuple):
    """The arguments of `PairwiseForm.of_layers`."""

    on_candidates: DoubleArray
    on_targets: DoubleArray
    hidden_bias: DoubleArray
    output_weight: DoubleArray
    candidate_main: DoubleArray
    target_main: DoubleArray
    constant: float

    def form(self) -> PairwiseForm:
        return PairwiseForm.of_layers(*self)


def random_layers(hidden: int, dim: int, seed: int = 0) -> Layers:
    """A network of about the size that training starts from."""
    rng = np.random.default_rng(seed)
    return Layers(
        on_candidates=rng.standard_normal((hidden, dim)) / np.sqrt(dim),
        on_targets=rng.standard_normal((hidden, dim)) / np.sqrt(dim),
        hidden_bias=0.1 * rng.standard_normal(hidden),
        output_weight=rng.standard_normal(hidden),
        candidate_main=0.1 * rng.standard_normal(dim),
        target_main=0.1 * rng.standard_normal(dim),
        constant=0.3,
    )


def integer_layers(hidden: int, dim: int, seed: int = 0) -> Layers:
    """Small integers: with `integer_rows` every sum of float32 is exact."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> DoubleArray:
        return rng.integers(-3, 4, shape).astype(np.float64)

    both = draw(hidden, dim), draw(hidden, dim)
    return Layers(*both, draw(hidden), draw(hidden), draw(dim), draw(dim), 2.0)


def normalised(rows: np.ndarray) -> FloatArray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def unit_rows(count: int, dim: int, seed: int = 0) -> FloatArray:
    return normalised(np.random.default_rng(seed).standard_normal((count, dim)))


def integer_rows(count: int, dim: int, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).integers(-3, 4, (count, dim)).astype(np.float32)


def units_of(rows: np.ndarray, num_positive: int, step: float = 1.0) -> Units:
    """Units with given values (n, u); the rows of the last tile beyond n are the most harmful."""
    num_rows, num_units = rows.shape
    num_tiles = -(-num_rows // TILE)
    padded = np.full((num_tiles * TILE, num_units), 2**31 - 1, dtype=np.int32)
    padded[:, num_positive:] = ABSENT
    padded[:num_rows] = rows
    tiles = padded.reshape(num_tiles, TILE, num_units).transpose(0, 2, 1)
    return Units(np.ascontiguousarray(tiles), num_rows, num_positive, step)


def random_sides(
    m: int,
    n: int,
    num_units: int,
    num_positive: int | None = None,
    seed: int = 0,
    ties: bool = False,
) -> tuple[Units, Units]:
    """Units of m candidates and n targets; with `ties` so few values that most pairs tie.

    Else sums reach far into the range of int32, as those of a network do. Of three units or more,
    the first belongs to the targets alone and the second to the candidates alone.
    """
    rng = np.random.default_rng(seed)
    largest = 1 if ties else (2**31 - 1) // num_units
    if num_positive is None:
        num_positive = -(-num_units // 2)

    def draw(count: int) -> UnitArray:
        return rng.integers(-largest, largest, (count, num_units), np.int32, endpoint=True)

    candidates, targets = draw(m), draw(n)
    if num_units > 2:
        candidates[:, 0] = targets[:, 1] = ABSENT
    step = 2.0**-20
    return units_of(candidates, num_positive, step), units_of(targets, num_positive, step)
