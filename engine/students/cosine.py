"""The cosine of two rows' text embeddings, scaled to the teacher's units: nothing to learn.

It costs nothing and is hard to beat on topics (docs/negative_results.md), so it stands beside every
student, and is chosen where none is better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import NetworkConfig, StudentConfig
from engine.kernels.product import unit_rows
from engine.network.training_set import TrainingSet
from engine.students.student import ProductStudent

__all__ = ["CosineStudent"]


class CosineStudent(ProductStudent):
    """slope cos(e_c, e_t) + offset, with a slope that is never negative.

    A teacher that sees it the other way round is not met by the cosine turned round: that would
    make it look wise after the event.

    Args:
        text_dim: size of the text embedding, which stands first among the features.
        slope, offset: least squares, in teacher units.
    """

    name = "cosine"
    label = "cosine of the text embeddings"
    preference = 60
    needs_targets = True
    needs_text = True
    learns_label_forms = False

    def __init__(self, text_dim: int, slope: float, offset: float) -> None:
        self._text_dim, self._slope, self._offset = text_dim, slope, offset

    @classmethod
    def learns_from(cls, data: TrainingSet) -> bool:
        return data.targets is not None and data.text_dim > 0

    @classmethod
    def learn(
        cls, data: TrainingSet, settings: StudentConfig, network: NetworkConfig, seed: int
    ) -> CosineStudent:
        assert data.targets is not None, "a cosine needs two sides"
        plain = cls(data.text_dim, 1.0, 0.0)
        cosine = plain.predict_pairs(data.candidates, data.targets, data.pairs).astype(np.float64)
        labels = data.labels.astype(np.float64)
        centred = cosine - cosine.mean()
        spread = float(centred @ centred)
        slope = float(centred @ labels) / spread if spread > 1e-12 * len(cosine) else 0.0
        # a slope of zero would be no order at all
        slope = max(slope, 1e-3 * float(labels.std()) / max(float(cosine.std()), 1e-6), 1e-6)
        return cls(data.text_dim, slope, float(labels.mean() - slope * cosine.mean()))

    @property
    def num_parameters(self) -> int:
        return 2

    def candidate_factors(self, features: Any, *, threads: int | None = None) -> Any:
        return _with_column(unit_rows(features[:, : self._text_dim]), 1.0)

    def target_factors(self, targets: Any, *, threads: int | None = None) -> Any:
        unit = unit_rows(targets[:, : self._text_dim])
        return _with_column(unit * np.float32(self._slope), self._offset)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"calibration": np.array([self._slope, self._offset])}

    def numbers(self) -> dict[str, Any]:
        return {"text_dim": self._text_dim}

    @classmethod
    def of_file(
        cls, arrays: Mapping[str, NDArray[Any]], numbers: Mapping[str, Any]
    ) -> CosineStudent:
        slope, offset = arrays["calibration"].tolist()
        return cls(int(numbers["text_dim"]), slope, offset)


def _with_column(rows: Any, value: float) -> Any:
    """Rows with one more number, on their device."""
    if isinstance(rows, Tensor):
        return torch.cat((rows, rows.new_full((len(rows), 1), value)), dim=1)
    return np.concatenate((rows, np.full((len(rows), 1), value, np.float32)), axis=1)
