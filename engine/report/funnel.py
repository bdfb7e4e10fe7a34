"""How many rows came in and how many are left, per side, and why rows were set aside."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from engine import storage
from engine.artifacts.files import read_table
from engine.artifacts.run_directory import Artifact

__all__ = ["Rejection", "SideFunnel", "read_funnel"]

NUM_REASONS, NUM_REJECTIONS = 8, 4
MAX_KINDS = 10_000  # of reasons counted apart: a bound for memory, not for the page


@dataclass(frozen=True)
class Rejection:
    """One row of the quarantine."""

    file: str
    line: int
    id: str | None
    reason: str


@dataclass(frozen=True)
class SideFunnel:
    """One side's rows.

    Attributes:
        side: "candidates", "targets" or "owned".
        leaked: left out since they repeat protected rows.
        repeated: left out since they say what another candidate says.
        nul_removed: NUL characters that were taken out of rows that stayed.
        reasons: the commonest reasons with their counts, most frequent first.
        other_reasons: rejections for all other reasons.
        first: the first few rejections.
        crashed: rows among the quarantined on which the encoder crashes.
        learned_from: rows that the student saw the teacher's labels of; None for owned rows.
        selected: rows in the subset; None for the others.
    """

    side: str
    read: int
    filtered_out: int
    quarantined: int
    leaked: int
    repeated: int
    nul_removed: int
    kept: int
    reasons: list[tuple[str, int]]
    other_reasons: int
    first: list[Rejection]
    crashed: int
    learned_from: int | None
    selected: int | None


def read_funnel(
    corpus: Artifact, embeddings: Artifact, sample: Artifact, num_selected: int
) -> list[SideFunnel]:
    """The sides that there are; reads a batch of rejections at a time.

    A row on which the encoder crashes was set aside by `embeddings`.

    Raises nothing: an empty quarantine is the common case.
    """
    counts = corpus.counts
    files = {corpus.directory / part.path: part.rows for part in corpus.parts("quarantine")}
    later: Counter[str] = Counter()
    if "quarantine" in embeddings.manifest["parts"]:
        path = embeddings.path("quarantine")
        later.update(read_table(path, columns=["side"])["side"].to_pylist())
        files[path] = later.total()
    sides = []
    for side in ("candidates", "targets", "owned"):
        if side not in counts:
            continue
        reasons: Counter[str] = Counter()
        first: list[Rejection] = []
        for path in (path for path, rows in files.items() if rows):
            _count_reasons(path, side, reasons, first)
        common = reasons.most_common(NUM_REASONS)
        sides.append(
            SideFunnel(
                side=side,
                **{name: int(counts[f"{side}_{name}"]) for name in _COUNTS},
                quarantined=int(counts[f"{side}_quarantined"]) + later[side],
                leaked=int(counts.get(f"{side}_leaked", 0)),
                repeated=int(counts.get(f"{side}_duplicates", 0)),
                kept=int(counts[side]) - later[side],
                reasons=common,
                other_reasons=reasons.total() - sum(number for _, number in common),
                first=first,
                crashed=later[side],
                learned_from=sample.counts.get(f"training_{side}"),
                selected=num_selected if side == "candidates" else None,
            )
        )
    return sides


_COUNTS = ("read", "filtered_out", "nul_removed")


def _count_reasons(path: Any, side: str, reasons: Counter[str], first: list[Rejection]) -> None:
    columns = ["side", "file", "line", "id", "reason"]
    for batch in pq.ParquetFile(storage.fetch(path)).iter_batches(columns=columns):
        for row in batch.to_pylist():
            if row.pop("side") != side:
                continue
            kind = reason_kind(row["reason"])
            reasons[kind if kind in reasons or len(reasons) < MAX_KINDS else "other"] += 1
            if len(first) < NUM_REJECTIONS:
                first.append(Rejection(**row))


def reason_kind(reason: str) -> str:
    """The part of a reason that rows share: what follows a colon or semicolon is about one row."""
    kind = reason.split(": ")[0].split("; ")[0]
    return kind[:120]
