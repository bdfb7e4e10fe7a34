"""The random teacher: the floor that every other teacher, and its network, must beat."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.config import TeacherConfig
from engine.example import Example, order_hash
from engine.teachers.teacher import FloatArray, Scores, Teacher, Usage

__all__ = ["RandomTeacher"]

# 24 bits are what a float32 below 1 holds exactly: more would round some scores up to 1.
_BITS = 24


class RandomTeacher(Teacher):
    """Uniform scores in [0, 1), a hash of (seed, candidate, target); free, no model.

    `identity` holds no seed: it is `seeded`, so the seed is in the name of its score store.
    """

    name = "random"
    label = "random"
    unit = "pair"
    seeded = True
    feature_sides = ()

    def __init__(self, seed: int) -> None:
        self._seed = seed

    @classmethod
    def load(cls, config: TeacherConfig, seed: int, prepared: Path | None = None) -> RandomTeacher:
        return cls(seed)

    @classmethod
    def identity(cls, config: TeacherConfig) -> dict[str, Any]:
        return {"teacher": cls.name, "version": 1}

    def score(
        self,
        candidate: Example,
        candidate_feature: FloatArray | None,
        targets: Sequence[Example],
        target_features: FloatArray | None,
    ) -> Scores:
        """Scores in [0, 1); the same pair of texts always gets the same one."""
        hashes = [order_hash(self._seed, candidate.key, target.key) for target in targets]
        values = np.array([(h >> (64 - _BITS)) / 2**_BITS for h in hashes], dtype=np.float32)
        return Scores(values, [None] * len(targets), Usage())
