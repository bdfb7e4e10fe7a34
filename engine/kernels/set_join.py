"""Sets that are alike, found without comparing all pairs: exact joins by Jaccard similarity.

J(A, B) = |A and B| / |A or B|. Two sets with J >= t share one of the rarest |S| - ceil(t |S|) + 1
members of each (the prefix filter of Bayardo, Ma and Srikant, "Scaling up all pairs similarity
search", WWW 2007, 3.2, with the sizes of Jaccard as in Xiao et al., "Efficient similarity joins for
near-duplicate detection", WWW 2008). So only sets that share a rare member are compared, and no
pair is missed: MinHash would find the same pairs with a probability below 1.

    count_members  how often members occur, at least: what makes them rare
    join_leaders   rows in an order of preference: each joins the first kept row like it, or is kept
    best_match     each row against few fixed sets: the most similar one

Sets are ascending uint64, one after the other, `starts` (rows + 1,) telling where.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels.compiled import compiled
from engine.kernels.words import Hashes, Starts

__all__ = ["best_match", "build_table", "count_members", "find_members", "join_leaders"]

_SLACK = 1e-9  # of a threshold that is no binary fraction


def build_table(distinct: Hashes) -> tuple[Hashes, NDArray[np.int32]]:
    """A hash table of distinct values: slots for `find_members`, and the number of each value."""
    size = 1 << max(4, (2 * len(distinct)).bit_length())
    keys, values = np.zeros(size, np.uint64), np.full(size, -1, np.int32)
    _fill_table(distinct, keys, values)
    return keys, values


@compiled()
def count_members(members: Hashes, counts: NDArray[np.uint8]) -> None:
    """Add members to counts (2^b,), by their lowest b bits; what reaches 255 stays there."""
    mask = np.uint64(len(counts) - 1)
    for member in members:
        slot = member & mask
        if counts[slot] < 255:
            counts[slot] += 1


@compiled()
def _slot(keys: Hashes, values: NDArray[np.int32], member: np.uint64) -> Any:
    """Where a member is, or would be."""
    mask = np.uint64(len(keys) - 1)
    slot = (member >> np.uint64(20)) & mask
    while values[slot] != -1 and keys[slot] != member:
        slot = (slot + np.uint64(1)) & mask
    return slot


@compiled()
def _fill_table(distinct: Hashes, keys: Hashes, values: NDArray[np.int32]) -> None:
    for number in range(len(distinct)):
        slot = _slot(keys, values, distinct[number])
        keys[slot], values[slot] = distinct[number], number


@compiled()
def find_members(members: Hashes, keys: Hashes, values: NDArray[np.int32]) -> NDArray[np.int32]:
    """The number of each member in a table, -1 where it is not there."""
    out = np.empty(len(members), np.int32)
    for place in range(len(members)):
        out[place] = values[_slot(keys, values, members[place])]
    return out


@compiled()
def _num_shared(one: Hashes, other: Hashes, threshold: float) -> int:
    """How many members two sets share, 0 once too few are left for J >= threshold."""
    needed = np.ceil(threshold / (1 + threshold) * (len(one) + len(other)) - _SLACK)
    i, j, shared = 0, 0, 0
    while i < len(one) and j < len(other):
        if shared + min(len(one) - i, len(other) - j) < needed:
            return 0
        if one[i] == other[j]:
            shared += 1
            i += 1
            j += 1
        elif one[i] < other[j]:
            i += 1
        else:
            j += 1
    return shared


@compiled()
def _prefix(size: int, threshold: float) -> Any:
    """How many of its rarest members a set shares one of with every set that is like it."""
    return size - np.int64(np.ceil(threshold * size - _SLACK)) + 1


@compiled()
def _rarest(row: Hashes, counts: NDArray[np.uint8], threshold: float) -> NDArray[np.int64]:
    """Positions of those members, without the ones that no other row has."""
    mask = np.uint64(len(counts) - 1)
    often = np.empty(len(row), np.uint8)
    for place in range(len(row)):
        often[place] = counts[row[place] & mask]
    order = np.argsort(often, kind="mergesort")[: _prefix(len(row), threshold)]
    return order[often[order] > 1]


@compiled()
def join_leaders(
    members: Hashes,
    starts: Starts,
    order: NDArray[np.int64],
    counts: NDArray[np.uint8],
    threshold: float,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows in an order: each joins the earliest kept row with J >= threshold, or is kept.

    Args:
        order: the rows to look at, the one that is preferred first; all others stay themselves.
        counts: of `count_members` over all rows.

    Returns the kept row that each row joined, itself where it is kept, and J with it (1 for
    itself). An empty set is always kept. Every row that is not kept has a kept one that is like it,
    which connected components would not give; the order decides what is kept, and nothing else.
    Time: about the pairs that share a rare member; memory: 8 bytes a rare member of a kept row.
    """
    num_rows = len(starts) - 1
    total = 0
    for row in order:
        total += _prefix(starts[row + 1] - starts[row], threshold)
    size = 16
    while size < 2 * total:
        size *= 2
    keys, heads = np.zeros(size, np.uint64), np.full(size, -1, np.int32)
    following, holder = np.empty(total, np.int32), np.empty(total, np.int32)
    num_entries = 0
    rank = np.empty(num_rows, np.int64)
    rank[order] = np.arange(len(order))
    leader, similarity = np.arange(num_rows), np.ones(num_rows)
    seen = np.full(num_rows, -1, np.int64)  # the last row that looked at this one
    for row in order:
        own = members[starts[row] : starts[row + 1]]
        if len(own) == 0:
            continue
        rarest = _rarest(own, counts, threshold)
        best, best_similarity = np.int64(-1), 1.0
        for place in rarest:
            entry = heads[_slot(keys, heads, own[place])]
            while entry != -1:
                other = np.int64(holder[entry])
                entry = following[entry]
                if seen[other] == row or (best != -1 and rank[best] < rank[other]):
                    continue
                seen[other] = row
                theirs = members[starts[other] : starts[other + 1]]
                small, large = min(len(own), len(theirs)), max(len(own), len(theirs))
                if small < threshold * large - _SLACK:
                    continue
                shared = _num_shared(own, theirs, threshold)
                found = shared / (small + large - shared)
                if found >= threshold - _SLACK:
                    best, best_similarity = other, found
        if best != -1:
            leader[row], similarity[row] = best, best_similarity
            continue
        for place in rarest:
            slot = _slot(keys, heads, own[place])
            keys[slot] = own[place]
            holder[num_entries], following[num_entries] = row, heads[slot]
            heads[slot] = num_entries
            num_entries += 1
    return leader, similarity


