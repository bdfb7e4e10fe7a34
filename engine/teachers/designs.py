"""Designs: which pairs a teacher is asked about, for training and for the audit.

Rows are drawn by a hash of their id, so the draw does not depend on files, parts or workers. Three
designs spend the same number of teacher calls:

    block       all pairs of u M candidates and u N targets, as published
    scattered   as many pairs, `targets_per_candidate` for each of more candidates, over all
                targets; still grouped by candidate, so that a teacher's prefix cache pays
    stratified  as scattered, with candidates and targets in the proportions of the clusters of
                their embeddings

A teacher whose cost is per *point* gets all pairs of the points it pays for, so it is asked about
u M candidates and all targets, up to `max_targets`: targets are few, and new ones are what students
fail at. `block` keeps to u N targets, as published; where the candidates are their own targets the
asked ones are both. `stratified` takes rows in the proportions of the clusters. A teacher that
scores rows alone (`pairwise` off) is asked about u M candidates. A larger u draws all that a
smaller one draws.

All leave aside audit rows that no training pair touches. Where the teacher is asked about little,
only some of them are audited: the audit takes at most `audit.max_share` of the calls. Which rows
are left aside does not depend on that, so a larger u audits all that a smaller one audits.
Quadrants by (candidate, target), ID = used in training: 1 (ID, ID) held out, 2 (ID, OOD),
3 (OOD, ID), 4 (OOD, OOD); 0 = training.
With u = 1 the teacher is asked about everything: no network is needed, and nothing is audited.

Where scores are given by a file (teachers/given_scores.py) the sample is what it scores, and the
scores lie beside it. The audit holds out some of them: whole candidates, of pairs also targets (if
the corpus has targets without a score) and single pairs, at most `audit.max_share` of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.config import SampleConfig
from engine.features.clusters import stratified

__all__ = [
    "Draw",
    "Hashes",
    "Rows",
    "Side",
    "design_of",
    "draw_pairs",
    "draw_points",
    "quadrants_of",
    "some_targets_each",
    "split_given",
]

Rows = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Unit = Literal["pair", "point"]


@dataclass(frozen=True)
class Draw:
    """The pairs to ask about, sorted by candidate, then target.

    Attributes:
        candidates, targets: row numbers, (n,) int64 each; targets are 0 for a teacher of rows.
        quadrant: 0 for training, 1..4 for the audit, (n,) int8.
    """

    candidates: Rows
    targets: Rows
    quadrant: NDArray[np.int8]

    def audit_share(self, unit: Unit, same_set: bool = False) -> float:
        """Of the teacher's calls the share that only the audit needs."""
        training = self.quadrant == 0
        if unit == "pair":
            return float(1 - training.mean()) if len(training) else 0.0
        both = self.candidates, self.targets
        asked, learned = (
            len(np.unique(np.concatenate([side[rows] for side in both])))
            if same_set
            else sum(len(np.unique(side[rows])) for side in both)
            for rows in (np.ones(len(training), bool), training)
        )
        return 1 - learned / asked if asked else 0.0


@dataclass(frozen=True)
class Side:
    """One side of the matrix: its hashes (n,), and the cluster of each row, (n,), if stratified."""

    hashes: Hashes
    strata: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.hashes)

    def ordered(self, rows: Rows) -> Rows:
        """Rows in the order in which a design takes them; they come sorted by hash."""
        return rows if self.strata is None else rows[stratified(self.strata[rows])]


def design_of(settings: SampleConfig, unit: Unit) -> str:
    """The design that is set, or the one that served teachers of this unit best."""
    return settings.design or ("scattered" if unit == "pair" else "stratified")


