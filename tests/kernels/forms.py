"""Random PairwiseForms for the kernel tests."""

from __future__ import annotations

import numpy as np

from engine.kernels.pairwise import PairwiseForm


def random_form(m: int, n: int, hidden: int, seed: int = 0, integers: bool = False) -> PairwiseForm:
    """A form with standard normal entries, or with small integers, so that many pairs tie."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        if integers:
            return rng.integers(-2, 3, shape).astype(np.float32)
        return rng.standard_normal(shape, dtype=np.float32)

    return PairwiseForm(draw(m, hidden), draw(n, hidden), draw(hidden), draw(m), draw(n))
