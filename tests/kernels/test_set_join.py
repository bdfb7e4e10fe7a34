"""Exact joins of sets by Jaccard similarity, against all pairs."""

import random

import numpy as np
import pytest

from engine.kernels.set_join import best_match, build_table, count_members, join_leaders

SPREAD = 0x9E3779B97F4A7C15


def jaccard(one, other):
    return len(one & other) / len(one | other)


def packed(sets):
    starts = np.cumsum([0, *map(len, sets)]).astype(np.int64)
    members = [value for one in sets for value in sorted(one)]
    return np.array(members, dtype=np.uint64), starts


@pytest.fixture(scope="module")
def sets():
    """Families of sets that differ in a few members, some empty, and some equal."""
    draw, made = random.Random(3), []
    values = [v * SPREAD % 2**64 for v in range(1, 400)]
    for _ in range(40):
        seed = set(draw.sample(values, draw.randrange(1, 30)))
        for _ in range(draw.randrange(1, 6)):
            kept = {value for value in seed if draw.random() > 0.1}
            made.append(kept | set(draw.sample(values, draw.randrange(3))))
    made[5] = made[17] = set()
    draw.shuffle(made)
    return made


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 1.0])
@pytest.mark.parametrize("bits", [4, 16])  # the counts may be of other members too
def test_leaders_are_those_of_all_pairs(sets, threshold, bits):
    order = np.random.default_rng(1).permutation(len(sets)).astype(np.int64)
    kept, expected = [], np.arange(len(sets))
    for row in order.tolist():
        found = [k for k in kept if sets[row] and jaccard(sets[row], sets[k]) >= threshold - 1e-9]
        expected[row] = found[0] if found and sets[row] else row
        if not found:
            kept.append(row) if sets[row] else None
    counts = np.zeros(1 << bits, np.uint8)
    members, starts = packed(sets)
    count_members(members, counts)
    leader, similarity = join_leaders(members, starts, order, counts, threshold)
    assert leader.tolist() == expected.tolist()
    assert (leader != np.arange(len(sets))).sum() > (0 if threshold == 1.0 else 10)
    joined = np.flatnonzero(leader != np.arange(len(sets)))
    assert [jaccard(sets[r], sets[leader[r]]) for r in joined] == similarity[joined].tolist()


def test_only_the_rows_of_the_order_are_looked_at(sets):
    members, starts = packed(sets)
    counts = np.zeros(1 << 16, np.uint8)
    count_members(members, counts)
    order = np.arange(0, len(sets), 2)
    leader, _ = join_leaders(members, starts, order, counts, 0.5)
    odd = np.arange(1, len(sets), 2)
    assert (leader[odd] == odd).all() and set(leader[order].tolist()) <= set(order.tolist())


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 1.0])
def test_the_best_match_is_that_of_all_pairs(sets, threshold):
    fixed, rows = sets[:60], sets[60:]
    distinct = sorted(set().union(*fixed))
    having = [[n for n, one in enumerate(fixed) if value in one] for value in distinct]
    best, similarity = best_match(
        *packed(rows),
        *build_table(np.array(distinct, dtype=np.uint64)),
        np.array([n for group in having for n in group], dtype=np.int32),
        np.cumsum([0, *map(len, having)]).astype(np.int64),
        *packed(fixed),
        threshold,
    )
    for row, number, value in zip(rows, best.tolist(), similarity.tolist(), strict=True):
        alike = [jaccard(row, one) if row and one else 0.0 for one in fixed]
        expected = max(alike) if max(alike) >= threshold - 1e-9 else 0.0
        assert value == pytest.approx(expected)
        assert number == (alike.index(expected) if expected else -1)
    assert (best >= 0).any() and (best < 0).any()
