"""The second look: the teacher is asked about the best candidates, and has the last word on them.

A student orders the pool well and its top less well: there the differences are small. So the best
`selection.second_look` budgets of candidates are a shortlist (`shortlist`), the teacher answers
about all of it (`ask`), and the select stage selects again among these rows alone, answers against
answers. Asking about some and not about others would favour those that were asked: predictions
shrink towards the mean and answers do not (docs/negative_results.md).

Of a teacher of pairs a few targets of each candidate are asked about. The rest of its row is the
prediction, shifted by what the answers lie above theirs on average.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.artifacts.files import atomic_path, load_array, map_table, read_table, save_array
from engine.artifacts.parts import finish_part
from engine.artifacts.rows import TableParts, as_lists, id_hashes, target_side
from engine.artifacts.run_directory import Artifact
from engine.config import Config, SelectionConfig
from engine.errors import SettingsError
from engine.kernels.aggregation import max_of_group_means
from engine.kernels.arrays import FloatArray, IndexArray
from engine.runtime.stage import Stage, StageContext, StageResult
from engine.selection.prepare import num_to_select, prepare
from engine.stages import score, select
from engine.stages.named_columns import subtasks_of
from engine.stages.select import PICKS, SELECTED, rank
from engine.teachers.designs import Side, some_targets_each
from engine.teachers.teacher import teacher_class

__all__ = ["ask", "num_to_look_at", "refuse_too_many", "shortlist"]

SHORTLIST = "shortlist.npy"


def num_to_look_at(settings: SelectionConfig, num_candidates: int) -> int:
    """Rows of the shortlist."""
    return math.ceil(settings.second_look * num_to_select(settings, num_candidates))


def refuse_too_many(config: Config, num_candidates: int) -> None:
    """Raise SettingsError for a second look at more rows than there are, before it is paid."""
    settings = config.selection
    if not settings.second_look or settings.max_tokens is not None:
        return
    wanted = num_to_look_at(settings, num_candidates)
    if wanted > num_candidates:
        raise SettingsError(
            f"selection.second_look {settings.second_look:g} asks about {wanted:,} rows, and the "
            f"corpus has {num_candidates:,}: lower it, or ask about everything with "
            "sample.fraction 1"
        )


def shortlist(context: StageContext) -> StageResult:
    """Rank more than the budget by the prediction, and write what to ask about them."""
    settings = context.config.selection
    count = context.inputs["predict"].counts["candidates"]
    longer: dict[str, Any] = {"budget": min(count, num_to_look_at(settings, count))}
    if settings.max_tokens is not None:
        longer["max_tokens"] = math.ceil(settings.second_look * settings.max_tokens)
    if settings.quotas is not None:
        longer["quotas"] = settings.quotas.times(settings.second_look)
    config = context.config.model_copy(update={"selection": settings.model_copy(update=longer)})
    own = replace(context, config=config)
    prepared = prepare(own)
    rank(own, prepared.problem)
    path = context.directory / "pairs.parquet"
    counts = context.executor.call(_write_pairs, own, path)
    parts = {"pairs": [finish_part(context.directory, path, counts["pairs"])]}
    rows = context.directory / SELECTED
    picks = context.directory / PICKS
    parts["picks"] = [finish_part(context.directory, picks, counts["shortlist"])]
    parts["shortlist"] = [finish_part(context.directory, rows, counts["shortlist"])]
    return StageResult(
        parts={**prepared.parts, **parts},
        counts=counts,
        columns={
            "pairs.parquet": "candidate, target int64, quadrant int8 (0): what the teacher is "
            "asked about",
            "selected.npy": "int64 (S,): rows of the shortlist, ascending",
            "picks.parquet": "row, gain, round of each, best first: the budget's first of them are "
            "the selection without a second look",
        },
    )


def _write_pairs(context: StageContext, path: Path) -> dict[str, int]:
    """Each row of the shortlist with the targets that were paid for, or with some of all."""
    inputs, config = context.inputs, context.config
    teacher = teacher_class(config.teacher.name)
    rows: IndexArray = load_array(context.directory / SELECTED)
    if teacher.pairwise and teacher.unit == "pair":
        corpus, seed = inputs["ingest"], config.seed
        columns = np.arange(len(TableParts(corpus, target_side(corpus))))
        candidates = Side(id_hashes(TableParts(corpus, "candidates"), seed, "candidate"))
        pairs = some_targets_each(rows, columns, config.selection.second_look_targets, candidates)
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    else:
        asked = read_table(inputs["score"].path("labels"), columns=["target"])["target"].to_numpy()
        columns = np.unique(asked)
        sides = np.repeat(rows, len(columns)), np.tile(columns, len(rows))
        pairs = np.stack(sides, axis=1)
    table = pa.table(
        {
            "candidate": pairs[:, 0],
            "target": pairs[:, 1],
            "quadrant": np.zeros(len(pairs), np.int8),
        }
    )
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
    return {"shortlist": len(rows), "pairs": len(pairs)}


def ask(context: StageContext) -> StageResult:
    """Ask about the shortlist, remembering what was answered before; write the answers.

    Resumable like the score stage, whose store it fills; charged for what the first sample was not.
    """
    inputs = context.inputs
    asking = {
        "ingest": inputs["ingest"],
        "sample": inputs["shortlist"],
        "first-sample": inputs["sample"],
        "run-ingest": inputs["ingest"],
        "run-score": inputs["score"],
    }
    asked = score.run(replace(context, inputs=asking))
    paths = {
        name: context.directory / file
        for name, file in (
            ("answers", "answers.arrow"), ("means", "means.npy"), ("shortlist", SHORTLIST)
        )
    }  # fmt: skip
    told = context.executor.call(
        _write_answers, dict(inputs), context.directory, context.config, paths
    )
    rows = {"answers": told["targets"], "means": told["candidates"], "shortlist": told["shortlist"]}
    own = {name: [finish_part(context.directory, path, rows[name])] for name, path in paths.items()}
    return StageResult(
        parts={**asked.parts, **own},
        counts={**asked.counts, **told},
        usage=asked.usage,
        columns={
            **asked.columns,
            "answers.arrow": "per target the shortlist, best first: ids int64[S], influence "
            "float32[S], the teacher's or, where it was not asked, the shifted prediction",
            "means.npy": "float32 (M,): of the shortlist by these, of other rows as predicted",
            SHORTLIST: "int64 (S,): rows, ascending",
        },
        models=asked.models,
    )


def _write_answers(
    inputs: dict[str, Artifact], directory: Path, config: Config, paths: dict[str, Path]
) -> dict[str, int]:
    rows: IndexArray = load_array(inputs["shortlist"].path("shortlist"))
    labels = read_table(directory / "labels.parquet", columns=["candidate", "target", "score"])
    predict = inputs["predict"]
    num_targets = predict.counts["targets"]
    answers = np.full((len(rows), num_targets), np.nan, np.float32)
    places = np.searchsorted(rows, labels["candidate"].to_numpy()), labels["target"].to_numpy()
    answers[places] = labels["score"].to_numpy()
    matrix = completed(answers, _predicted(predict, rows))
    means = np.array(load_array(predict.path("means")), np.float32)
    groups = subtasks_of(inputs["ingest"], config.influence.subtask_column, num_targets)
    means[rows] = max_of_group_means(matrix, groups).astype(np.float32)
    save_array(paths["means"], means)
    save_array(paths["shortlist"], rows)
    order = np.argsort(-matrix.T, axis=1, kind="stable")
    values = np.take_along_axis(matrix.T, order, axis=1)
    table = pa.table({"ids": as_lists(rows[order]), "influence": as_lists(values)})
    with atomic_path(paths["answers"]) as temporary:  # uncompressed, so that readers can map it
        pyarrow.feather.write_feather(table, str(temporary), compression="uncompressed")
    return {"shortlist": len(rows), "targets": num_targets, "candidates": len(means)}


def completed(answers: FloatArray, predicted: FloatArray) -> FloatArray:
    """Answers (S, N) with what is missing (NaN) as predicted, shifted as the row's answers are.

    A row without any answer keeps the prediction.
    """
    known = np.isfinite(answers)
    if known.all():
        return answers
    above = np.where(known, answers - predicted, 0).sum(axis=1, dtype=np.float64)
    shift = above / np.maximum(known.sum(axis=1), 1)
    return np.where(known, answers, predicted + shift[:, None]).astype(np.float32)


def _predicted(predict: Artifact, rows: IndexArray) -> FloatArray:
    """The prediction (S, N) of some candidates.

    Of a target whose list does not have a candidate, that is the least that it lists.
    """
    kind = predict.counts["kernel"]
    paths = [predict.directory / part.path for part in predict.parts(kind)]
    if kind == "dense":
        pieces, start = [], 0
        for path in paths:
            block: NDArray[np.float32] = load_array(path, mmap_mode="r")
            inside = rows[(rows >= start) & (rows < start + len(block))]
            pieces.append(block[inside - start])
            start += len(block)
        return np.concatenate(pieces)
    found = []
    for path in paths:
        table = map_table(path)
        for ids, values in zip(table.column(0), table.column(1), strict=True):
            listed, influence = ids.values.to_numpy(), values.values.to_numpy()
            column = np.full(len(rows), influence.min(), np.float32)
            place = np.minimum(np.searchsorted(rows, listed), len(rows) - 1)
            there = rows[place] == listed
            column[place[there]] = influence[there]
            found.append(column)
    return np.stack(found, axis=1)


# Between predict and select, where `selection.second_look` asks for them.
SECOND_LOOK: tuple[Stage, ...] = (
    Stage(
        name="shortlist",
        directory="6a-shortlist",
        run=shortlist,
        settings=("seed", "selection", "influence.neighbours"),
        reads=("ingest", "embed", "score", "predict"),
        identity=select.STAGE.identity,
    ),
    Stage(
        name="second_look",
        directory="6b-second-look",
        run=ask,
        settings=("teacher", "influence.subtask_column"),
        reads=("ingest", "sample", "score", "predict", "shortlist"),
        identity=score.STAGE.identity,
    ),
)
