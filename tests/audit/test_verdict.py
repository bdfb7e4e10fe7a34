"""What the verdict makes of students whose worth is known, because they were made up."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import engine
from engine.audit.predictions import Audit
from engine.audit.verdict import MIN_MEANS, Look
from engine.errors import InputError

CANDIDATES, TARGETS = 60, 12


class Teacher:
    """Scores of all pairs: what a candidate is worth to all, and to each target, and levels."""

    def __init__(self, candidates: int = CANDIDATES, targets: int = TARGETS) -> None:
        rng = np.random.default_rng(0)
        self.rng, self.shape = rng, (candidates, targets)
        self.of_candidate = rng.normal(size=(candidates, 1))
        self.of_pair = rng.normal(size=self.shape)
        self.level = 5 * rng.normal(size=(1, targets))
        self.scores = self.of_candidate + self.of_pair + self.level

    def noise(self, size: float) -> np.ndarray:
        return size * self.rng.normal(size=self.shape)

    def audit(self, student: np.ndarray, /, **values: Any) -> Audit:
        others = {name: values.pop(name) for name in ("cosine", "linear") if name in values}
        predictions = {"student": student, **others}
        flat = {name: np.broadcast_to(v, self.shape).ravel() for name, v in predictions.items()}
        pairs = np.argwhere(np.ones(self.shape, bool))
        return engine.audit_predictions(flat, self.scores.ravel(), pairs, **values)


def test_a_good_student_is_trusted_for_each_of_the_reasons() -> None:
    teacher = Teacher()
    student, cosine = teacher.scores + teacher.noise(0.5), teacher.scores + teacher.noise(3)
    found = teacher.audit(student, cosine=cosine, linear=teacher.scores + teacher.noise(0.5))
    judged = found.verdict
    assert judged.trusted, judged.reasons
    assert [reason.split(":")[0] for reason in judged.reasons] == [
        "the student's order of unseen candidates within a target is better than chance",
        "the student orders 60 unseen candidates by mean influence as the teacher does",
        "the student orders candidates within a target better than the plain cosine",
        "the student orders candidates by mean influence better than the plain cosine",
        "the student orders candidates within a target not significantly worse than a ridge "
        "regression on the same features",
        "the student orders candidates by mean influence not significantly worse than a "
        "ridge regression on the same features",
        "the student predicts better than each target's mean",
    ]
    assert "two halves of the 12 audited targets agree by" in judged.remarks[0]
    told = found.to_dict()
    scores = found.fidelity.quadrants[4].scores["student"]
    assert (told["spearman"], told["r2"]) == (scores.within, scores.within_r2)
    json.dumps(told, allow_nan=False)


@pytest.mark.parametrize("rounding", [0.0, 1e-6])
def test_who_knows_only_the_targets_is_not_trusted_however_good_over_pairs(rounding) -> None:
    teacher = Teacher()
    found = teacher.audit(teacher.level + teacher.noise(rounding))
    scores = found.fidelity.quadrants[4].scores["student"]
    assert scores.r2 is not None and scores.r2 > 0.85
    assert scores.spearman is not None and scores.spearman > 0.85
    assert not found.verdict.trusted
    assert len(found.verdict.reasons) == 3, "nothing passes"
    if not rounding:
        assert "says the same of every unseen candidate" in found.verdict.reasons[0]


def test_who_has_the_levels_wrong_does_not_fail_for_that() -> None:
    teacher = Teacher()
    found = teacher.audit(teacher.scores - 3 * teacher.level + teacher.noise(0.5))
    scores = found.fidelity.quadrants[4].scores["student"]
    assert scores.r2 is not None and scores.r2 < -1
    assert scores.spearman is not None and scores.spearman < 0
    assert found.verdict.trusted, found.verdict.reasons


def test_a_weak_order_of_means_is_not_trusted_however_sure_the_order_within() -> None:
    """Spearman .29 of means is better than chance, and not worth a selection."""
    teacher = Teacher(candidates=150)
    ranks = np.argsort(np.argsort(teacher.scores.mean(axis=1)))
    means = (ranks - ranks.mean()) / ranks.std()
    other = teacher.rng.normal(size=150)
    other -= other.mean() + means * (other @ means) / 150
    weak = 0.29 * means + np.sqrt(1 - 0.29**2) * other / other.std()
    found = teacher.audit(teacher.of_pair + weak[:, None])
    of_means = found.fidelity.candidate_means
    assert of_means is not None
    own, interval = of_means.spearman["student"], of_means.spearman_interval["student"]
    assert own == pytest.approx(0.29, abs=0.1) and interval is not None
    assert 0 < interval[0] < MIN_MEANS
    (failed,) = [r for r in found.verdict.reasons if "not" in r]
    assert failed == found.verdict.reasons[0] and not found.verdict.trusted
    assert "150 unseen candidates by mean influence is not significantly above 0.25" in failed


def test_who_is_behind_the_cosine_is_not_trusted_and_a_name_is_told_first() -> None:
    teacher = Teacher()
    student, cosine = teacher.scores + teacher.noise(1.5), teacher.scores + teacher.noise(0.2)
    by_auto = teacher.audit(student, cosine=cosine, student="network").verdict
    assert not by_auto.trusted
    assert by_auto.reasons[0].startswith("the plain cosine, for nothing, orders candidates within")
    useless = teacher.level + teacher.noise(1.0)  # fails everything
    by_name = teacher.audit(useless, cosine=cosine, student="network", named=True).verdict
    assert by_name.reasons[0].startswith("you named student network, but the plain cosine, for")
    level = teacher.audit(student, cosine=student, student="network", named=True).verdict
    assert not any("you named" in reason for reason in level.reasons)


def test_a_sure_lead_of_nearly_nothing_is_no_failure() -> None:
    teacher = Teacher(400)
    student = teacher.scores + teacher.noise(0.1)
    found = teacher.audit(student, linear=teacher.scores + teacher.noise(0.01))
    lead = found.fidelity.quadrants[4].scores["linear"].within_lead_interval
    assert lead is not None and -0.02 < lead[1] < 0
    assert found.verdict.trusted, found.verdict.reasons


def test_the_cosine_as_the_student_is_called_so_and_does_not_have_to_beat_itself() -> None:
    teacher = Teacher()
    cosine = teacher.scores + teacher.noise(1.0)
    judged = teacher.audit(cosine, cosine=cosine * 0.5, student="cosine", named=True).verdict
    assert judged.trusted
    assert not any("cosine" in reason for reason in judged.reasons)
    assert judged.remarks[0] == "the student is the plain cosine, and is not compared with itself"


def test_too_small_an_audit_says_so_in_one_sentence() -> None:
    for shape in ((9, 12), (60, 1)):
        teacher = Teacher(*shape)
        judged = teacher.audit(teacher.scores).verdict
        assert not judged.trusted
        (reason,) = judged.reasons
        assert reason.startswith(f"the audit is too small to judge by: {shape[0]} unseen")


def test_a_quadrant_that_was_not_audited_is_not_trusted() -> None:
    teacher = Teacher()
    judged = teacher.audit(teacher.scores, judged_quadrant=3)
    assert judged.verdict.reasons == ["no pair of quadrant 3 was audited"]
    assert judged.to_dict()["spearman"] is None


def test_equal_labels_judge_nobody() -> None:
    teacher = Teacher()
    teacher.scores = np.broadcast_to(teacher.level, teacher.shape)
    (reason,) = teacher.audit(teacher.of_pair).verdict.reasons
    assert reason.startswith("all audited labels of each target are equal")


def test_looking_again_asks_for_more() -> None:
    teacher = Teacher()
    once, thrice = (
        teacher.audit(teacher.scores + teacher.noise(0.5), look=look) for look in (None, Look(2, 3))
    )
    assert not any("look" in remark for remark in once.verdict.remarks)
    assert thrice.verdict.remarks[-1].startswith(
        "look 2 of at most 3 at the audit: intervals at 98.3 %"
    )
    assert "(98.3 % interval" in thrice.verdict.reasons[0]
    assert thrice.fidelity.confidence == pytest.approx(1 - 0.05 / 3)


def test_predictions_alone_are_audited_and_no_student_is_refused() -> None:
    teacher = Teacher()
    pairs = np.argwhere(np.ones(teacher.shape, bool))
    labels = teacher.scores.ravel()
    assert engine.audit_predictions(labels, labels, pairs).verdict.trusted
    with pytest.raises(InputError, match="predictions of cosine, no student"):
        engine.audit_predictions({"cosine": labels}, labels, pairs)