def draw_points(candidates: Side, settings: SampleConfig) -> Draw:
    """u M candidates for training, and unseen ones, as quadrant 4, for the audit."""
    count = len(candidates)
    by_hash = np.argsort(candidates.hashes)
    if settings.fraction == 1:
        return _sorted_draw(_with_target(by_hash), np.zeros(count, dtype=np.int8), False)
    left_aside = min(settings.audit.candidates, count // 4)
    pool = candidates.ordered(by_hash[: count - left_aside])
    asked = pool[: _share(settings.fraction, count)]
    num_audited, _ = _affordable(left_aside, 1, len(asked), settings, lambda rows, _: rows)
    audited = by_hash[count - num_audited :]
    quadrants = np.repeat(np.array([0, 4], dtype=np.int8), [len(asked), len(audited)])
    return _sorted_draw(_with_target(np.concatenate([asked, audited])), quadrants, False)


def draw_pairs(
    candidates: Side,
    targets: Side,
    settings: SampleConfig,
    unit: Unit = "pair",
    same_set: bool = False,
) -> Draw:
    """The design and the audit, for a teacher whose cost is per `unit`.

    With `same_set` the targets are the candidates themselves; a row is never paired with itself
    unless everything is asked, and the audit's rows are unseen on both sides. Sets too small for
    an audit get none.
    """
    num_candidates, num_targets = len(candidates), len(targets)
    by_hash_c, by_hash_t = np.argsort(candidates.hashes), np.argsort(targets.hashes)
    if settings.fraction == 1:
        pairs = _all_pairs(by_hash_c, by_hash_t)
        return _sorted_draw(pairs, np.zeros(len(pairs), dtype=np.int8), False)
    audit_candidates = min(settings.audit.candidates, num_candidates // 4)
    audit_targets = min(settings.audit.targets, num_targets // 4)
    height = _share(settings.fraction, num_targets)
    design = design_of(settings, unit)
    if unit == "point" and design != "block" and not same_set:
        height = min(num_targets, settings.max_targets)
        audit_targets = min(audit_targets, num_targets - height)
    unseen_c = by_hash_c[num_candidates - audit_candidates :]
    unseen_t = by_hash_t[num_targets - audit_targets :]
    pool_c = by_hash_c[: num_candidates - audit_candidates]
    pool_t = by_hash_t[: num_targets - audit_targets]
    if same_set:  # no row may be seen on one side and audited on the other
        pool_c = pool_c[~np.isin(pool_c, unseen_t)]
        pool_t = pool_t[~np.isin(pool_t, unseen_c)]
    pool_c, pool_t = candidates.ordered(pool_c), targets.ordered(pool_t)
    width = _share(settings.fraction, num_candidates)
    if design == "block" or unit == "point":
        pairs = _all_pairs(pool_c[:width], pool_t[:height])
    else:
        pairs = _scattered(pool_c, pool_t, width * height, settings, candidates)
    # of points that are paid for every pair is known: there is none to hold out
    held_out = settings.held_out if unit == "pair" or design == "block" else 0.0
    quadrants = [_hold_out(pairs, candidates.hashes, targets.hashes, held_out)]
    blocks = [pairs]
    # in the order of the pool: designs and fractions then share what they audit
    seen_c, seen_t = pool_c[np.isin(pool_c, pairs[:, 0])], pool_t[np.isin(pool_t, pairs[:, 1])]
    few = max(1, audit_targets // 2)
    num_held_out = int(quadrants[0].sum())

    def pair_calls(rows: int, columns: int) -> int:
        seen = min(len(seen_c), _half(rows)) * min(few, audit_targets)
        return num_held_out + seen + rows * (columns + min(len(seen_t), columns))

    if unit == "pair":
        trained = len(pairs) - num_held_out
        rows, columns = _affordable(audit_candidates, audit_targets, trained, settings, pair_calls)
        seen_c, seen_t = seen_c[: _half(rows)], seen_t[:columns]
    else:  # the points of training are paid for, and their pairs are free
        trained = len(np.union1d(seen_c, seen_t)) if same_set else len(seen_c) + len(seen_t)
        rows, columns = _affordable(audit_candidates, audit_targets, trained, settings, int.__add__)
        few, unseen_t = columns, _last(unseen_t, columns)
    audited_c, audited_t = _last(unseen_c, rows), _last(unseen_t, columns)
    # quadrants 3 and 4 are full blocks with the same candidates, so that their means compare
    for quadrant, block in (
        (2, some_targets_each(seen_c, unseen_t, few, candidates)),
        (3, _all_pairs(audited_c, seen_t)),
        (4, _all_pairs(audited_c, audited_t)),
    ):
        blocks.append(block)
        quadrants.append(np.full(len(block), quadrant, dtype=np.int8))
    return _sorted_draw(np.concatenate(blocks), np.concatenate(quadrants), same_set)


def _half(rows: int) -> int:
    return math.ceil(rows / 2)


def _last(rows: Rows, count: int) -> Rows:
    return rows[len(rows) - count :]


def _affordable(
    rows: int,
    columns: int,
    trained: int,
    settings: SampleConfig,
    calls: Callable[[int, int], int],
) -> tuple[int, int]:
    """How many candidates and targets can be audited, at most these and in proportion.

    `trained` is the number of calls that training takes, and `calls` says what an audit takes.
    """
    share = settings.audit.max_share
    most = trained * share / (1 - share) + 1e-9
    for part in range(rows, 0, -1):
        fewer = min(columns, max(1, round(columns * part / rows)))
        if calls(part, fewer) <= most:
            return part, fewer
    return 0, 0


def _share(fraction: float, count: int) -> int:
    return max(1, round(fraction * count))


def _with_target(rows: Rows) -> Rows:
    """(n, 2) pairs with the one target that stands for all."""
    return np.stack([rows, np.zeros_like(rows)], axis=1)


def _all_pairs(rows: Rows, columns: Rows) -> Rows:
    pairs = (np.repeat(rows, len(columns)), np.tile(columns, len(rows)))
    return np.stack(pairs, axis=1).astype(np.int64)


def _scattered(
    pool_c: Rows, pool_t: Rows, calls: int, settings: SampleConfig, candidates: Side
) -> Rows:
    per_candidate = min(settings.targets_per_candidate, len(pool_t))
    num_candidates = min(math.ceil(calls / max(per_candidate, 1)), len(pool_c))
    if num_candidates * per_candidate < calls:  # every candidate is in: ask more of each
        per_candidate = min(math.ceil(calls / max(num_candidates, 1)), len(pool_t))
    return some_targets_each(pool_c[:num_candidates], pool_t, per_candidate, candidates)[:calls]


def some_targets_each(rows: Rows, columns: Rows, per_row: int, candidates: Side) -> Rows:
    """For each candidate `per_row` distinct targets, (n, 2), drawn by its hash; all if no more.

    Of stratified targets a window is taken, which has their proportions like any other window.
    """
    count = len(columns)
    if count == 0 or len(rows) == 0:
        return np.empty((0, 2), dtype=np.int64)
    per_row = min(per_row, count)
    pairs = np.empty((len(rows), per_row, 2), dtype=np.int64)
    for position, row in enumerate(rows):
        generator = np.random.default_rng(int(candidates.hashes[row]))
        if candidates.strata is None:
            chosen = generator.choice(count, size=per_row, replace=False, shuffle=False)
        else:
            chosen = (generator.integers(count) + np.arange(per_row)) % count
        pairs[position, :, 0] = row
        pairs[position, :, 1] = columns[chosen]
    return pairs.reshape(-1, 2)


def _hold_out(pairs: Rows, of_c: Hashes, of_t: Hashes, share: float) -> NDArray[np.int8]:
    """Quadrant of each designed pair: 1 for a share of them chosen by hash, 0 for the rest."""
    mixed = of_c[pairs[:, 0]] * np.uint64(0x9E3779B97F4A7C15) ^ of_t[pairs[:, 1]]
    order = np.argsort(mixed * np.uint64(0xBF58476D1CE4E5B9), kind="stable")
    quadrant = np.zeros(len(pairs), dtype=np.int8)
    quadrant[order[: int(share * len(pairs))]] = 1
    return quadrant


def _sorted_draw(pairs: Rows, quadrants: NDArray[np.int8], same_set: bool) -> Draw:
    if same_set:
        other = pairs[:, 0] != pairs[:, 1]
        pairs, quadrants = pairs[other], quadrants[other]
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return Draw(pairs[order, 0], pairs[order, 1], quadrants[order])


def split_given(
    pairs: Rows, hashes: Sequence[Hashes], settings: SampleConfig, same_set: bool
) -> NDArray[np.bool_]:
    """Which of the pairs (n, 2), each there once, are for the audit, (n,).

    `hashes` are those of all rows of the candidates, and of the targets where these matter. Single
    pairs come first, then as many whole candidates and targets as `audit.max_share` bears.
    """
    pairwise = len(hashes) > 1
    single = np.zeros(len(pairs), dtype=bool)
    if pairwise:
        single = _hold_out(pairs, hashes[0], hashes[1], settings.held_out) == 1
    known = []
    for side, of_side in enumerate(hashes):
        distinct = np.unique(pairs[:, side])
        known.append(distinct[np.argsort(of_side[distinct])])
    rows, columns = min(settings.audit.candidates, len(known[0]) // 4), 0
    if pairwise and len(known[1]) < len(hashes[1]):  # else no target is new to the student
        columns = min(settings.audit.targets, len(known[1]) // 4)
    for part in range(rows, 0, -1):
        counts = part, min(columns, max(1, round(columns * part / rows)))
        unseen = [_last(side, count) for side, count in zip(known, counts, strict=False)]
        if same_set:  # no row may be seen on one side and audited on the other
            unseen = [np.union1d(*unseen)] * 2
        audit: NDArray[np.bool_] = single.copy()
        for side, some in enumerate(unseen):
            audit |= np.isin(pairs[:, side], some)
        if audit.mean() <= settings.audit.max_share:
            return audit
    return single


def quadrants_of(
    pairs: Rows, audit: NDArray[np.bool_], pairwise: bool, same_set: bool
) -> NDArray[np.int8]:
    """0 for training; of the audit's pairs which of their sides training has seen."""
    learned = pairs[~audit]
    of_sides = [learned.ravel()] * 2 if same_set else [learned[:, 0], learned[:, 1]]
    new = [~np.isin(pairs[:, side], seen) for side, seen in enumerate(of_sides)]
    if not pairwise:
        new[1][:] = True  # as the other teachers of rows have it: there is no target to know
    return np.where(audit, 1 + 2 * new[0] + new[1], 0).astype(np.int8)
