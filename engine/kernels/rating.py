"""SelectIT: a score from what a model believes of each possible rating.

Source: SelectIT (arXiv 2402.16705), section 3; see docs/method.md. L is the
number of levels (digits 1..L), k the number of rating prompts. All sums in float64.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["ProbabilityForm", "model_score", "sentence_score", "token_score"]

ProbabilityForm = Literal["normalised", "reference"]
FloatArray = NDArray[np.float64]


def token_score(probabilities: ArrayLike, form: ProbabilityForm = "normalised") -> FloatArray:
    """S_tok (...,) in [0, L] of the probabilities (..., L) of the digits 1..L.

    P' = P / sum P, `base` is the digit with the largest one (of equal ones the lowest digit):

        S_tok = base * 1 / (L - 1) * sum_i (P'_base - P'_i)

    "reference" takes a softmax of P' first. It keeps the base, but no score then exceeds
    L * (e - 1) / (e + L - 1). Probabilities that are all 0, or not finite, give NaN.
    """
    given = np.asarray(probabilities, dtype=np.float64)
    levels = given.shape[-1]
    assert levels >= 2, "a rating has at least two levels"
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        shares = given / given.sum(axis=-1, keepdims=True)
    if form == "reference":
        powers = np.exp(shares)
        shares = powers / powers.sum(axis=-1, keepdims=True)
    base = 1 + shares.argmax(axis=-1)
    margins = shares.max(axis=-1, keepdims=True) - shares
    return np.asarray(base * margins.sum(axis=-1) / (levels - 1), dtype=np.float64)


def sentence_score(token_scores: ArrayLike, alpha: float) -> FloatArray:
    """S_sent (...,) of the S_tok (..., k) that k rating prompts gave: doubt counts against a row.

    mean / (1 + alpha * std), with the population's std, which divides by k: 0 for one prompt.
    """
    scores = np.asarray(token_scores, dtype=np.float64)
    return np.asarray(scores.mean(axis=-1) / (1 + alpha * scores.std(axis=-1)), dtype=np.float64)


def model_score(sentence_scores: ArrayLike, num_parameters: ArrayLike) -> FloatArray:
    """S_model (n,) of the S_sent (m, n) of m models, each weighed by its parameters (m,)."""
    sizes = np.asarray(num_parameters, dtype=np.float64)
    weights = sizes / sizes.sum()
    return np.asarray(weights @ np.asarray(sentence_scores, dtype=np.float64), dtype=np.float64)
