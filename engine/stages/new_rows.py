"""Sample of a small audit: new rows for a finished run, which its network never met.

The teacher is asked about some new rows with targets that training knew (quadrant 3) and with
others (quadrant 4); a teacher that scores rows alone about the rows. Drawn by hash of the ids.
Where the run's scores were given by a file there is nobody to ask, and nothing is audited.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.artifacts.files import atomic_path, read_table
from engine.artifacts.parts import finish_part
from engine.artifacts.rows import TableParts, id_hashes, target_side
from engine.runtime.stage import Stage, StageContext, StageResult
from engine.terminal.progress import say

__all__ = ["STAGE", "run"]


def run(context: StageContext) -> StageResult:
    """Draw the pairs; new candidates are numbered after those of the run."""
    path = context.directory / "pairs.parquet"
    counts = context.executor.call(_draw, context, path)
    if context.config.teacher.facts.is_given:
        say("  sample: the scores of the run were given: nobody can be asked about new rows")
    return StageResult(
        parts={"pairs": [finish_part(context.directory, path, counts["pairs"])]},
        counts=counts,
        columns={
            "candidate": "int64 row, after the candidates of the run",
            "target": "int64 row of the targets; 0 for a teacher that scores rows alone",
            "quadrant": "int8, 3 = target known from training, 4 = unknown",
        },
    )


def _draw(context: StageContext, path: Path) -> dict[str, int]:
    settings, seed = context.config.drift, context.config.seed
    count = 0 if context.config.teacher.facts.is_given else settings.audit_candidates
    known, new = context.inputs["run-ingest"], context.inputs["ingest"]
    pairwise = bool(context.inputs["run-sample"].counts["pairwise"])
    hashes = id_hashes(TableParts(new, "candidates"), seed, "candidate")
    drawn = np.argsort(hashes)[:count]
    rows = np.sort(drawn) + len(TableParts(known, "candidates"))
    targets, quadrants = np.zeros(1, dtype=np.int64), np.full(1, 4, dtype=np.int8)
    if pairwise:
        targets, quadrants = _targets(context, settings.audit_targets)
    table = pa.table(
        {
            "candidate": np.repeat(rows, len(targets)),
            "target": np.tile(targets, len(rows)),
            "quadrant": np.tile(quadrants, len(rows)),
        }
    )
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
    return {"pairs": len(table), "candidates": len(rows)}


def _targets(context: StageContext, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets of both kinds, half and half where so many are unseen, and the quadrant of each."""
    known, seed = context.inputs["run-ingest"], context.config.seed
    side = target_side(known)
    hashes = id_hashes(TableParts(known, side), seed, side.removesuffix("s"))
    asked = read_table(context.inputs["run-score"].path("labels"))
    training = asked["target"].to_numpy()[asked["quadrant"].to_numpy() == 0]
    order = np.argsort(hashes)
    unseen = order[~np.isin(order, training)][: count // 2]
    seen = order[np.isin(order, training)][: count - len(unseen)]
    chosen = np.concatenate((seen, unseen))
    quadrants = np.repeat(np.array([3, 4], dtype=np.int8), [len(seen), len(unseen)])
    by_row = np.argsort(chosen)
    return chosen[by_row], quadrants[by_row]


STAGE = Stage(
    name="sample",
    directory="3-sample",
    run=run,
    settings=("seed", "drift"),
    reads=("ingest",),
    version=1,
)
