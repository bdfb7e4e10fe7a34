"""Why each row was kept or dropped: one line for every candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.artifacts.files import atomic_path, read_table
from engine.artifacts.rows import TableParts
from engine.artifacts.run_directory import Artifact
from engine.kernels.arrays import DoubleArray, FloatArray, IndexArray
from engine.selection.nearest import read_nearest
from engine.selection.problem import Problem
from engine.selection.select import Selection

__all__ = ["COLUMNS", "Coverage", "write_explanations"]

COLUMNS = (
    "row, id; rank, gain and round of a selected row, else null; mean_influence; known_by: asked, "
    "where the teacher answered about the row at first, second look, where its answer was what "
    "counted, or predicted; gain_left: what the row would still add to the last round of the "
    "objective, null where that is not one of coverage; nearest and similarity: the selected row, "
    "other than itself, with the most similar embedding, and their cosine; covered_by and "
    "coverage: the selected row that covers it best in the objective's own kernel, where the rows "
    "to cover are the candidates; num_covered: of a selected row, the rows of the kernel that it "
    "covers best; num_nearest: and the dropped rows it is the nearest of; with a quality gate "
    "quality: the value of its teacher, quality_asked: whether that is an answer and no "
    "prediction, dropped_by_quality: whether the row was therefore not for selection"
)


@dataclass(frozen=True)
class Coverage:
    """How well the rows of the kernel are covered by a selection.

    Attributes:
        by: the pick that covers each row best, -1 for none, (R,).
        value: how well, (R,).
        gains_left: what each candidate would still add to the last round, (M,), or None.
        objective_value: of the selection, or None.
        at_least: share of the best possible objective that the selection has at least reached:
            f(OPT) <= f(A) + the B largest remaining gains (Nemhauser, Wolsey, Fisher 1978). None
            for objectives without gains left, and where the rows were covered more than once.
    """

    by: IndexArray
    value: FloatArray
    gains_left: DoubleArray | None
    objective_value: float | None
    at_least: float | None

    @classmethod
    def of(cls, problem: Problem, selection: Selection) -> Coverage | None:
        """Three or four passes over the kernel's files; None for an objective without a kernel."""
        if problem.kernel is None:
            return None
        picks, num_rounds = selection.ranking, int(selection.rounds.max(initial=1))
        by, covered = problem.coverage(picks)
        going_on = covered
        if num_rounds > 1:
            _, going_on = problem.coverage(picks[selection.rounds == num_rounds])
        left = problem.gains_left(going_on)
        value = problem.value(covered, picks)
        at_least = None
        once = num_rounds == 1 and problem.costs is None
        if left is not None and value is not None and once:
            others = np.delete(left, picks)
            most = (
                np.partition(others, -len(picks))[-len(picks) :]
                if len(picks) < len(others)
                else others
            )
            bound = value + float(most.sum())
            at_least = value / bound if bound > 0 else None
        return cls(by, covered, left, value, at_least)


def write_explanations(
    path: Path,
    corpus: Artifact,
    means: FloatArray,
    selection: Selection,
    coverage: Coverage | None,
    covers_candidates: bool,
    nearest: Sequence[Path],
    asked: IndexArray,
    looked_at: IndexArray,
    gate: Artifact | None,
) -> None:
    """Write the table of all candidates, in corpus order. Memory: some 100 bytes for each.

    `asked` are the rows that the teacher answered about at first, `looked_at` those of the second
    look, `gate` the judgement of the quality gate. `nearest` are the lists of
    `find_nearest`, each candidate's nearest selected row; none where nothing was selected.
    """
    num_candidates, ranking = len(means), selection.ranking
    selected = np.zeros(num_candidates, dtype=bool)
    selected[ranking] = True
    rank = np.zeros(num_candidates, dtype=np.int64)
    rank[ranking] = np.arange(1, len(ranking) + 1)
    gain = np.zeros(num_candidates)
    gain[ranking] = selection.gains
    round_of = np.zeros(num_candidates, dtype=np.int64)
    round_of[ranking] = selection.rounds
    ids, similarity = _nearest(nearest, num_candidates)
    alone = ids == np.arange(num_candidates)  # the only selected row has no other
    row_numbers = np.arange(num_candidates)
    known_by = np.where(np.isin(row_numbers, asked), "asked", "predicted").astype(object)
    known_by[looked_at] = "second look"
    columns: dict[str, pa.Array] = {
        "row": pa.array(row_numbers),
        "id": pa.chunked_array(
            [t["id"].combine_chunks() for t in TableParts(corpus, "candidates").iter_parts(["id"])]
        ),
        "rank": _where(selected, rank),
        "gain": _where(selected, gain),
        "round": _where(selected, round_of),
        "mean_influence": pa.array(means),
        "known_by": pa.array(known_by),
        "gain_left": pa.nulls(num_candidates, pa.float64()),
        "nearest": _where(~alone, ids),
        "similarity": _where(~alone, similarity),
        "covered_by": pa.nulls(num_candidates, pa.int64()),
        "coverage": pa.nulls(num_candidates, pa.float32()),
        "num_covered": pa.nulls(num_candidates, pa.int64()),
        "num_nearest": _where(
            selected, np.bincount(ids[~selected & ~alone], minlength=num_candidates)
        ),
    }
    if gate is not None:
        judged = read_table(gate.path("judgement"))
        columns["quality"] = judged["value"]
        columns["quality_asked"] = judged["asked"]
        columns["dropped_by_quality"] = judged["dropped"]
    if coverage is not None:
        covered = np.bincount(coverage.by[coverage.by >= 0], minlength=num_candidates)
        columns["num_covered"] = _where(selected, covered)
        if coverage.gains_left is not None:
            columns["gain_left"] = _where(~selected, coverage.gains_left)
        if covers_candidates:
            columns["covered_by"] = _where(coverage.by >= 0, coverage.by)
            columns["coverage"] = pa.array(coverage.value)
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def _nearest(files: Sequence[Path], num_candidates: int) -> tuple[IndexArray, FloatArray]:
    """The nearest selected row of each candidate; itself where nothing was selected."""
    if not files:
        return np.arange(num_candidates), np.zeros(num_candidates, dtype=np.float32)
    lists = [read_nearest(path) for path in files]
    ids = np.concatenate([found[:, 0] for found, _ in lists])
    return ids, np.concatenate([values[:, 0] for _, values in lists])


def _where(known: np.ndarray, values: np.ndarray) -> pa.Array:
    """The values, null where they are not known."""
    return pa.array(values, mask=~known)
