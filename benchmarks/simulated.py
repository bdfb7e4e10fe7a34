"""An encoder and a teacher that sleep instead of computing, for all worker processes of a cluster.

On one machine four nodes share its cores, so real models would measure the cores. These sleep as
long as a model on a device of the node's own would take and then answer by hash: the same vectors
and scores wherever they are asked. What a run takes beyond the sleeping is the engine's and Ray's.

`install` is what Ray calls in every worker process at its start, before any code of the engine.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DIM", "SimulatedEncoder", "install", "worker_environment"]

DIM = 64
_ENCODER_S, _POINT_S, _PAIR_S = "SIMULATED_ROW_S", "SIMULATED_POINT_S", "SIMULATED_PAIR_S"


def worker_environment(row_s: float, point_s: float, pair_s: float) -> dict[str, Any]:
    """The `runtime_env` of a cluster whose models sleep so many seconds a row, point and pair."""
    costs = {_ENCODER_S: row_s, _POINT_S: point_s, _PAIR_S: pair_s}
    return {
        "worker_process_setup_hook": f"{__name__}.install",
        "env_vars": {name: str(value) for name, value in costs.items()},
    }


def install() -> None:
    """Put both in place of the engine's own, in this process.

    The encoder's module is replaced before it is imported: torch, which nothing here computes
    with, would take seconds of the shared cores at the start of every worker.
    """
    module = ModuleType("engine.models.encoder")
    vars(module).update(Encoder=SimulatedEncoder, Encoded=Encoded)
    sys.modules[module.__name__] = module
    from engine.teachers import workers

    workers.load_teacher = _load_teacher


@dataclass(frozen=True, slots=True)
class Encoded:
    """As `engine.models.encoder.Encoded`."""

    vectors: NDArray[np.float32]
    num_truncated: int
    num_tokens: int


def _vector(text: str) -> NDArray[np.float32]:
    """A unit vector (DIM,) that depends on the text alone, and less on it than on its first word.

    Rows that begin alike are similar, so that there is something to learn and to cover.
    """
    from engine.example import order_hash

    topic = np.random.default_rng(order_hash(0, text.split(" ", 1)[0]))
    own = np.random.default_rng(order_hash(1, text))
    vector = topic.standard_normal(DIM) + 0.5 * own.standard_normal(DIM)
    unit: NDArray[np.float32] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return unit


class SimulatedEncoder:
    """As `engine.models.encoder.Encoder`, for `SIMULATED_ROW_S` seconds a text."""

    def __init__(self, config: Any, max_tokens: int | None = None) -> None:
        self._seconds = float(os.environ[_ENCODER_S])

    def encode(self, texts: Sequence[str], batch_size: int, normalize: bool = True) -> Encoded:
        """Vectors (n, DIM)."""
        started = time.perf_counter()
        vectors = np.stack([_vector(text) for text in texts])
        _sleep(self._seconds * len(texts), since=started)
        return Encoded(vectors, 0, sum(len(text.split()) for text in texts))


def _sleep(seconds: float, since: float) -> None:
    """Until so many seconds after `since`: making the answer up is part of the model's time."""
    time.sleep(max(0.0, seconds - (time.perf_counter() - since)))


def _load_teacher(settings: Any, seed: int, prepared: Path | None = None) -> Any:
    """A teacher paid by the pair, as DELIFT is, whose targets have a feature."""
    from engine.teachers.teacher import Features, Scores, Teacher, Usage

    class SimulatedTeacher(Teacher):
        name, unit, feature_sides = "delift", "pair", ("target",)

        @classmethod
        def load(cls, config: Any, seed: int, prepared: Path | None = None) -> Teacher:
            return cls()

        @classmethod
        def identity(cls, config: Any) -> dict[str, Any]:
            return {"teacher": "simulated"}

        def features(self, side: Any, examples: Any) -> Features:
            time.sleep(float(os.environ[_POINT_S]) * len(examples))
            values = np.zeros((len(examples), 1), np.float32)
            return Features(values, [None] * len(examples), Usage(len(examples)))

        def score(
            self, candidate: Any, candidate_feature: Any, targets: Any, target_features: Any
        ) -> Scores:
            started = time.perf_counter()
            own = _vector(candidate.text)
            values = np.array([own @ _vector(target.text) for target in targets], np.float32)
            _sleep(float(os.environ[_PAIR_S]) * len(targets), since=started)
            return Scores(values, [None] * len(targets), Usage(len(targets)))

    return SimulatedTeacher()
