"""What costs nothing, beside the selection: the texts' plain cosine, the targets in turn.

On topics it is hard to beat (docs/negative_results.md), so it stands in every report: a selection
that is no better than this was not worth its teacher.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engine.artifacts.files import load_array, save_array
from engine.artifacts.rows import VectorParts
from engine.artifacts.run_directory import Artifact
from engine.kernels.product import Grid, product_block, unit_rows
from engine.selection.problem import Problem

__all__ = ["FREE", "write_free_alternative"]

FREE = "cosine_round_robin.npy"
BLOCK = 16_384  # candidates that are compared at a time


def write_free_alternative(
    problem: Problem, embeddings: Artifact, selected: Path, max_bytes: int, path: Path
) -> dict[str, Any]:
    """Write the rows that it picks, within the same limits; returns what the manifest says.

    `selected` is the file with the rows of the selection. Memory: 4 bytes for each pair of a
    candidate and a target; above `max_bytes` nothing is written, and the manifest says so. Cost: a
    matrix product, and the candidates' order for each target as far as it is needed.
    """
    candidates, targets = (VectorParts(embeddings, side) for side in ("candidates", "targets"))
    if 4 * len(candidates) * len(targets) > max_bytes:
        return {"free_alternative": None}
    columns = unit_rows(targets.all())
    grid = Grid.of(1.0, 1.0, candidates.dim)
    cosine = np.empty((len(candidates), len(targets)), dtype=np.float32)
    for start in range(0, len(candidates), BLOCK):
        stop = min(start + BLOCK, len(candidates))
        cosine[start:stop] = product_block(unit_rows(candidates.block(start, stop)), columns, grid)
    picks = problem.by_turns(cosine.T)
    save_array(path, picks)
    both = len(np.intersect1d(picks, load_array(selected)))
    return {"free_alternative": {"selected": len(picks), "in_both": both}}
