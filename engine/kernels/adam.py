"""The step that Adam would take for one more gradient: LESS's feature of a candidate.

Source: LESS (arXiv 2402.04333), section 3.1. With the moments m and v after t steps:

    m' = b1 m + (1 - b1) g      v' = b2 v + (1 - b2) g^2
    corrected   m' / (1 - b1^(t+1)) / (sqrt(v' / (1 - b2^(t+1))) + eps)       as Adam is defined
    reference   m' / sqrt(v' + eps)                       as the code published with LESS has it
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["BETAS", "EPSILON", "AdamForm", "AdamStep"]

AdamForm = Literal["corrected", "reference"]
BETAS = (0.9, 0.999)
EPSILON = 1e-8


class AdamStep:
    """The step of n parameters, from their moments (n,) float32 after `num_steps` steps."""

    def __init__(
        self, first_moment: Tensor, second_moment: Tensor, num_steps: int, form: AdamForm
    ) -> None:
        b1, b2 = BETAS
        corrected = form == "corrected"
        first_share = 1 - b1 ** (num_steps + 1) if corrected else 1.0
        second_share = 1 - b2 ** (num_steps + 1) if corrected else 1.0
        self._first = first_moment * (b1 / first_share)
        self._first_weight = (1 - b1) / first_share
        self._second = second_moment * (b2 / second_share) + (0.0 if corrected else EPSILON)
        self._second_weight = (1 - b2) / second_share
        self._epsilon = EPSILON if corrected else 0.0

    def of(self, gradients: Tensor) -> Tensor:
        """Steps (b, n) for one gradient in each row of (b, n), without the learning rate."""
        root = torch.addcmul(self._second, gradients, gradients, value=self._second_weight)
        root.sqrt_().add_(self._epsilon)
        return torch.add(self._first, gradients, alpha=self._first_weight).div_(root)
