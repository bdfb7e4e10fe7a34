"""A student that learns the teacher's vector of a row by an InfluenceNetwork with a vector output.

The other way to `vectors`: one hidden layer and a linear map beside it, from the features of a row
to its vector, fitted by gradient descent to the labelled rows of both sides. It compares a new row
with no labelled one, so that more labels make the fit longer and not the prediction, and none are
thinned out to landmarks. What is predicted is not stretched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import NetworkConfig, StudentConfig
from engine.kernels.arrays import DoubleArray, FloatArray, IndexArray
from engine.kernels.product import unit_rows
from engine.network.influence_network import InfluenceNetwork
from engine.network.training_set import TrainingSet
from engine.students.kernel_ridge import by_blocks
from engine.students.network import TrainedStudent, fit_members
from engine.students.vectors import PredictedVectors, Similarity, labelled_rows

__all__ = ["VectorNetworkStudent"]


# Labelled rows of both sides from which a network of vectors contends: as many as kernels have
# landmarks by default. Below, kernel ridge uses every row, comes within .03 of it, and is fitted in
# about a tenth of the time (benchmarks/results/vector_network.md).
VECTOR_NETWORK_ROWS = 4096


@dataclass(frozen=True)
class _Weights:
    """max(0, x A + a) B + x C + b of centred features x; all float32.

    The scaling of features and vectors that the network was fitted with is in them.
    """

    centre: FloatArray  # (F,)
    into: FloatArray  # A, (F, H)
    bias: FloatArray  # a, (H,)
    out: FloatArray  # B, (H, V)
    linear: FloatArray  # C, (F, V), or no rows
    offset: FloatArray  # b, (V,)


class VectorNetworkStudent(PredictedVectors, TrainedStudent):
    """`student.vector_units` hidden units; all else of the fit is as `network` says."""

    name = "vector_network"
    label = "network to the teacher's vectors"
    preference = 20
    learns_label_forms = False

    def __init__(self, weights: _Weights, similarity: Similarity, targets_too: bool) -> None:
        super().__init__(similarity, targets_too)
        self._weights = weights

    @classmethod
    def contends(cls, data: TrainingSet) -> bool:
        """Of thousands of rows: of few it was never the best (docs/studies.md), and costs most."""
        rows = 0 if data.targets is None else len(data.candidates) + len(data.targets)
        return rows >= VECTOR_NETWORK_ROWS

    @classmethod
    def training_set(cls, data: TrainingSet) -> TrainingSet:
        """Every labelled row once, candidates first, with its vector as a label."""
        rows, vectors = labelled_rows(data)
        if data.similarity == "cosine":
            vectors = np.asarray(unit_rows(vectors))
        centre, scale = _standard(rows)
        numbers = np.arange(len(rows))
        return TrainingSet(
            ((rows - centre) / scale).astype(np.float32),
            None,
            np.stack([numbers, np.zeros_like(numbers)], axis=1),
            np.asarray(vectors, np.float32),
        )

    @classmethod
    def training_settings(cls, settings: StudentConfig, network: NetworkConfig) -> NetworkConfig:
        units = max(settings.vector_units, network.members)  # each member has one
        return network.model_copy(update={"hidden": (units,)})

    @classmethod
    def of_network(
        cls, network: InfluenceNetwork, data: TrainingSet, settings: StudentConfig
    ) -> VectorNetworkStudent:
        centre, scale = _standard(labelled_rows(data)[0])
        state = {name: value.double().numpy() for name, value in network.state_dict().items()}
        spread = float(state["label_std"])
        linear = state.get("main.weight", np.zeros((network.outputs or 0, 0))).T
        weights = _Weights(
            centre=centre,
            into=_narrow(state["layers.0.weight"].T / scale),
            bias=_narrow(state["layers.0.bias"]),
            out=_narrow(state["layers.1.weight"].T * spread),
            linear=_narrow(linear * spread / scale),
            offset=_narrow(state["layers.1.bias"] * spread + state["label_mean"]),
        )
        return cls(weights, data.similarity, settings.targets != "exact")

    @classmethod
    def held_out(
        cls, data: TrainingSet, settings: StudentConfig, network: NetworkConfig, seed: int
    ) -> tuple[IndexArray, FloatArray, IndexArray]:
        known = cls.training_set(data)
        rows, vectors, numbers = fit_members(known, cls.training_settings(settings, network), seed)
        found, members = np.empty_like(known.labels), np.empty(len(known.labels), np.int64)
        found[rows], members[rows] = vectors, numbers
        of_candidates, of_targets = np.split(found, [len(data.candidates)])
        if settings.targets == "exact":
            of_targets = np.asarray(data.target_vectors)
        if data.similarity == "cosine":
            of_targets = np.asarray(unit_rows(of_targets))
        c, t = data.pairs.T
        influence = (of_candidates @ of_targets.T)[c, t]
        return np.arange(len(data.pairs)), influence, members[c]

    @property
    def num_parameters(self) -> int:
        return sum(array.size for name, array in vars(self._weights).items() if name != "centre")

    @property
    def vector_size(self) -> int:
        return len(self._weights.offset)

    def predict(self, features: Any, *, threads: int | None = None) -> Any:
        if isinstance(features, Tensor):
            on_device = (
                torch.from_numpy(array).to(features.device) for array in self.arrays().values()
            )
            return _vectors(features.float(), _Weights(*cast(Any, on_device)))
        return by_blocks(
            lambda rows: cast(FloatArray, _vectors(rows, self._weights)),
            features,
            self.vector_size,
            threads,
        )

    def facts(self) -> dict[str, Any]:
        return {"hidden": [len(self._weights.bias)]}

    def arrays(self) -> dict[str, NDArray[Any]]:
        return dict(vars(self._weights))

    @classmethod
    def of_file(
        cls, arrays: Mapping[str, NDArray[Any]], numbers: Mapping[str, Any]
    ) -> VectorNetworkStudent:
        return cls(_Weights(**arrays), numbers["similarity"], bool(numbers["targets_too"]))


def _vectors(rows: Any, weights: Any) -> Any:
    """(m, F) -> (m, V), of arrays or of tensors."""
    rows = rows - weights.centre
    hidden = (rows @ weights.into + weights.bias).clip(0)
    found = hidden @ weights.out + weights.offset
    return found + rows @ weights.linear if len(weights.linear) else found


def _standard(rows: FloatArray) -> tuple[FloatArray, float]:
    """Mean of the features, and one scale for all: how they are weighed is the features' own."""
    centre = rows.mean(axis=0, dtype=np.float64)
    scale = float(np.sqrt(np.square(rows - centre).mean()))
    return _narrow(centre), scale if scale > 0 else 1.0


def _narrow(values: DoubleArray) -> FloatArray:
    return np.ascontiguousarray(values, np.float32)
