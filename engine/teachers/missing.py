"""What the store lacks of a sample, cut into pieces of work.

What goes through the model together is a function of the data: all pairs of a candidate are one
piece of work that is done as a whole or not at all, and so is a bucket of points (drawn by hash of
their content). So a killed run that goes on asks in the same batches, and gets the same bytes.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from engine.artifacts.files import digest
from engine.runtime.executor import Partition
from engine.teachers.store import PAIR_KEYS, Scope, known_features, known_pairs
from engine.teachers.teacher import Side

__all__ = [
    "PARTS_AIMED_AT",
    "POINTS_PER_BUCKET",
    "SMALLEST_PART",
    "missing_features",
    "missing_pairs",
]

POINTS_PER_BUCKET = 32
# Pairs are cut into about this many parts, so that a kill loses little and many actors have work;
# of cheap ones a part holds at least some, or its bookkeeping would cost more than they do.
PARTS_AIMED_AT = 256
SMALLEST_PART = 64


def missing_features(scope: Scope, sides: tuple[Side, ...]) -> list[Partition]:
    """Buckets of the points that the sample needs features of and the store has none of."""
    pairs = scope.pairs()
    partitions: list[Partition] = []
    planned: set[str] = set()
    for side in sides:
        known = set(known_features(scope, side)["key"].to_pylist())
        if scope.same_features:
            known |= planned
        wanted = _first_rows(pairs, side)
        planned |= wanted.keys()
        partitions += _plan_side(scope, side, wanted, known)
    return partitions


def _first_rows(pairs: pa.Table, side: Side) -> dict[str, int]:
    """One row for each content key: rows with the same texts are asked about once."""
    first = pairs.group_by(f"{side}_key").aggregate([(side, "min")])
    columns = (first[f"{side}_key"].to_pylist(), first[f"{side}_min"].to_pylist())
    return dict(zip(*columns, strict=True))


def _plan_side(
    scope: Scope, side: Side, wanted: dict[str, int], known: set[str]
) -> list[Partition]:
    num_buckets = max(1, -(-len(wanted) // POINTS_PER_BUCKET))
    buckets: dict[int, list[tuple[str, int]]] = {}
    for key, row in wanted.items():
        if key not in known:
            buckets.setdefault(int(key[:12], 16) % num_buckets, []).append((key, row))
    pieces = [sorted(buckets[number]) for number in sorted(buckets)]
    folder = scope.features_dir(side).relative_to(scope.directory).as_posix()
    return [_piece(folder, [key for key, _ in piece], piece, side) for piece in pieces]


def _piece(folder: str, keys: list[str], piece: list[tuple[str, int]], side: Side) -> Partition:
    payload = {"side": side, "rows": [row for _, row in piece]}
    return Partition(f"{folder}/{digest(keys)}.arrow", len(piece), payload)


def missing_pairs(scope: Scope) -> list[Partition]:
    """The pairs of the sample that the store lacks, some candidates a piece."""
    known = known_pairs(scope).select(PAIR_KEYS)
    missing = scope.pairs().join(known, keys=PAIR_KEYS, join_type="left anti")
    rows_of = [("candidate", "min"), ("target", "min")]
    missing = missing.group_by(PAIR_KEYS).aggregate(rows_of)
    missing = missing.sort_by([("candidate_min", "ascending"), ("target_min", "ascending")])
    candidates, starts = np.unique(missing["candidate_min"].to_numpy(), return_index=True)
    groups = np.split(missing["target_min"].to_numpy(), starts[1:]) if len(missing) else []
    target_keys, candidate_keys = missing["target_key"], missing["candidate_key"]
    folder = scope.relative(scope.pairs_dir.name)
    size = _candidates_per_part(len(candidates), len(missing))
    bounds = [*starts.tolist(), len(missing)]
    partitions = []
    for start in range(0, len(candidates), size):
        stop = min(start + size, len(candidates))
        first, last = bounds[start], bounds[stop]
        payload = {
            "candidates": candidates[start:stop].tolist(),
            "targets": [group.tolist() for group in groups[start:stop]],
        }
        names = [keys[first:last].to_pylist() for keys in (candidate_keys, target_keys)]
        partitions.append(Partition(f"{folder}/{digest(*names)}.parquet", last - first, payload))
    return partitions


def _candidates_per_part(num_candidates: int, num_pairs: int) -> int:
    most_parts = min(PARTS_AIMED_AT, max(1, num_pairs // SMALLEST_PART))
    return max(1, -(-num_candidates // most_parts))
