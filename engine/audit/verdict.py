"""The verdict: whether the audit says that the student may be trusted, and why."""

from __future__ import annotations

from dataclasses import dataclass

from engine.audit.candidate_means import CandidateMeans
from engine.audit.fidelity import Fidelity, Score

__all__ = ["Verdict", "verdict"]


@dataclass(frozen=True)
class Verdict:
    """Whether to trust the student, with one sentence per comparison, what failed first.

    `remarks` are what a reader should know and what does not change the verdict.
    """

    trusted: bool
    reasons: list[str]
    remarks: list[str]


def verdict(fidelity: Fidelity, judged: int = 4) -> Verdict:
    """Judge a student by one quadrant: the one where most of its predictions will lie.

    That is 3, unseen candidates with targets it was trained on, when the sample reached most of
    the targets, and 4, neither side seen, otherwise. Trusted when its R^2 is above 0 with its whole
    interval, its Spearman is above the cosine's, the ridge's Spearman is not above its own by
    more than chance, and its order of unseen candidates by mean influence is better than chance.
    """
    quadrant = fidelity.quadrants.get(judged)
    if quadrant is None:
        return Verdict(False, [f"no pair of quadrant {judged} was audited"], [])
    student, linear, cosine = (
        quadrant.scores.get(name) for name in ("student", "linear", "cosine")
    )
    assert student is not None and linear is not None, "the audit measures both"
    if student.r2 is None:
        reason = f"all {quadrant.num_pairs} audited labels are equal: there is nothing to judge by"
        return Verdict(False, [reason], [])
    # a teacher that scores rows alone has no cosine, and no pairs
    what = "unseen rows" if cosine is None else "unseen pairs"
    checks = [_beats_mean(student, what), _beats_linear(student, linear, what)]
    if cosine is not None:
        checks.append(_beats_cosine(student, cosine))
    if fidelity.candidate_means is not None:
        checks.append(_ranks_candidates(fidelity.candidate_means))
    checks.sort(key=lambda check: check[0])
    remarks = [_ceiling(fidelity.candidate_means), *_close_calls(student, cosine, linear)]
    return Verdict(
        trusted=all(passed for passed, _ in checks),
        reasons=[sentence for _, sentence in checks],
        remarks=[remark for remark in remarks if remark],
    )


def _beats_mean(student: Score, what: str) -> tuple[bool, str]:
    said = f"R^2 {student.r2:.3f}"
    if student.r2_interval is None:
        return False, f"{said} without an interval: too few candidates or targets were audited"
    low, high = student.r2_interval
    said += f" (95 % interval {low:.3f} to {high:.3f})"
    if low > 0:
        return True, f"the student predicts {what} better than their mean: {said}"
    return False, f"the student does not surely beat predicting the mean of {what}: {said}"


def _beats_cosine(student: Score, cosine: Score) -> tuple[bool, str]:
    own, other = student.spearman or 0.0, cosine.spearman or 0.0
    numbers = f"Spearman {own:.3f} against {other:.3f}"
    if own > other:
        return True, f"the student ranks unseen pairs better than the plain cosine: {numbers}"
    return False, f"the plain cosine ranks unseen pairs as well or better, for nothing: {numbers}"


def _beats_linear(student: Score, linear: Score, what: str) -> tuple[bool, str]:
    own, other = student.spearman or 0.0, linear.spearman or 0.0
    numbers = f"Spearman {own:.3f} against {other:.3f}"
    interval = linear.spearman_lead_interval
    if own > other:
        return True, f"the student ranks {what} better than a ridge regression: {numbers}"
    if interval is None or interval[1] >= 0:
        return True, f"the student ranks {what} no surely worse than a ridge: {numbers}"
    return False, f"a ridge regression on the same inputs ranks {what} better: {numbers}"


def _ranks_candidates(means: CandidateMeans) -> tuple[bool, str]:
    said = f"{means.num_candidates} unseen candidates by mean influence"
    own = means.spearman["student"]
    if own is None or means.p_value is None:
        return False, f"the student does not rank {said}: one of the two sides is constant"
    numbers = f"Spearman {own:.3f}, p = {means.p_value:.3g}"
    if means.p_value < 0.05:
        return True, f"the student ranks {said} better than chance: {numbers}"
    return False, f"the student ranks {said} no surely better than chance: {numbers}"


def _close_calls(student: Score, cosine: Score | None, linear: Score) -> list[str]:
    """Comparisons of Spearman that a fresh audit could turn round."""
    remarks = []
    for name, other in (("the cosine", cosine), ("the ridge regression", linear)):
        if other is None:
            continue
        interval = other.spearman_lead_interval
        if interval is None or interval[0] > 0 or interval[1] < 0 or interval == (0, 0):
            continue  # surely apart, or one and the same
        who = "leads" if (student.spearman or 0.0) > (other.spearman or 0.0) else "trails"
        remarks.append(
            f"the student {who} {name} by no more than chance: difference in Spearman "
            f"{interval[0]:.3f} to {interval[1]:.3f} (95 % interval)"
        )
    return remarks


def _ceiling(means: CandidateMeans | None) -> str:
    if means is None or means.spearman["student"] is None or means.split_half is None:
        return ""
    return (
        f"mean influence of {means.num_candidates} unseen candidates: Spearman "
        f"{means.spearman['student']:.2f} with the teacher, who agrees with itself by "
        f"{means.split_half:.2f} between halves of {means.num_targets} targets"
    )
