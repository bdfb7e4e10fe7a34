"""What a run cost, and what asking the teacher about everything would have cost.

Pure functions over the stages' manifests. Costs are worker seconds: summed over the processes that
did the work, whenever they did it, so a resumed or a widely spread run costs what it cost. A stage
that does not record them is charged its wall seconds.

A teacher is charged in its own unit. One whose cost is per *pair* would be asked M x N times; one
whose cost is per *point* needs every point once, since its pairs are a matrix product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from engine.report.wording import count, duration, percent, times

__all__ = ["FullTeacher", "Ledger", "StageCost", "UnitCosts", "make_ledger", "saved_sentence"]

Manifest = Mapping[str, Any]
AUDIT_COUNTS = ("audit_q1_pairs", "audit_q2_pairs", "audit_q3_pairs", "audit_q4_pairs")


@dataclass(frozen=True)
class StageCost:
    """One stage. `charged_seconds` is what enters the total; None is what it does not record."""

    name: str
    wall_seconds: float
    worker_seconds: float | None
    charged_seconds: float
    calls: int | None
    tokens: int | None
    truncated: int | None


@dataclass(frozen=True)
class UnitCosts:
    """Measured prices of one answer of the teacher; None for what it was not asked."""

    seconds_per_candidate: float | None
    seconds_per_target: float | None
    seconds_per_pair: float | None
    tokens_per_candidate: float | None
    tokens_per_target: float | None
    tokens_per_pair: float | None


@dataclass(frozen=True)
class FullTeacher:
    """The estimate for asking the teacher about everything.

    Attributes:
        unit: what its cost grows with.
        points, pairs: how many of each would be asked.
        seconds, tokens, calls: what that would take at the measured prices.
    """

    unit: Literal["pair", "point"]
    points: int
    pairs: int
    seconds: float
    tokens: float
    calls: int


@dataclass(frozen=True)
class Ledger:
    """The whole account; `to_dict` gives JSON without NaN.

    Attributes:
        teacher_seconds: of the teacher's answers, part of `total_seconds`.
        asked_now: answers that this run paid for; the others were remembered.
        audit_pairs: pairs asked to judge the student, not to train it.
        audit_share: of the teacher's calls that only those need; of points they are fewer.
        same_encoder: whether teacher and student read the vectors of one and the same model.
        saved: 1 - total / estimate, negative when nothing is saved; None without an estimate.
        remarks: what a reader must know to read the numbers, one sentence each.
    """

    teacher: str
    stages: list[StageCost]
    wall_seconds: float
    total_seconds: float
    teacher_seconds: float
    teacher_calls: int
    teacher_tokens: int
    asked_now: int
    pairs: int
    all_pairs: int
    audit_pairs: int
    audit_share: float
    unit_costs: UnitCosts
    full_teacher: FullTeacher
    same_encoder: bool
    saved: float | None
    remarks: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def make_ledger(manifests: Mapping[str, Manifest]) -> Ledger:
    """The account of a run from the manifests of its stages, by name, in their order."""
    stages = [_stage_cost(name, manifest) for name, manifest in manifests.items()]
    score, sample = manifests["score"], manifests["sample"]["counts"]
    usage, pairs = score["usage"], int(score["counts"]["pairs"])
    asked_again = manifests.get("second_look", {"usage": {}, "counts": {}})
    num_candidates, num_targets = _sizes(manifests)
    total = sum(stage.charged_seconds for stage in stages)
    full = _full_teacher(manifests)
    same_encoder = _same_encoder(manifests, full)
    if same_encoder:  # the vectors that this run computed are all that the teacher needs
        embed = manifests["embed"]
        seconds = float(embed["usage"].get("seconds", embed["wall_seconds"]))
        tokens = float(embed["usage"].get("tokens", full.tokens))
        full = replace(full, seconds=seconds, tokens=tokens)
    saved = 1 - total / full.seconds if full.seconds > 0 else None
    audit_pairs = sum(int(sample.get(name, 0)) for name in AUDIT_COUNTS)
    return Ledger(
        teacher=str(score["settings"]["teacher"]["name"]),
        stages=stages,
        wall_seconds=sum(stage.wall_seconds for stage in stages),
        total_seconds=total,
        teacher_seconds=_of_both("seconds", usage, asked_again["usage"]),
        teacher_calls=int(_of_both("calls", usage, asked_again["usage"])),
        teacher_tokens=int(_of_both("tokens", usage, asked_again["usage"])),
        asked_now=sum(
            int(manifest["counts"].get("asked_now", 0)) for manifest in (score, asked_again)
        ),
        pairs=pairs,
        all_pairs=num_candidates * num_targets,
        audit_pairs=audit_pairs,
        audit_share=float(sample["audit_share"]),
        unit_costs=_unit_costs(score),
        full_teacher=full,
        same_encoder=same_encoder,
        saved=saved,
        remarks=list(_remarks(manifests, full, same_encoder)),
    )


def _of_both(what: str, first: Mapping[str, float], again: Mapping[str, float]) -> float:
    return float(first.get(what, 0.0) + again.get(what, 0.0))


def saved_sentence(ledger: Ledger) -> str:
    """What was saved against the full teacher, in words, loss included."""
    run, full = duration(ledger.total_seconds), duration(ledger.full_teacher.seconds)
    if ledger.saved is None:
        return f"This run took {run} of worker time; the teacher's own price could not be measured."
    asking = f"asking {ledger.teacher} about everything would take an estimated {full}"
    if ledger.saved > 0:
        return f"This run took {run} of worker time; {asking}: {percent(ledger.saved)} saved."
    factor = times(ledger.total_seconds / ledger.full_teacher.seconds)
    return (
        f"Nothing was saved: this run took {run} of worker time, {factor} times as much as the "
        f"estimated {full} for asking {ledger.teacher} about everything."
    )


def _stage_cost(name: str, manifest: Manifest) -> StageCost:
    usage, wall = manifest["usage"], float(manifest["wall_seconds"])
    worker = float(usage["seconds"]) if "seconds" in usage else None
    calls, tokens, truncated = (
        int(usage[key]) if key in usage else None for key in ("calls", "tokens", "truncated")
    )
    charged = wall if worker is None else worker
    return StageCost(name, wall, worker, charged, calls, tokens, truncated)


def _sizes(manifests: Mapping[str, Manifest]) -> tuple[int, int]:
    """(M, N); without a target set the candidates are their own, and a teacher of rows has one."""
    counts = manifests["ingest"]["counts"]
    pairwise = manifests["sample"]["counts"]["pairwise"]
    num_targets = int(counts.get("targets", counts["candidates"])) if pairwise else 1
    return int(counts["candidates"]), num_targets


# --- the teacher's prices ------------------------------------------------------------------------


def _unit_costs(score: Manifest) -> UnitCosts:
    usage = score["usage"]
    return UnitCosts(
        seconds_per_candidate=_rate(usage, "features_candidate", "seconds"),
        seconds_per_target=_rate(usage, "features_target", "seconds"),
        seconds_per_pair=_rate(usage, "pairs", "seconds"),
        tokens_per_candidate=_rate(usage, "features_candidate", "tokens"),
        tokens_per_target=_rate(usage, "features_target", "tokens"),
        tokens_per_pair=_rate(usage, "pairs", "tokens") if usage.get("pairs_calls") else None,
    )


def _rate(usage: Mapping[str, float], kind: str, what: str) -> float | None:
    rows = usage.get(f"{kind}_rows", 0)
    return float(usage[f"{kind}_{what}"]) / rows if rows and f"{kind}_{what}" in usage else None


def _unit(usage: Mapping[str, float]) -> Literal["pair", "point"]:
    """What the teacher's cost grows with, by what it did: a point teacher's pairs call no model."""
    return "point" if _features(usage) and not usage.get("pairs_calls", 0) else "pair"


def _full_teacher(manifests: Mapping[str, Manifest]) -> FullTeacher:
    score, (num_candidates, num_targets) = manifests["score"], _sizes(manifests)
    usage, unit = score["usage"], _unit(score["usage"])
    sides: dict[tuple[str, ...], int] = {("candidate",): num_candidates, ("target",): num_targets}
    if score["counts"].get("same_features") and "targets" not in manifests["ingest"]["counts"]:
        # one set on both sides: a full run would ask about each of its points once
        sides = {("candidate", "target"): num_candidates}
    asked = {kinds: number for kinds, number in sides.items() if _features(usage, kinds, "rows")}
    seconds, tokens, calls = (
        sum(n * _features(usage, k, what) / _features(usage, k, "rows") for k, n in asked.items())
        for what in ("seconds", "tokens", "calls")
    )
    points, pairs = sum(asked.values()), num_candidates * num_targets if unit == "pair" else 0
    costs = _unit_costs(score)
    return FullTeacher(
        unit=unit,
        points=points,
        pairs=pairs,
        # what a teacher prepares itself with, it would need once as well
        seconds=seconds
        + usage.get("prepared_seconds", 0.0)
        + pairs * (costs.seconds_per_pair or 0),
        tokens=tokens + usage.get("prepared_tokens", 0.0) + pairs * (costs.tokens_per_pair or 0),
        calls=round(calls + usage.get("prepared_calls", 0.0))
        + (pairs if usage.get("pairs_calls") else 0),
    )


def _features(
    usage: Mapping[str, float],
    sides: tuple[str, ...] = ("candidate", "target"),
    what: str = "calls",
) -> float:
    """Seconds, tokens or calls that the features of some sides took together."""
    return float(sum(usage.get(f"features_{side}_{what}", 0.0) for side in sides))


# --- what a reader must know ---------------------------------------------------------------------


def _same_encoder(manifests: Mapping[str, Manifest], full: FullTeacher) -> bool:
    teacher = manifests["score"].get("models", {}).get("model")
    student = manifests["embed"].get("models", {}).get("encoder")
    return full.unit == "point" and teacher is not None and teacher == student


def _remarks(manifests: Mapping[str, Manifest], full: FullTeacher, same_encoder: bool) -> list[str]:
    score = manifests["score"]
    usage, counts = score["usage"], score["counts"]
    remarks = []
    if same_encoder:
        remarks.append(
            "Teacher and student read the vectors of the same encoder, which this run computed for "
            "every row anyway. They are all that the teacher, asked about everything, would cost: "
            "nothing can be saved with this pair of models."
        )
    elif full.unit == "point" and _teacher_is_cheaper(manifests):
        remarks.append(
            "One answer of the teacher costs no more than one vector of the student's own encoder, "
            "which this run computes for every row: nothing can be saved with this pair of models."
        )
    if full.unit == "point":
        remarks.append(
            "This teacher's cost is per point, not per pair: once it has every point, all pairs "
            "are one matrix product. So it is charged for points alone."
        )
    if usage.get("pairs_calls"):
        remarks.append(
            "Asked about all targets, the teacher could share more of its work on a candidate "
            "between them than it did here: the estimate is rather too high than too low."
        )
    if manifests["score"]["settings"]["teacher"]["name"].startswith("given"):
        remarks.append("The scores were given: what they cost whom is not known here.")
    elif not usage.get("calls"):
        remarks.append("This teacher asks no model: its price says nothing about a real one.")
    if "second_look" in manifests:
        again = manifests["second_look"]
        remarks.append(
            f"{count(int(again['usage'].get('calls', 0)))} of the teacher's answers are those of "
            f"the second look, at {count(again['counts']['shortlist'])} rows."
        )
    if usage.get("calls") and counts.get("asked_now", 0) < usage["calls"]:
        now, calls = int(counts["asked_now"]), int(usage["calls"])
        remarks.append(
            f"{count(calls - now)} of the {count(calls)} answers were paid for by an earlier run "
            "in this directory and are charged at what they cost then."
        )
    remarks.append(
        "Reading the files, embedding, fitting, predicting and selecting are charged to this run; "
        "the estimate for the full teacher is its answers alone, which flatters it."
    )
    return remarks


def _teacher_is_cheaper(manifests: Mapping[str, Manifest]) -> bool:
    usage, embed = manifests["score"]["usage"], manifests["embed"]
    features = _features(usage, what="rows")
    rows = sum(int(embed["counts"].get(side, 0)) for side in ("candidates", "targets"))
    if not features or not rows or "seconds" not in embed["usage"]:
        return False
    per_answer = _features(usage, what="seconds") / features
    return bool(per_answer <= embed["usage"]["seconds"] / rows)
