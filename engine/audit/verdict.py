"""The verdict: whether the audit says that the student may be trusted, and why.

What selection uses is judged: the order of candidates within a target, and of their means. How
high the targets score is in no check, so who knows nothing else cannot pass, and who has it wrong
does not fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.audit.candidate_means import CandidateMeans
from engine.audit.fidelity import Fidelity, Score
from engine.kernels.ranks import Interval

__all__ = ["Look", "Verdict", "verdict"]

# Fewer candidates have too few orders for a bootstrap to tell a good one from luck.
MIN_CANDIDATES = 10
MIN_TARGETS = 2  # as many as an interval takes
# Where means are about normal, the candidates that a student ranks first are better than random
# ones by (its Spearman) x (as much as those that the teacher ranks first). Below a quarter of that
# gain one is as well served by random rows.
MIN_MEANS = 0.25
# Orders whose Spearman differs by less select the same for all that anybody would notice; large
# audits are sure of much smaller differences.
MIN_LEAD = 0.02
ERROR = 0.05  # chance of trusting what does not deserve it, by one check and all looks at it

# What stands beside the student, as sentences name it.
OTHERS = {"cosine": "the plain cosine", "linear": "a ridge regression on the same features"}

Check = tuple[bool, str]


@dataclass(frozen=True)
class Look:
    """Which look at the audit this is, of how many there may be.

    Who asks the teacher for more until a student is trusted looks again and again at the same
    audit rows, and luck would do at some look. So what can earn trust is asked for with an error
    that is shared among all looks (Bonferroni). That costs no call; fresh rows for each would.
    """

    number: int = 1
    of: int = 1

    @property
    def confidence(self) -> float:
        """That of the intervals that trust is earned by."""
        return 1 - ERROR / self.of


@dataclass(frozen=True)
class Verdict:
    """Whether to trust the student, with one sentence per comparison, what failed first.

    `remarks` are what a reader should know and what does not change the verdict.
    """

    trusted: bool
    reasons: list[str]
    remarks: list[str]


def verdict(
    fidelity: Fidelity,
    judged: int = 4,
    student: str | None = None,
    named: bool = False,
    look: Look | None = None,
) -> Verdict:
    """Judge a student by one quadrant: the one where most of its predictions will lie.

    That is 3, unseen candidates with targets it was trained on, when the sample reached most of
    the targets, and 4, neither side seen, otherwise. Trusted when

    - its order of candidates within a target is significantly better than chance,
    - its order of unseen candidates by mean is significantly above MIN_MEANS,
    - neither order is significantly behind the cosine's or the ridge's by more than MIN_LEAD,
    - its R^2 within targets is significantly above 0.

    Args:
        fidelity: the measures; of a teacher of rows the two orders are one.
        judged: the quadrant.
        student: which one it is; the cosine is not asked to beat itself.
        named: whether the user chose it, and is told first when the cosine is better.
        look: at the audit; `fidelity` was measured at its confidence.
    """
    quadrant = fidelity.quadrants.get(judged)
    if quadrant is None:
        return Verdict(False, [f"no pair of quadrant {judged} was audited"], [])
    few_targets = fidelity.pairwise and quadrant.num_targets < MIN_TARGETS
    if quadrant.num_candidates < MIN_CANDIDATES or few_targets:
        with_targets = f" with {quadrant.num_targets} targets" if fidelity.pairwise else ""
        reason = (
            f"the audit is too small to judge by: {quadrant.num_candidates} unseen candidates"
            f"{with_targets}, and it takes {MIN_CANDIDATES}"
            f"{f' with {MIN_TARGETS}' if fidelity.pairwise else ''}: get more answers "
            "(sample.fraction, or more given scores), or leave more of them to the audit "
            "(sample.audit)"
        )
        return Verdict(False, [reason], [])
    scores, means = quadrant.scores, fidelity.candidate_means
    own = scores["student"]
    assert means is not None, "unseen candidates have means"
    if own.within_r2 is None:
        where = "of each target" if fidelity.pairwise else "of the rows"
        reason = f"all audited labels {where} are equal: there is nothing to judge by"
        return Verdict(False, [reason], [])
    others = [name for name in OTHERS if name in scores and name != student]
    checks = [_means_are_ordered(means, fidelity)]
    if fidelity.pairwise:
        checks.insert(0, _order_is_no_chance(own, fidelity))
    for name in others:
        beside = _not_behind(name, scores, means, fidelity.pairwise)
        if named and name == "cosine":  # what the user should know first
            told = f"you named student {student}, but "
            checks = [(passed, said if passed else told + said) for passed, said in beside] + checks
        else:
            checks += beside
    checks.append(_values_beat_means(own, fidelity))
    checks.sort(key=lambda check: check[0])
    remarks = [_own_yardstick(student), _ceiling(means, fidelity.pairwise), _looked(look or Look())]
    return Verdict(
        trusted=all(passed for passed, _ in checks),
        reasons=[sentence for _, sentence in checks],
        remarks=[remark for remark in remarks if remark],
    )


def _order_is_no_chance(own: Score, fidelity: Fidelity) -> Check:
    if own.within is None:
        return False, "within a target the student says the same of every unseen candidate"
    said = _with_interval("Spearman", own.within, own.within_interval, fidelity.confidence)
    what = "order of unseen candidates within a target"
    if own.within_interval is not None and own.within_interval[0] > 0:
        return True, f"the student's {what} is better than chance: {said}"
    return False, f"the student's {what} is not significantly better than chance: {said}"


def _means_are_ordered(means: CandidateMeans, fidelity: Fidelity) -> Check:
    of = f"{means.num_candidates} unseen " + (
        "candidates by mean influence" if fidelity.pairwise else "rows"
    )
    own, interval = means.spearman["student"], means.spearman_interval["student"]
    if own is None:
        return False, f"the student does not order {of}: one of the two sides is constant"
    said = _with_interval("Spearman", own, interval, fidelity.confidence)
    if interval is not None and interval[0] > MIN_MEANS:
        return True, f"the student orders {of} as the teacher does: {said}"
    return False, (
        f"the student's order of {of} is not significantly above {MIN_MEANS:g}, the least that is "
        f"worth a selection: {said}"
    )


def _not_behind(
    name: str, scores: Mapping[str, Score], means: CandidateMeans, pairwise: bool
) -> list[Check]:
    """The student beside another: within a target and by mean, of rows the one order there is."""
    found = [
        _beside(
            name,
            "candidates by mean influence" if pairwise else "unseen rows",
            (means.spearman["student"], means.spearman.get(name)),
            means.lead_interval.get(name),
        )
    ]
    if pairwise:
        within = (scores["student"].within, scores[name].within)
        what = "candidates within a target"
        found.insert(0, _beside(name, what, within, scores[name].within_lead_interval))
    return [check for check in found if check is not None]


def _beside(
    name: str, what: str, both: tuple[float | None, float | None], lead: Interval | None
) -> Check | None:
    own, other = both
    if own is None or other is None or lead is None:
        return None  # a constant has no order, and another check says so
    numbers = f"Spearman {own:.3f} against {other:.3f}"
    if lead[1] < -MIN_LEAD:
        dear = ", for nothing," if name == "cosine" else ""
        return False, (
            f"{OTHERS[name]}{dear} orders {what} better than the student: Spearman {other:.3f} "
            f"against {own:.3f}"
        )
    if lead[0] > 0:
        return True, f"the student orders {what} better than {OTHERS[name]}: {numbers}"
    return True, (
        f"the student orders {what} not significantly worse than {OTHERS[name]}: {numbers}, a lead "
        f"of {lead[0]:.3f} to {lead[1]:.3f} (95 % interval)"
    )


def _values_beat_means(own: Score, fidelity: Fidelity) -> Check:
    assert own.within_r2 is not None
    said = _with_interval("R^2", own.within_r2, own.within_r2_interval, fidelity.confidence)
    what = "each target's mean" if fidelity.pairwise else "the mean of unseen rows"
    if own.within_r2_interval is not None and own.within_r2_interval[0] > 0:
        return True, f"the student predicts better than {what}: {said}"
    return False, f"R^2 beyond {what} is not significantly above 0: {said}"


def _with_interval(measure: str, value: float, interval: Interval | None, confidence: float) -> str:
    if interval is None:
        return f"{measure} {value:.3f}, without an interval"
    low, high = interval
    return f"{measure} {value:.3f} ({_percent(confidence)} interval {low:.3f} to {high:.3f})"


def _percent(confidence: float) -> str:
    return f"{100 * confidence:.3g} %"


# --- remarks -------------------------------------------------------------------------------------


def _own_yardstick(student: str | None) -> str:
    if student not in OTHERS:
        return ""
    return f"the student is {OTHERS[student]}, and is not compared with itself"


def _ceiling(means: CandidateMeans, pairwise: bool) -> str:
    own = means.spearman["student"]
    if not pairwise or own is None or means.split_half is None:
        return ""
    said = f"two halves of the {means.num_targets} audited targets agree by {means.split_half:.2f}"
    if means.ceiling is None:
        return f"over other targets the teacher's own means would be others: {said}"
    return (
        f"Spearman of the means is {own:.2f}; knowing only each candidate's mean over endless "
        f"targets like these, one would reach about {means.ceiling:.2f} (split-half reliability, "
        f"by Spearman-Brown: {said}), and more takes knowing how these targets differ"
    )


def _looked(look: Look) -> str:
    if look.of == 1:
        return ""
    return (
        f"look {look.number} of at most {look.of} at the audit: intervals at "
        f"{_percent(look.confidence)}, so that looking again earns no trust by luck"
    )
