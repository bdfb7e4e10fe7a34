"""The audit of anybody's predictions: arrays in, the measures and the verdict out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.audit.fidelity import Fidelity, fidelity
from engine.audit.verdict import Look, Verdict, verdict
from engine.errors import InputError
from engine.kernels.arrays import FloatArray, IndexArray

__all__ = ["Audit", "audit_predictions"]


@dataclass(frozen=True)
class Audit:
    """The measures of some predictions, what they mean, and the quadrant that decided."""

    fidelity: Fidelity
    verdict: Verdict
    judged_quadrant: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: the verdict, the headline numbers that it judged, and all measures."""
        quadrant = self.fidelity.quadrants.get(self.judged_quadrant)
        student = None if quadrant is None else quadrant.scores["student"]
        means = self.fidelity.candidate_means
        return {
            **vars(self.verdict),
            "judged_quadrant": f"Q{self.judged_quadrant}",
            "spearman": None if student is None else student.within,
            "r2": None if student is None else student.within_r2,
            "means": None if means is None else means.spearman["student"],
            **self.fidelity.to_dict(),
        }


def audit_predictions(
    predictions: FloatArray | Mapping[str, FloatArray],
    labels: FloatArray,
    pairs: IndexArray,
    *,
    quadrants: IndexArray | None = None,
    training_labels: FloatArray | None = None,
    pairwise: bool = True,
    judged_quadrant: int = 4,
    student: str | None = None,
    named: bool = False,
    look: Look | None = None,
    seed: int = 0,
) -> Audit:
    """Measure and judge predictions of pairs that were no part of training.

    Args:
        predictions: of each pair, (n,); or by name, "student" and what it is to be compared with:
            "cosine" and "linear" count in the verdict.
        labels: the true scores of the same pairs, (n,).
        pairs: (n, 2) int, [c, t]; of rows without targets t is 0.
        quadrants: of each pair, (n,): 1 both sides seen in training, 2 the candidate, 3 the
            target, 4 neither, which is the default.
        training_labels: (m,), by default the labels: their mean and spread stand beside.
        pairwise: whether there are targets.
        judged_quadrant: the verdict is read from there.
        student: which student it is, if one of the engine's.
        named: whether the user chose it.
        look: at these labels, where one looks until a student is trusted.
        seed: same seed, same numbers.

    Raises InputError for shapes that do not match or values that are not finite.
    """
    named_predictions = (
        predictions if isinstance(predictions, Mapping) else {"student": predictions}
    )
    if "student" not in named_predictions:
        raise InputError(
            f"who is audited? predictions of {', '.join(named_predictions)}, no student"
        )
    look = look or Look()
    measured = fidelity(
        predicted=named_predictions,
        labels=labels,
        quadrants=np.full(len(pairs), 4) if quadrants is None else quadrants,
        pairs=pairs,
        training_labels=labels if training_labels is None else training_labels,
        pairwise=pairwise,
        seed=seed,
        confidence=look.confidence,
    )
    judged = verdict(measured, judged_quadrant, student, named, look)
    return Audit(measured, judged, judged_quadrant)
