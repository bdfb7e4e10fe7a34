"""Rows that somebody knows to be bad: does the selection avoid them better than chance would?

No stage ever saw the mark; it is read here from the columns that ingest only carried along. Chance
is a draw without replacement: the number of bad rows in it is hypergeometric.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.artifacts.rows import TableParts, read_extra
from engine.artifacts.run_directory import Artifact
from engine.errors import SettingsError

__all__ = ["Chance", "KindCount", "KnownBad", "chance", "known_bad", "mark_of", "read_marks"]

NUM_KINDS, MAX_KINDS = 12, 10_000
TOP_SHARES = (0.10, 0.25, 0.50)
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Chance:
    """What a random draw of as many rows would hold; the p-value is two-sided."""

    mean: float
    low: int
    high: int
    p_value: float


@dataclass(frozen=True)
class KindCount:
    """One kind of bad row, by the value of the column."""

    kind: str
    in_pool: int
    selected: int
    expected: float


@dataclass(frozen=True)
class TopShare:
    """Bad rows among the best by mean influence."""

    share: float
    rows: int
    bad: int
    expected: float


@dataclass(frozen=True)
class KnownBad:
    """The whole comparison."""

    column: str
    num_candidates: int
    num_selected: int
    in_pool: int
    selected: int
    chance: Chance
    kinds: list[KindCount]
    other_kinds: int
    top: list[TopShare]
    free: int | None


def known_bad(
    corpus: Artifact,
    column: str,
    ranking: Rows,
    mean_influence: NDArray[np.float32],
    free: Rows | None = None,
) -> KnownBad:
    """Count the marked rows in the pool, in the selection (B,) and among the best by mean (M,).

    And among what the cosine and round robin pick for nothing, `free`.

    Memory: one part of the corpus and 8 bytes a row. Raises SettingsError when no row has the
    column.
    """
    codes, kinds = read_marks(corpus, column)
    num_candidates, num_selected = len(codes), len(ranking)
    in_pool = np.bincount(codes, minlength=len(kinds) + 1)[1:]
    selected = np.bincount(codes[ranking], minlength=len(kinds) + 1)[1:]
    order = sorted(range(len(kinds)), key=lambda kind: (-int(in_pool[kind]), kinds[kind]))
    share = num_selected / num_candidates
    num_bad, num_bad_selected = int(in_pool.sum()), int(selected.sum())
    return KnownBad(
        column=column,
        num_candidates=num_candidates,
        num_selected=num_selected,
        in_pool=num_bad,
        selected=num_bad_selected,
        chance=chance(num_candidates, num_bad, num_selected, num_bad_selected),
        kinds=[
            KindCount(kinds[k], int(in_pool[k]), int(selected[k]), float(in_pool[k] * share))
            for k in order[:NUM_KINDS]
        ],
        other_kinds=max(0, len(kinds) - NUM_KINDS),
        top=_top(codes > 0, mean_influence),
        free=None if free is None else int((codes[free] > 0).sum()),
    )


def chance(population: int, bad: int, draws: int, found: int) -> Chance:
    """Mean, 95 % range and two-sided p-value (all outcomes no likelier than what was found)."""
    import scipy.stats  # takes more than a second: not in every process

    law = scipy.stats.hypergeom(population, bad, draws)
    outcomes = np.arange(max(0, draws + bad - population), min(bad, draws) + 1)
    likelihood = law.pmf(outcomes)
    # rounding must not leave out an outcome that is exactly as likely
    extreme = likelihood <= likelihood[found - outcomes[0]] * (1 + 1e-7)
    return Chance(
        mean=draws * bad / population,
        low=int(law.ppf(0.025)),
        high=int(law.ppf(0.975)),
        p_value=min(1.0, float(likelihood[extreme].sum())),
    )


def read_marks(corpus: Artifact, column: str) -> tuple[NDArray[np.int32], list[str]]:
    """(M,) codes, 0 = good, k = `kinds[k - 1]`, and the kinds."""
    kinds: dict[str, int] = {}
    found: dict[str, None] = {}  # of other columns, for the message
    is_there = False
    pieces = []
    for texts in _extras(corpus):
        codes = np.zeros(len(texts), dtype=np.int32)
        for position, extra in enumerate(map(read_extra, texts)):
            is_there = is_there or column in extra
            if not is_there and len(found) < MAX_KINDS:
                found.update(dict.fromkeys(extra))
            mark = mark_of(extra, column)
            if mark is not None:
                mark = mark if mark in kinds or len(kinds) < MAX_KINDS else "other"
                codes[position] = kinds.setdefault(mark, len(kinds) + 1)
        pieces.append(codes)
    if not is_there:
        listed = ", ".join(sorted(found)[:20]) or "no extra columns"
        raise SettingsError(
            f"report.known_bad_column: no column {column!r} among the candidates' extra columns; "
            f"found {listed}"
        )
    return np.concatenate(pieces), list(kinds)


def _extras(corpus: Artifact) -> Iterator[list[str]]:
    for table in TableParts(corpus, "candidates").iter_parts(["extra"]):
        yield table["extra"].to_pylist()


def mark_of(extra: dict[str, Any], column: str) -> str | None:
    """What the column says about a row: its value as text when it marks the row as bad."""
    value = extra.get(column)
    if not value or (isinstance(value, str) and not value.strip()):
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _top(bad: NDArray[np.bool_], mean_influence: NDArray[np.float32]) -> list[TopShare]:
    order = np.argsort(-mean_influence, kind="stable")
    shares = []
    for share in TOP_SHARES:
        rows = max(1, round(share * len(order)))
        shares.append(TopShare(share, rows, int(bad[order[:rows]].sum()), float(rows * bad.mean())))
    return shares
