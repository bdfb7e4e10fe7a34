"""Measures of an answer's words against its reference: which there are, and where they are.

To add one: a module with a function (answers, references) -> (n,) and a line in `TEXT_METRICS`
(docs/extending.md). It is then a column of the graded answers and of every table.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.kernels.arrays import FloatArray

__all__ = ["TEXT_METRICS", "TextMetric", "added_metrics"]


@dataclass(frozen=True)
class TextMetric:
    """One measure; higher is better, an empty answer has a value too.

    Attributes:
        label: its name in tables.
        unit: what its values are.
        place: `module:function`, loaded when answers are graded.
    """

    label: str
    unit: str
    place: str

    def __call__(self, answers: Sequence[str], references: Sequence[str]) -> FloatArray:
        """The measure of each answer, (n,) float32."""
        module, _, name = self.place.partition(":")
        function: Callable[[Sequence[str], Sequence[str]], FloatArray]
        function = getattr(importlib.import_module(module), name)
        return function(answers, references)


TEXT_METRICS = {
    "rouge1": TextMetric("ROUGE-1", "F x 100", "engine.evaluation.metrics:rouge1"),
}


def added_metrics() -> list[str]:
    """The metrics beside rouge1: grades are made again when there are others.

    rouge1 was there before this list, so evaluations without others keep their fingerprints.
    """
    return [name for name in TEXT_METRICS if name != "rouge1"]
