"""Candidates that repeat protected rows: how many into each set, and the first of them."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow.parquet as pq

from engine import storage
from engine.artifacts.run_directory import Artifact

__all__ = ["LeakFacts", "LeakRow", "SetLeaks", "read_leaks"]

NUM_LEAKS, CHARACTERS = 8, 600


@dataclass(frozen=True)
class SetLeaks:
    """Candidates that repeat rows of one set, by kind."""

    name: str
    kinds: dict[str, int]


@dataclass(frozen=True)
class LeakRow:
    """One candidate beside the protected row that it repeats; texts are shortened."""

    id: str
    place: str
    kind: str
    score: float
    dropped: bool
    protected_place: str
    text: str
    protected_text: str


@dataclass(frozen=True)
class LeakFacts:
    """What was found.

    Attributes:
        sets: that candidates were compared with and leak into; none is good news.
        left_out: candidates that are no candidates any more.
        first: the first few, those that were left out or are exact before others.
    """

    sets: list[SetLeaks]
    left_out: int
    first: list[LeakRow]


def read_leaks(corpus: Artifact) -> LeakFacts | None:
    """What ingest found, None where there was nothing to compare with. Reads a batch at a time."""
    counts = corpus.counts
    if "leaks" not in counts:
        return None
    rows: list[tuple[int, LeakRow]] = []
    file = pq.ParquetFile(storage.fetch(corpus.path("leaks")))
    for batch in file.iter_batches(batch_size=256):
        rows += [(_weight(row), _leak(row)) for row in batch.to_pylist()]
        rows = sorted(rows, key=lambda pair: pair[0])[:NUM_LEAKS]
    return LeakFacts(
        sets=[SetLeaks(name, dict(kinds)) for name, kinds in counts["leaks"].items()],
        left_out=int(counts["candidates_leaked"]),
        first=[leak for _, leak in rows],
    )


def _weight(row: dict[str, object]) -> int:
    return ("exact", "13-gram", "near").index(str(row["kind"])) + (0 if row["dropped"] else 3)


def _leak(row: dict[str, object]) -> LeakRow:
    return LeakRow(
        id=str(row["id"]),
        place=f"{row['file']}, line {row['line']}",
        kind=str(row["kind"]),
        score=float(str(row["score"])),
        dropped=bool(row["dropped"]),
        protected_place=f"{row['set']}: {row['protected_file']}, line {row['protected_line']}",
        text=str(row["text"])[:CHARACTERS],
        protected_text=str(row["protected_text"])[:CHARACTERS],
    )
