"""Labels of a teacher whose score is the similarity of two vectors: no pair is ever asked about.

What was paid for are the vectors, in the store; pairs are a product of them, made anew for each
sample. So is the centre: the mean vector of the candidates that the sample asks about for training,
which is taken off all vectors first, if it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather

from engine.artifacts.files import atomic_path, load_array, save_array
from engine.artifacts.rows import as_lists
from engine.errors import InputError
from engine.kernels.arrays import FloatArray, IndexArray
from engine.kernels.similarity import similarities
from engine.teachers.store import SIDES, Scope, stored_features, stored_problems, write_table
from engine.teachers.teacher import Side, VectorSimilarity

__all__ = ["write_vector_labels"]

_PAIRS_AT_A_TIME = 65_536
_AT_THE_CENTRE = "its vector is that of the mean candidate"


def write_vector_labels(
    scope: Scope, similarity: VectorSimilarity, paths: Mapping[str, Path], centre: Path | None
) -> dict[str, int]:
    """Write labels, the vectors of both sides, and the centre where `paths` has one; counts.

    `centre` is an earlier one to keep to. Memory: the vectors of the sample.
    """
    pairs = scope.pairs()
    rows, vectors, problems, places = {}, {}, {}, {}
    for side in SIDES:
        rows[side], first, places[side] = np.unique(
            pairs[side].to_numpy(), return_index=True, return_inverse=True
        )
        keys = pairs[f"{side}_key"].take(pa.array(first)).to_pylist()
        vectors[side], problems[side] = _vectors(scope, side, keys)
    if "centre" in paths:
        learned = np.unique(places["candidate"][pairs["quadrant"].to_numpy() == 0])
        middle = load_array(centre) if centre else _mean(vectors["candidate"][learned])
        vectors = {side: values - middle for side, values in vectors.items()}
        save_array(paths["centre"], middle)
    scores = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), _PAIRS_AT_A_TIME):
        some = slice(start, start + _PAIRS_AT_A_TIME)
        left, right = (vectors[side][places[side][some]] for side in SIDES)
        scores[some] = similarities(left, right, similarity)
    told = np.full(len(pairs), None, object)
    for row in np.flatnonzero(~np.isfinite(scores)).tolist():
        c, t = (places[side][row] for side in SIDES)
        told[row] = problems["candidate"][c] or problems["target"][t] or _AT_THE_CENTRE
    labels = pairs.select(["candidate", "target", "quadrant"])
    labels = labels.append_column("score", pa.array(scores))
    labels = labels.append_column("problem", pa.array(told, pa.string()))
    write_table(labels.combine_chunks(), paths["labels"])
    counts = {"pairs": len(pairs), "unscorable": int((~np.isfinite(scores)).sum())}
    for side in SIDES:
        counts[f"vectors_{side}"] = _write(rows[side], vectors[side], paths[f"vectors-{side}"])
    return counts


def _vectors(scope: Scope, side: Side, keys: list[str]) -> tuple[FloatArray, list[str | None]]:
    """The stored vectors (n, V) of some rows, NaN where there is none, and why."""
    if not keys:
        return np.empty((0, 1), np.float32), []
    stored = stored_features(scope, side, keys)
    why = stored_problems(scope, side, keys)
    return np.stack([stored[key] for key in keys]).astype(np.float32), [why[key] for key in keys]


def _mean(vectors: FloatArray) -> FloatArray:
    known = vectors[np.isfinite(vectors).all(axis=1)]
    if not len(known):
        raise InputError(
            "the teacher could score none of the sampled candidates (4-teacher/store says why): "
            "there is nothing to learn from"
        )
    return np.asarray(known.mean(axis=0, dtype=np.float64), np.float32)


def _write(rows: IndexArray, vectors: FloatArray, path: Path) -> int:
    known = np.isfinite(vectors).all(axis=1)
    table = pa.table({"row": rows[known], "vector": as_lists(vectors[known])})
    with atomic_path(path) as temporary:  # uncompressed, so that readers can map it
        pyarrow.feather.write_feather(table, str(temporary), compression="uncompressed")
    return int(known.sum())
