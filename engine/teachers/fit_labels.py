"""Labels of teacher `fit`: cosines of embeddings that the embed stage has; nobody is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from engine.artifacts.rows import VectorParts
from engine.artifacts.run_directory import Artifact
from engine.features.rows import group_of
from engine.kernels.arrays import FloatArray, IndexArray
from engine.teachers.store import Scope, write_table

__all__ = ["cosines", "write_fit_labels"]

_ROWS_AT_A_TIME = 65_536
_NO_VECTOR = "prompt or response has no embedding"


def write_fit_labels(scope: Scope, embeddings: Artifact, path: Path) -> dict[str, int]:
    """The sample with the scores of its candidates; returns counts."""
    pairs = scope.pairs()
    groups = [group_of("candidates", source) for source in ("prompt", "response")]
    sides = [VectorParts(embeddings, group) for group in groups]
    rows: IndexArray = pairs["candidate"].to_numpy()
    scores = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _ROWS_AT_A_TIME):
        some = rows[start : start + _ROWS_AT_A_TIME]
        scores[start : start + len(some)] = cosines(*(side.take(some) for side in sides))
    known = np.isfinite(scores)
    labels = pairs.select(["candidate", "target", "quadrant"])
    labels = labels.append_column("score", pa.array(scores))
    problems = pa.array([None if there else _NO_VECTOR for there in known], pa.string())
    write_table(labels.append_column("problem", problems).combine_chunks(), path)
    return {"pairs": len(rows), "unscorable": int((~known).sum())}


def cosines(prompts: FloatArray, responses: FloatArray) -> FloatArray:
    """Of rows of two matrices (n, D), in float64, rounded once; NaN beside a vector of length 0."""
    left, right = prompts.astype(np.float64), responses.astype(np.float64)
    products = np.einsum("nd,nd->n", left, right)
    lengths = np.sqrt(np.einsum("nd,nd->n", left, left) * np.einsum("nd,nd->n", right, right))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(products / lengths, np.float32)
