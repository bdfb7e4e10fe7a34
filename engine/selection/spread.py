"""Whether influence tells targets apart: coverage has nothing to work with otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.artifacts.files import load_array, map_table
from engine.artifacts.rows import as_matrix
from engine.kernels.arrays import IndexArray

__all__ = ["Spread", "spread"]

ADDITIVE, FEW_BEST = 0.99, 0.05  # share of the variance; distinct best candidates per target


@dataclass(frozen=True)
class Spread:
    """How much of the influence is that of a pair, and not of a candidate or a target alone.

    Attributes:
        additive_share: of the variance, what candidates' means and targets' means explain; None
            where only the best candidates of each target are known, or all is the same.
        distinct_best: candidates that are the best for some target.
        num_targets: N.
    """

    additive_share: float | None
    distinct_best: int
    num_targets: int

    @property
    def tells_targets_apart(self) -> bool:
        """Whether coverage of the targets means more than the best by mean influence."""
        if self.additive_share is not None and self.additive_share > ADDITIVE:
            return False
        return self.distinct_best > max(1.0, FEW_BEST * self.num_targets)

    def sentence(self) -> str:
        """What it means, for log and report."""
        share = ""
        if self.additive_share is not None:
            share = (
                f"row and column effects alone are {self.additive_share:.1%} of the variance of "
                "the predicted influence; "
            )
        best = f"{self.distinct_best:,} candidates are the best for one of {self.num_targets:,}"
        best += " targets"
        if self.tells_targets_apart:
            return f"{share}{best}"
        return (
            f"{share}{best}: the targets are hardly told apart, so covering them is little more "
            "than taking the best by mean influence"
        )


def spread(kind: str, paths: Sequence[Path], num_targets: int) -> Spread:
    """Read the influence once, in its files: dense (m, N), or lists of each target's best."""
    if kind != "dense":
        best = [as_matrix(map_table(path).column(0))[:, 0] for path in paths]
        return Spread(None, len(np.unique(np.concatenate(best))), num_targets)
    row_means, of_best = [], np.full(num_targets, -np.inf)
    best_rows: IndexArray = np.zeros(num_targets, dtype=np.int64)
    sums, squares, shift, start = np.zeros(num_targets), 0.0, None, 0
    for path in paths:
        block = load_array(path, mmap_mode="r").astype(np.float64)
        if shift is None:
            shift = float(block.mean())  # sums of squares then lose no digits
        block -= shift
        row_means.append(block.mean(axis=1))
        sums += block.sum(axis=0)
        squares += float(np.square(block).sum())
        place = block.argmax(axis=0)
        values = block[place, np.arange(num_targets)]
        better = values > of_best
        best_rows[better], of_best[better] = place[better] + start, values[better]
        start += len(block)
    means = np.concatenate(row_means)
    mean = float(means.mean())
    whole = squares - start * num_targets * mean**2
    rows = num_targets * np.square(means - mean).sum()
    columns = start * np.square(sums / start - mean).sum()
    tiny = 1e-12 * max(squares, 1e-300)
    share = None if whole <= tiny else min(1.0, float((rows + columns) / whole))
    return Spread(share, len(np.unique(best_rows)), num_targets)
