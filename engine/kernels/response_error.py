"""DELIFT's distance of a model's beliefs from a reference answer.

Source: DELIFT (arXiv 2411.04425), section 3.1, with logits shifted by one position: those at
k - 1 predict token k (docs/method.md).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["response_error"]


def response_error(probabilities: NDArray[np.float32]) -> float:
    """d = sqrt(mean_k (1 - p_k)^2) in [0, 1]; 0 when the model is sure of every token.

    `probabilities` has shape (T,): what the model gives to each response token, the final eos
    included. Accumulates in float64. An empty response or a value that is not finite gives NaN.
    """
    if probabilities.size == 0:
        return math.nan
    missing = 1.0 - probabilities.astype(np.float64)
    return math.sqrt(float(np.mean(missing * missing)))
