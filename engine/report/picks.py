"""What was picked: distributions of influence and labels, the gain of each pick, and examples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.artifacts.files import read_table
from engine.artifacts.rows import TableParts, read_extra
from engine.artifacts.run_directory import Artifact
from engine.report.known_bad import mark_of
from engine.report.wording import ShownText, shown_text

__all__ = [
    "Distribution",
    "ExampleRow",
    "GainCurve",
    "Ranking",
    "bottom_examples",
    "distribution",
    "gain_curve",
    "label_distribution",
    "read_ranking",
    "top_examples",
]

MIN_BINS, MAX_BINS, NUM_POINTS = 8, 40, 300
MAX_EXAMPLES = 50  # of each end, whatever the settings say: the page stays small
TEXT_BYTES, MAX_TEXT_BYTES = 500_000, 6_000  # of all example texts together, and of one
_TEXTS = ("instruction", "input", "output")

Rows = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Ranking:
    """The selection: rows of the candidates (B,), best first, and what each pick added (B,)."""

    rows: Rows
    gains: NDArray[np.float64]


@dataclass(frozen=True)
class Distribution:
    """Two groups over the same bins.

    Attributes:
        edges: of the bins, one more than there are bins.
        base, compared: share of the group's own rows in each bin.
        base_size, compared_size, base_mean, compared_mean: of the groups; no mean of nothing.
    """

    edges: list[float]
    base: list[float]
    compared: list[float]
    base_size: int
    compared_size: int
    base_mean: float | None
    compared_mean: float | None


@dataclass(frozen=True)
class GainCurve:
    """Points (rank, gain) and (rank, share of the objective reached).

    Attributes:
        tail_from: first rank that added nothing; None when every pick did.
        tail_size: picks from there on.
        is_thinned: whether the points are a sample of the ranks.
    """

    gains: list[tuple[float, float]]
    reached: list[tuple[float, float]]
    tail_from: int | None
    tail_size: int
    num_picks: int
    half_at: int | None
    is_thinned: bool


@dataclass(frozen=True)
class ExampleRow:
    """A row of the corpus as the page shows it; `rank` and `gain` are None when not selected."""

    id: str
    file: str
    line: int
    rank: int | None
    gain: float | None
    mean_influence: float
    mark: str | None
    texts: list[tuple[str, ShownText]]


def read_ranking(selection: Artifact) -> Ranking:
    """Rows and gains of the picks, 16 bytes each."""
    table = read_table(selection.path("ranking"), columns=["row", "gain"])
    return Ranking(table["row"].to_numpy(), table["gain"].to_numpy())


# --- distributions -------------------------------------------------------------------------------


def distribution(base: Floats, compared: Floats) -> Distribution:
    """Both groups over equal bins of the base's range, fewer for few rows; the base holds both."""
    low, high = (float(base.min()), float(base.max())) if len(base) else (0.0, 1.0)
    if not high > low:
        low, high = low - 0.5, high + 0.5
    smaller = len(compared) or len(base)
    num_bins = min(MAX_BINS, max(MIN_BINS, 2 * math.isqrt(smaller)))
    edges = np.linspace(low, high, num_bins + 1)
    return Distribution(
        edges=edges.tolist(),
        base=_shares(base, edges),
        compared=_shares(compared, edges),
        base_size=len(base),
        compared_size=len(compared),
        base_mean=float(base.mean(dtype=np.float64)) if len(base) else None,
        compared_mean=float(compared.mean(dtype=np.float64)) if len(compared) else None,
    )


def _shares(values: Floats, edges: NDArray[np.float64]) -> list[float]:
    clipped = np.clip(values.astype(np.float64), edges[0], edges[-1])
    counts = np.histogram(clipped, bins=edges)[0]
    shares: list[float] = (counts / max(len(values), 1)).tolist()
    return shares


def label_distribution(score: Artifact) -> Distribution:
    """All labels of the teacher, and those of the audit."""
    table = read_table(score.path("labels"), columns=["score", "quadrant"])
    labels, quadrants = table["score"].to_numpy(), table["quadrant"].to_numpy()
    known = np.isfinite(labels)
    return distribution(labels[known], labels[known & (quadrants > 0)])


# --- gains ---------------------------------------------------------------------------------------


def gain_curve(gains: NDArray[np.float64], zero_gain_picks: int) -> GainCurve:
    """At most `NUM_POINTS` ranks of the curve, the first and the last added pick among them."""
    count = len(gains)
    tail_from = count - zero_gain_picks
    ranks = np.unique(np.linspace(1, count, min(count, NUM_POINTS)).round().astype(np.int64))
    if 0 < tail_from < count:
        ranks = np.unique(np.append(ranks, tail_from))
    total, sums = float(gains.sum()), np.cumsum(gains)
    reached = sums / total if total > 0 else np.zeros(count)
    half_at = int(np.argmax(reached >= 0.5)) + 1 if total > 0 else None
    return GainCurve(
        gains=[(float(r), float(gains[r - 1])) for r in ranks if r <= tail_from],
        reached=[(float(r), float(reached[r - 1])) for r in ranks],
        tail_from=tail_from + 1 if zero_gain_picks else None,
        tail_size=zero_gain_picks,
        num_picks=count,
        half_at=half_at,
        is_thinned=len(ranks) < count,
    )


# --- examples ------------------------------------------------------------------------------------


def top_examples(
    corpus: Artifact, ranking: Ranking, means: Floats, number: int, column: str | None
) -> list[ExampleRow]:
    """The first picks, in their order."""
    number = min(number, MAX_EXAMPLES, len(ranking.rows))
    return _examples(corpus, ranking, means, ranking.rows[:number], column)


def bottom_examples(
    corpus: Artifact, ranking: Ranking, means: Floats, number: int, column: str | None
) -> list[ExampleRow]:
    """The candidates of lowest mean influence, lowest first; ties by row."""
    number = min(number, MAX_EXAMPLES, len(means))
    lowest = np.argsort(means, kind="stable")[:number]
    return _examples(corpus, ranking, means, lowest.astype(np.int64), column)


def _examples(
    corpus: Artifact, ranking: Ranking, means: Floats, rows: Rows, column: str | None
) -> list[ExampleRow]:
    if not len(rows):
        return []
    table = TableParts(corpus, "candidates").take(rows, ["id", *_TEXTS, "extra", "file", "line"])
    max_bytes = min(MAX_TEXT_BYTES, TEXT_BYTES // (2 * len(rows) * len(_TEXTS)))
    examples = []
    for row, values in zip(rows.tolist(), table.to_pylist(), strict=True):
        (places,) = np.nonzero(ranking.rows == row)
        place = int(places[0]) if len(places) else None
        examples.append(
            ExampleRow(
                id=values["id"],
                file=values["file"],
                line=values["line"],
                rank=None if place is None else place + 1,
                gain=None if place is None else float(ranking.gains[place]),
                mean_influence=float(means[row]),
                mark=mark_of(read_extra(values["extra"]), column) if column else None,
                texts=[(n, shown_text(values[n], max_bytes)) for n in _TEXTS if values[n]],
            )
        )
    return examples