@compiled()
def best_match(
    members: Hashes,
    starts: Starts,
    keys: Hashes,
    values: NDArray[np.int32],
    holders: NDArray[np.int32],
    holder_starts: Starts,
    fixed: Hashes,
    fixed_starts: Starts,
    threshold: float,
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The most similar of N fixed sets for each row, -1 where none has J >= threshold.

    Args:
        keys, values: of `build_table` over the distinct members of the fixed sets.
        holders, holder_starts: the fixed sets that have member i, by its number in the table.
        fixed, fixed_starts: the fixed sets.

    Returns its number (the lowest of equals) and J. A row of which less than threshold is in any of
    the sets costs one look-up a member; others are compared with the sets that share a rare one.
    """
    num_rows = len(starts) - 1
    best, similarity = np.full(num_rows, -1, np.int32), np.zeros(num_rows)
    seen = np.full(len(fixed_starts) - 1, -1, np.int64)  # the last row that looked at this set
    for row in range(num_rows):
        own = members[starts[row] : starts[row + 1]]
        found, num_missing = np.empty(len(own), np.int32), 0
        prefix = _prefix(len(own), threshold)
        for place in range(len(own)):
            value = values[_slot(keys, values, own[place])]
            if value == -1:
                num_missing += 1
                if num_missing >= prefix:  # too few are left to reach the threshold
                    break
            else:
                found[place - num_missing] = value
        if len(own) == 0 or num_missing >= prefix:
            continue
        found = found[: len(own) - num_missing]
        often = holder_starts[found + 1] - holder_starts[found]
        for value in found[np.argsort(often, kind="mergesort")[: prefix - num_missing]]:
            for other in holders[holder_starts[value] : holder_starts[value + 1]]:
                if seen[other] == row:
                    continue
                seen[other] = row
                theirs = fixed[fixed_starts[other] : fixed_starts[other + 1]]
                small, large = min(len(own), len(theirs)), max(len(own), len(theirs))
                if small < threshold * large - _SLACK:
                    continue
                shared = _num_shared(own, theirs, threshold)
                alike = shared / (small + large - shared)
                if alike >= threshold - _SLACK and (
                    alike > similarity[row] or (alike == similarity[row] and other < best[row])
                ):
                    best[row], similarity[row] = other, alike
    return best, similarity
