"""Similarity of pairs of vectors, each in float64 and whatever others are computed beside it."""

from __future__ import annotations

from typing import Literal

import numpy as np

from engine.kernels.arrays import FloatArray

__all__ = ["similarities"]


def similarities(
    first: FloatArray, second: FloatArray, similarity: Literal["cosine", "dot"]
) -> FloatArray:
    """Of each pair of rows, (n, V) and (n, V), or one row and (n, V): (n,) float32.

    A cosine with a vector of zeros is NaN.
    """
    left, right = np.asarray(first, np.float64), np.asarray(second, np.float64)
    # a sum along rows, so that a pair's value does not depend on how many there are
    products = (left * right).sum(axis=1)
    if similarity == "cosine":
        lengths = np.sqrt((left * left).sum(axis=1) * (right * right).sum(axis=1))
        with np.errstate(invalid="ignore", divide="ignore"):
            products = products / lengths
    return np.asarray(products, np.float32)
