"""Sample: what the teacher is asked about, drawn by a design of `engine.teachers.designs`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.artifacts.files import atomic_path
from engine.artifacts.parts import finish_part
from engine.artifacts.rows import TableParts, VectorParts, id_hashes, target_side
from engine.artifacts.run_directory import Artifact
from engine.config import Config, GivenConfig
from engine.errors import SettingsError
from engine.features.clusters import clusters_of
from engine.runtime.executor import Executor
from engine.runtime.stage import Stage, StageContext, StageResult
from engine.teachers.designs import (
    Draw,
    Side,
    design_of,
    draw_pairs,
    draw_points,
    quadrants_of,
    split_given,
)
from engine.teachers.given_scores import GivenScores, content_of, given_scores, located
from engine.teachers.teacher import teacher_class
from engine.terminal.progress import say

__all__ = ["STAGE", "draw_given", "identity", "refuse_useless_scores", "run"]

MIN_TRAINING = 8  # of given scores; what `engine.network.training_set` learns from at least


def identity(config: Config) -> dict[str, Any]:
    """What of the teacher the draw depends on."""
    teacher = teacher_class(config.teacher.name)
    given = {"given": content_of(config.teacher)} if config.teacher.facts.is_given else {}
    return {"unit": teacher.unit, "pairwise": teacher.pairwise, **given}


def run(context: StageContext) -> StageResult:
    """Draw the pairs in a worker and write them as one table."""
    path, teacher = context.directory / "pairs.parquet", context.config.teacher
    given = located(teacher) if teacher.facts.is_given else None
    counts = context.executor.call(_draw, context, path, given)
    for remark in counts.get("remarks", ()):
        say(f"  sample: {remark}")
    if counts["audit_share"]:
        what = "the teacher's calls" if given is None else "the given scores"
        say(f"  sample: the audit takes {counts['audit_share']:.0%} of {what}")
    return StageResult(
        parts={"pairs": [finish_part(context.directory, path, counts["pairs"])]},
        counts=counts,
        columns={
            "candidate": "int64 row of the candidates",
            "target": "int64 row of the targets; 0 for a teacher that scores rows alone",
            "quadrant": "int8, 0 = training, 1..4 = audit",
            "score": "float32, of a teacher whose scores are given",
        },
    )


def _draw(context: StageContext, path: Path, given: GivenConfig | None) -> dict[str, Any]:
    settings, teacher = context.config.sample, teacher_class(context.config.teacher.name)
    if given is not None:
        found, draw, everything = draw_given(given, context.config, context.inputs["ingest"])
        _write(draw, path, score=found.scores)
        told = {**found.counts, "remarks": found.remarks}
        return _counts(draw, draw.audit_share("pair"), everything, teacher.pairwise) | told
    candidates, same_set = _side(context, "candidates"), False
    if teacher.pairwise:
        group = target_side(context.inputs["ingest"])
        same_set = group == "candidates"
        targets = candidates if same_set else _side(context, group)
        largest = int(context.config.influence.max_dense_gib * 2**28)
        if settings.fraction == 1 and len(candidates) * len(targets) > largest:
            raise SettingsError(
                f"sample.fraction 1 asks about {len(candidates)} x {len(targets)} pairs, more than "
                f"the {largest} that influence.max_dense_gib allows: ask about a share, or raise it"
            )
        draw = draw_pairs(candidates, targets, settings, teacher.unit, same_set)
    else:
        draw = draw_points(candidates, settings)
    _write(draw, path)
    share = draw.audit_share(teacher.unit, same_set)
    return _counts(draw, share, settings.fraction == 1, teacher.pairwise)


def _write(draw: Draw, path: Path, **columns: NDArray[np.float32]) -> None:
    pairs = {"candidate": draw.candidates, "target": draw.targets, "quadrant": draw.quadrant}
    with atomic_path(path) as temporary:
        pq.write_table(pa.table({**pairs, **columns}), temporary)


def _counts(draw: Draw, audit_share: float, everything: bool, pairwise: bool) -> dict[str, Any]:
    training = draw.quadrant == 0
    return {
        "pairs": len(draw.quadrant),
        "training_pairs": int(training.sum()),
        "training_candidates": len(np.unique(draw.candidates[training])),
        "training_targets": len(np.unique(draw.targets[training])),
        "audit_candidates": len(np.unique(draw.candidates[~training])),
        "audit_share": audit_share,
        "everything": everything,
        "pairwise": pairwise,
        **{f"audit_q{q}_pairs": int((draw.quadrant == q).sum()) for q in (1, 2, 3, 4)},
    }


def _side(context: StageContext, group: str) -> Side:
    """Hashes, and for the stratified design clusters, of the rows of one side."""
    corpus, seed = context.inputs["ingest"], context.config.seed
    hashes = id_hashes(TableParts(corpus, group), seed, group.removesuffix("s"))
    unit = teacher_class(context.config.teacher.name).unit
    if design_of(context.config.sample, unit) != "stratified":
        return Side(hashes)
    vectors = VectorParts(context.inputs["embed"], group)
    num_strata = context.config.sample.num_strata
    return Side(hashes, clusters_of(vectors, hashes, num_strata, seed)[0])


def refuse_useless_scores(config: Config, corpus: Artifact, executor: Executor) -> None:
    """Raise SettingsError for given scores of no use, before anything is embedded."""
    if config.teacher.facts.is_given:
        executor.call(_look_at_given, located(config.teacher), config, corpus)


def _look_at_given(given: GivenConfig, config: Config, corpus: Artifact) -> None:
    draw_given(given, config, corpus)


def draw_given(
    given: GivenConfig, config: Config, corpus: Artifact
) -> tuple[GivenScores, Draw, bool]:
    """What the file scores, which of it is learned, and whether it is everything there is.

    Of everything nothing is held out, as where a teacher is asked about everything; unless rows are
    owned, since what those do is told by a student. Raises SettingsError as `given_scores` does,
    and where too little is left to learn from.
    """
    pairwise = teacher_class(config.teacher.name).pairwise
    found = given_scores(given, pairwise, corpus)
    groups = ["candidates", *([target_side(corpus)] if pairwise else [])]
    sides = [TableParts(corpus, group) for group in groups]
    hashes = [
        id_hashes(side, config.seed, group.removesuffix("s"))
        for side, group in zip(sides, groups, strict=True)
    ]
    every, audit = math.prod(map(len, sides)), found.audit
    everything = len(found.pairs) == every <= int(config.influence.max_dense_gib * 2**28)
    everything = everything and audit is None and config.owned is None
    same_set = groups == ["candidates"] * 2
    if everything:
        audit = np.zeros(every, dtype=bool)
    elif audit is None:
        audit = split_given(found.pairs, hashes, config.sample, same_set)
    if (learned := int((~audit).sum())) < MIN_TRAINING:
        raise SettingsError(
            f"teacher.given.path: {given.path} scores {len(audit)} "
            f"{'pairs' if pairwise else 'rows'} of the corpus, {len(audit) - learned} of "
            f"them for the audit, and a student learns from at least {MIN_TRAINING}: score more"
        )
    quadrant = quadrants_of(found.pairs, audit, pairwise, same_set)
    return found, Draw(found.pairs[:, 0], found.pairs[:, 1], quadrant), everything


STAGE = Stage(
    name="sample",
    directory="3-sample",
    run=run,
    settings=("seed", "sample"),
    reads=("ingest", "embed"),
    version=4,
    identity=identity,
)
