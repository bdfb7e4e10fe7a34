"""Sample: which pairs the teacher is asked about, for training and for the audit.

Rows are drawn by a hash of their id, so the draw does not depend on files, parts or workers. Two
designs spend the same number of teacher calls:

    block       all pairs of u M candidates and u N targets, as published
    scattered   as many pairs, `targets_per_candidate` for each of more candidates, over all
                targets; still grouped by candidate, so that a teacher's prefix cache pays

and both leave aside audit rows that no training pair touches. Quadrants by (candidate, target),
ID = used in training: 1 (ID, ID) held out, 2 (ID, OOD), 3 (OOD, ID), 4 (OOD, OOD); 0 = training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.actors import run_task
from engine.artifact_rows import TableParts, target_side
from engine.config import SampleConfig
from engine.example import order_hash
from engine.run_directory import atomic_path, finish_part
from engine.stage import StageContext, StageResult

__all__ = ["Draw", "draw_pairs", "run"]

Rows = NDArray[np.int64]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Draw:
    """The pairs to ask about, sorted by candidate, then target.

    Attributes:
        candidates, targets: row numbers, (n,) int64 each.
        quadrant: 0 for training, 1..4 for the audit, (n,) int8.
    """

    candidates: Rows
    targets: Rows
    quadrant: NDArray[np.int8]


def run(context: StageContext) -> StageResult:
    """Draw the pairs in a worker and write them as one table."""
    path = context.directory / "pairs.parquet"
    draw_and_write = (context.inputs["ingest"].directory, path, context.config.sample)
    counts = run_task(_draw, context, *draw_and_write)
    return StageResult(
        parts={"pairs": [finish_part(context.directory, path, counts["pairs"])]},
        counts=counts,
        columns={
            "candidate": "int64 row of the candidates",
            "target": "int64 row of the targets",
            "quadrant": "int8, 0 = training, 1..4 = audit",
        },
    )


def _draw(
    context: StageContext, corpus_dir: Path, path: Path, settings: SampleConfig
) -> dict[str, int]:
    corpus, seed = context.inputs["ingest"], context.config.seed
    candidates = _id_hashes(TableParts(corpus, "candidates"), seed, "candidate")
    same_set = target_side(corpus) == "candidates"
    targets = candidates if same_set else _id_hashes(TableParts(corpus, "targets"), seed, "target")
    draw = draw_pairs(candidates, targets, settings, same_set)
    table = pa.table(
        {"candidate": draw.candidates, "target": draw.targets, "quadrant": draw.quadrant}
    )
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
    training = draw.quadrant == 0
    return {
        "pairs": len(draw.quadrant),
        "training_pairs": int(training.sum()),
        "training_candidates": len(np.unique(draw.candidates[training])),
        "training_targets": len(np.unique(draw.targets[training])),
        **{f"audit_q{q}_pairs": int((draw.quadrant == q).sum()) for q in (1, 2, 3, 4)},
    }


def _id_hashes(rows: TableParts, seed: int, side: str) -> Hashes:
    pieces = [
        np.fromiter(
            (order_hash(seed, side, i) for i in table["id"].to_pylist()),
            dtype=np.uint64,
            count=len(table),
        )
        for table in rows.iter_parts(["id"])
    ]
    return np.concatenate(pieces)


def draw_pairs(
    candidate_hashes: Hashes, target_hashes: Hashes, settings: SampleConfig, same_set: bool = False
) -> Draw:
    """The design and the audit, from the (M,) and (N,) hashes of the ids.

    With `same_set` the targets are the candidates themselves; a row is never paired with itself,
    and the audit's rows are unseen on both sides. Sets too small for an audit get none.
    """
    num_candidates, num_targets = len(candidate_hashes), len(target_hashes)
    audit_candidates = min(settings.audit.candidates, num_candidates // 4)
    audit_targets = min(settings.audit.targets, num_targets // 4)
    by_hash_c, by_hash_t = np.argsort(candidate_hashes), np.argsort(target_hashes)
    unseen_c = by_hash_c[num_candidates - audit_candidates :]
    unseen_t = by_hash_t[num_targets - audit_targets :]
    pool_c = by_hash_c[: num_candidates - audit_candidates]
    pool_t = by_hash_t[: num_targets - audit_targets]
    if same_set:  # no row may be seen on one side and audited on the other
        pool_c = pool_c[~np.isin(pool_c, unseen_t)]
        pool_t = pool_t[~np.isin(pool_t, unseen_c)]
    width, height = (
        _share(settings.fraction, num_candidates),
        _share(settings.fraction, num_targets),
    )
    design = _block if settings.design == "block" else _scattered
    pairs = design(pool_c, pool_t, width, height, settings, candidate_hashes)
    quadrants = [_hold_out(pairs, candidate_hashes, target_hashes, settings.held_out)]
    blocks = [pairs]
    # in the order of their hashes: designs and fractions then share what they audit
    seen_c, seen_t = pool_c[np.isin(pool_c, pairs[:, 0])], pool_t[np.isin(pool_t, pairs[:, 1])]
    # quadrants 3 and 4 are full blocks with the same candidates, so that their means compare
    for quadrant, rows, columns, per_row in (
        (2, seen_c[: max(1, audit_candidates // 2)], unseen_t, max(1, audit_targets // 2)),
        (3, unseen_c, seen_t[:audit_targets], audit_targets),
        (4, unseen_c, unseen_t, audit_targets),
    ):
        block = _some_targets_each(rows, columns, per_row, candidate_hashes)
        blocks.append(block)
        quadrants.append(np.full(len(block), quadrant, dtype=np.int8))
    return _sorted_draw(np.concatenate(blocks), np.concatenate(quadrants), same_set)


def _share(fraction: float, count: int) -> int:
    return max(1, round(fraction * count))


def _block(
    pool_c: Rows, pool_t: Rows, width: int, height: int, settings: SampleConfig, hashes: Hashes
) -> Rows:
    return _some_targets_each(pool_c[:width], pool_t[:height], height, hashes)


def _scattered(
    pool_c: Rows, pool_t: Rows, width: int, height: int, settings: SampleConfig, hashes: Hashes
) -> Rows:
    calls = width * height
    per_candidate = min(settings.targets_per_candidate, len(pool_t))
    num_candidates = min(math.ceil(calls / max(per_candidate, 1)), len(pool_c))
    if num_candidates * per_candidate < calls:  # every candidate is in: ask more of each
        per_candidate = min(math.ceil(calls / max(num_candidates, 1)), len(pool_t))
    pairs = _some_targets_each(pool_c[:num_candidates], pool_t, per_candidate, hashes)
    return pairs[:calls]


def _some_targets_each(rows: Rows, columns: Rows, per_row: int, hashes: Hashes) -> Rows:
    """For each candidate `per_row` distinct targets, (n, 2); all of them when there are no more.

    A walk through the columns from a start and with a stride that the candidate's hash gives:
    without repetition, without an M x N table.
    """
    count = len(columns)
    if count == 0 or len(rows) == 0:
        return np.empty((0, 2), dtype=np.int64)
    per_row = min(per_row, count)
    pairs = np.empty((len(rows), per_row, 2), dtype=np.int64)
    for position, row in enumerate(rows):
        generator = np.random.default_rng(int(hashes[row]))
        chosen = generator.choice(count, size=per_row, replace=False, shuffle=False)
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
