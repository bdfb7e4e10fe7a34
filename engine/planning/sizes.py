"""How many rows there are, and how many answers a teacher would be asked for: exact counts.

What is drawn is counted by the sample stage's own functions. The clusters of a stratified design
change which rows are drawn and not how many, so no embedding is needed for it; only a teacher paid
by the pair may then have some more or fewer different targets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from engine.artifacts.rows import TableParts, id_hashes, target_side
from engine.artifacts.run_directory import Artifact
from engine.config import Config
from engine.selection.prepare import num_to_select
from engine.stages.quality import config_of_gate
from engine.stages.sample import draw_given
from engine.teachers.designs import Draw, Side, design_of, draw_pairs, draw_points
from engine.teachers.given_scores import located
from engine.teachers.teacher import teacher_class

__all__ = ["Asked", "Sizes", "asked_for", "sizes_of"]


@dataclass(frozen=True)
class Sizes:
    """Rows of a run: of each side, to embed, to select, and the bytes of their texts on disk."""

    candidates: int
    targets: int
    rows: int
    selected: int
    text_bytes: int


@dataclass(frozen=True)
class Asked:
    """What a teacher is asked for.

    Attributes:
        answers: of each kind, `candidate`, `target`, `pair`.
        calls: of them, those that a model answers.
        prepared: rows of its preparation.
        training: labels that the student learns from; 0 when everything is asked.
        learned: rows that it has answers of, on both sides.
        second_look: what it is asked for again, of each kind, beyond `answers` and `calls`.
        columns: N, 1 for a teacher that scores rows alone.
        gate: what the teacher of the quality gate is asked for, if there is one that costs.
    """

    answers: dict[str, int]
    calls: int
    prepared: int
    training: int
    columns: int
    learned: int = 0
    second_look: Mapping[str, int] = field(default_factory=dict)
    gate: Asked | None = None

    @property
    def everything(self) -> bool:
        return not self.training


def sizes_of(config: Config, corpus: Artifact) -> Sizes:
    """Read from the manifest of a corpus."""
    sides = [s for s in ("candidates", "targets", "owned") if s in corpus.manifest["parts"]]
    rows = {side: sum(part.rows for part in corpus.parts(side)) for side in sides}
    size = sum(
        (corpus.directory / part.path).stat().st_size for s in sides for part in corpus.parts(s)
    )
    candidates = rows["candidates"]
    return Sizes(
        candidates,
        rows.get("targets", candidates),
        sum(rows.values()),
        num_to_select(config.selection, candidates),
        size,
    )


def asked_for(config: Config, corpus: Artifact) -> tuple[Asked, Asked]:
    """Answers for the sample of the settings, and for everything; those of the gate in both.

    Rows with the same texts are asked about once, as the score stage does. Memory: a number for
    each row and each pair of the sample.
    """
    if config.quality is not None and not config.quality.teacher.facts.from_embeddings:
        gate, _ = asked_for(config_of_gate(config), corpus)
        found, full = asked_for(config.model_copy(update={"quality": None}), corpus)
        return replace(found, gate=gate), replace(full, gate=gate)
    kind, sample = teacher_class(config.teacher.name), config.sample
    if config.teacher.facts.is_given:
        return _given(config, corpus)
    rows = TableParts(corpus, "candidates")
    design = design_of(sample, kind.unit)
    candidates = _side(id_hashes(rows, config.seed, "candidate"), design)
    keys = {"candidate": _content_numbers(rows)}
    own, columns = False, 1
    targets = candidates
    if kind.pairwise:
        group = target_side(corpus)
        own = group == "candidates"
        columns_of = TableParts(corpus, group)
        if not own:
            targets = _side(id_hashes(columns_of, config.seed, group.removesuffix("s")), design)
        keys["target"] = keys["candidate"] if own else _content_numbers(columns_of)
        columns = len(targets)
    whole = {side: np.unique(numbers) for side, numbers in keys.items()}
    full = _asked(config, whole, math.prod(map(len, whole.values())), len(candidates), 0, columns)
    if sample.fraction == 1:
        return full, full
    draw = draw_points(candidates, sample)
    if kind.pairwise:
        draw = draw_pairs(candidates, targets, sample, kind.unit, own)
    drawn = {"candidate": draw.candidates, "target": draw.targets}
    asked = {side: numbers[drawn[side]] for side, numbers in keys.items()}
    distinct = len(np.unique(np.stack(list(asked.values())), axis=1).T)
    asked = {side: np.unique(numbers) for side, numbers in asked.items()}
    training = int((draw.quadrant == 0).sum())
    found = _asked(config, asked, distinct, len(candidates), training, columns)
    again = _asked_again(config, len(candidates), found, columns)
    return replace(found, learned=_learned(draw, kind.pairwise), second_look=again), full


def _learned(draw: Draw, pairwise: bool) -> int:
    training = draw.quadrant == 0
    sides = (draw.candidates, draw.targets) if pairwise else (draw.candidates,)
    return sum(len(np.unique(side[training])) for side in sides)


def _given(config: Config, corpus: Artifact) -> tuple[Asked, Asked]:
    """Nobody is asked; of everything neither."""
    pairwise = teacher_class(config.teacher.name).pairwise
    _, draw, everything = draw_given(located(config.teacher), config, corpus)
    training = 0 if everything else int((draw.quadrant == 0).sum())
    columns = len(TableParts(corpus, target_side(corpus))) if pairwise else 1
    nothing = Asked({}, 0, 0, 0, columns)
    return replace(nothing, training=training, learned=_learned(draw, pairwise)), nothing


def _asked_again(config: Config, count: int, asked: Asked, columns: int) -> dict[str, int]:
    """Answers of the second look: the asked rows are taken to be in it as often as others."""
    settings, kind = config.selection, teacher_class(config.teacher.name)
    if not settings.second_look:
        return {}
    rows = min(count, math.ceil(settings.second_look * num_to_select(settings, count)))
    fresh = round(rows * (1 - min(1.0, asked.answers.get("candidate", 0) / count)))
    answers = {"candidate": fresh} if "candidate" in kind.feature_sides else {}
    if kind.unit == "pair":
        answers["pair"] = rows * min(settings.second_look_targets, columns)
    return answers


def _side(hashes: NDArray[np.uint64], design: str) -> Side:
    """A side whose rows are all of one cluster, where the design has clusters."""
    return Side(hashes, np.zeros(len(hashes), np.int64) if design == "stratified" else None)


def _content_numbers(rows: TableParts) -> NDArray[np.uint64]:
    """A number (n,) for the texts of each row: the same for the same texts."""
    pieces = [
        np.fromiter((int(key[:16], 16) for key in table["key"].to_pylist()), np.uint64, len(table))
        for table in rows.iter_parts(["key"])
    ]
    return np.concatenate(pieces)


def _asked(
    config: Config,
    points: Mapping[str, NDArray[np.uint64]],
    pairs: int,
    num_candidates: int,
    training: int,
    columns: int,
) -> Asked:
    kind = teacher_class(config.teacher.name)
    share = kind.preparation_share(config.teacher)
    prepared = max(2, round(share * num_candidates)) if share else 0
    answers = {str(side): len(points[side]) for side in kind.feature_sides if side in points}
    if kind.same_features and "target" in answers:  # a row that is on both sides is asked once
        both = np.intersect1d(points["candidate"], points["target"])
        answers["target"] -= len(both)
    if kind.pairwise and kind.vector_similarity(config.teacher) is None:
        answers["pair"] = pairs
    calls = sum(n for name, n in answers.items() if name != "pair" or kind.unit == "pair")
    return Asked(answers, calls, prepared, training, columns)
