"""What the quality gate did: its verdict, what it cost, and which rows it dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from engine.artifacts.files import read_json, read_table
from engine.artifacts.run_directory import Artifact
from engine.report.known_bad import read_marks

__all__ = ["QualityFacts", "quality_facts"]


@dataclass(frozen=True)
class QualityFacts:
    """The gate, as the report tells of it.

    Attributes:
        teacher, student: who judged; no student where every row was asked about.
        rule: what becomes of bad rows, in words.
        trusted, reason: the verdict of its own audit, and what it says first.
        order: Spearman with the teacher on rows that it never saw, if audited.
        calls: of its teacher, whenever they were paid.
        rows, asked, dropped, dropped_asked: counts of candidates.
        unscorable: rows that the teacher was asked about and could not score.
        untrusted: what an untrusted gate drops: asked, all or none.
        bad_dropped, bad_in_pool: rows known to be bad, if a column marks them.
    """

    teacher: str
    student: str | None
    rule: str
    trusted: bool
    reason: str
    order: float | None
    calls: int
    rows: int
    asked: int
    dropped: int
    dropped_asked: int
    unscorable: int
    untrusted: str
    bad_dropped: int | None
    bad_in_pool: int | None


def quality_facts(inputs: Mapping[str, Artifact], column: str | None) -> QualityFacts | None:
    """None without a gate. Memory: a byte and 4 more for each candidate."""
    if "quality" not in inputs:
        return None
    gate, fidelity = inputs["quality"], read_json(inputs["quality_fit"].path("fidelity"))
    counts = gate.counts
    bad_dropped = bad_in_pool = None
    if column is not None:
        bad = read_marks(inputs["ingest"], column)[0] > 0
        dropped = read_table(gate.path("judgement"), columns=["dropped"])["dropped"].to_numpy()
        bad_dropped, bad_in_pool = int((bad & dropped).sum()), int(np.count_nonzero(bad))
    quadrants = fidelity["quadrants"].values()
    return QualityFacts(
        **{
            name: counts[name]
            for name in (
                "teacher",
                "student",
                "rule",
                "trusted",
                "reason",
                "rows",
                "asked",
                "dropped",
                "dropped_asked",
                "unscorable",
                "untrusted",
            )
        },
        order=next((q["scores"]["student"]["within"] for q in quadrants), None),
        calls=int(inputs["quality_score"].manifest["usage"].get("calls", 0)),
        bad_dropped=bad_dropped,
        bad_in_pool=bad_in_pool,
    )
