"""The quality gate of a run: sample, score, fit and predict for its teacher, then the judgement.

The stages are those of the main teacher with the gate's settings, on the same corpus and features.
Answers of both lie in one store, 4-teacher/store: the same teacher is never paid twice, whether it
is the main one or the gate's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from engine.artifacts.files import load_array, read_json, read_table
from engine.artifacts.parts import finish_part
from engine.artifacts.rows import VectorParts
from engine.artifacts.run_directory import Artifact
from engine.config import Config
from engine.features.feature import Source
from engine.features.rows import group_of
from engine.runtime.stage import Stage, StageContext, StageResult
from engine.selection.quality import Judgement, judge, judge_more
from engine.stages import fit, predict, sample, score
from engine.teachers.fit_labels import cosines
from engine.teachers.store import write_table
from engine.terminal.progress import say

__all__ = ["QUALITY", "config_of_gate", "quality_of_new_rows"]

_PREFIX = "quality_"


def config_of_gate(config: Config) -> Config:
    """The settings of a run whose teacher is the gate's; it has no targets."""
    gate = config.quality
    assert gate is not None, "there is no gate"
    alone = {"target": None, "owned": None, "quality": None}
    no_subtasks = config.influence.model_copy(update={"subtask_column": None})
    return config.model_copy(
        update={
            **alone,
            "teacher": gate.teacher,
            "sample": gate.sample,
            "student": gate.student,
            "influence": no_subtasks,
        }
    )


def run(context: StageContext) -> StageResult:
    """Judge every candidate by the gate's answers and predictions."""
    settings, inputs = context.config.quality, context.inputs
    assert settings is not None, "there is no gate"
    fitted = inputs["quality_fit"].counts
    trusted = bool(fitted["trusted"])
    reason = str(read_json(inputs["quality_fit"].path("fidelity"))["reasons"][0])
    path = context.directory / "judgement.parquet"
    counts = context.executor.call(_judge, dict(inputs), context.config, trusted, path)
    return _told(context, path, counts, trusted, fitted["student"], reason)


def _told(
    context: StageContext,
    path: Path,
    counts: dict[str, int],
    trusted: bool,
    student: str,
    reason: str,
) -> StageResult:
    settings = context.config.quality
    assert settings is not None, "there is no gate"
    teacher = settings.teacher.name
    said = "" if trusted else f"; not trusted: {reason}"
    if not trusted and settings.untrusted != "all":
        told = "only rows that it was asked about are judged"
        said += f"; {told if settings.untrusted == 'asked' else 'nothing is dropped'}"
    say(f"  quality: {teacher}: {settings.rule}: {counts['dropped']} of {counts['rows']}{said}")
    return StageResult(
        parts={"judgement": [finish_part(context.directory, path, counts["rows"])]},
        counts={
            **counts,
            "teacher": teacher,
            "student": student,
            "trusted": trusted,
            "reason": reason,
            "rule": settings.rule,
            "weighs": settings.weight is not None,
            "untrusted": settings.untrusted,
        },
        columns={
            "value": f"float32, {teacher}: its answer, else what is predicted",
            "asked": "whether it is an answer",
            "dropped": "whether the row is not for selection",
            "penalty": "float64, standard deviations of the mean influence that the row's "
            "influence is lowered by, or null",
        },
    )


def _judge(
    inputs: dict[str, Artifact], config: Config, trusted: bool, path: Path
) -> dict[str, int]:
    assert config.quality is not None, "there is no gate"
    predicted = load_array(inputs["quality_predict"].path("means"))
    labels = read_table(inputs["quality_score"].path("labels"), columns=["candidate", "score"])
    answers = np.full(len(predicted), np.nan, np.float32)
    answers[labels["candidate"].to_numpy()] = labels["score"].to_numpy()
    found = judge(answers, predicted, config.quality, trusted)
    return _written(found, len(labels) - int(np.isfinite(labels["score"].to_numpy()).sum()), path)


def _written(found: Judgement, unscorable: int, path: Path) -> dict[str, int]:
    """Write a judgement; returns its counts."""
    penalty = pa.nulls(len(found.values), pa.float64())
    columns = {
        "value": found.values,
        "asked": found.asked,
        "dropped": found.dropped,
        "penalty": penalty if found.penalty is None else found.penalty,
    }
    write_table(pa.table(columns), path)
    return {
        "rows": len(found.values),
        "asked": int(found.asked.sum()),
        "unscorable": unscorable,
        "dropped": int(found.dropped.sum()),
        "dropped_asked": int((found.dropped & found.asked).sum()),
    }


def _for_gate(stage: Stage, directory: str, *more: str) -> Stage:
    """A stage of the pipeline with the gate's settings, on the gate's artifacts."""

    def run_for_gate(context: StageContext) -> StageResult:
        inputs = {name.removeprefix(_PREFIX): made for name, made in context.inputs.items()}
        if stage is score.STAGE:  # where the main teacher's answers are, whatever its settings
            home = context.directory.parent / stage.directory
            inputs["run-score"] = Artifact(home, {"fingerprint": ""})
        return stage.run(replace(context, config=config_of_gate(context.config), inputs=inputs))

    return Stage(
        name=f"{_PREFIX}{stage.name}",
        directory=directory,
        run=run_for_gate,
        settings=tuple(f"quality.{n}" if n in _OWN else n for n in stage.settings),
        reads=tuple(f"{_PREFIX}{n}" if n in _MADE else n for n in (*stage.reads, *more)),
        version=stage.version,
        identity=lambda config: stage.identity(config_of_gate(config)),
    )


_OWN = ("sample", "teacher", "student")  # sections that the gate has too
_MADE = ("sample", "score", "fit")

# After predict, where `quality` is set.
QUALITY: tuple[Stage, ...] = (
    _for_gate(sample.STAGE, "3q-sample"),
    _for_gate(score.STAGE, "4q-teacher", "embed"),
    _for_gate(fit.STAGE, "5q-student"),
    _for_gate(predict.STAGE, "6q-influence"),
    Stage(
        name="quality",
        directory="6q-quality",
        run=run,
        settings=("quality",),
        reads=("quality_score", "quality_fit", "quality_predict"),
    ),
)


# --- new rows of a finished run -------------------------------------------------------------------


def quality_of_new_rows(config: Config) -> tuple[Stage, ...]:
    """The stages that judge new rows by the run's gate, its student frozen; nobody is asked."""
    gate = config.quality
    if gate is None:
        return ()
    judgement = replace(
        QUALITY[-1],
        run=_run_of_new_rows,
        reads=("ingest", "embed", *(f"run-{stage.name}" for stage in QUALITY)),
    )
    if gate.teacher.facts.from_embeddings:
        return (judgement,)
    predicting = replace(
        QUALITY[3],
        run=_predict_new_rows,
        reads=("ingest", "embed", *(f"run-{stage.name}" for stage in QUALITY[:4])),
    )
    return predicting, replace(judgement, reads=(*judgement.reads, predicting.name))


def _predict_new_rows(context: StageContext) -> StageResult:
    given = {name: context.inputs[name] for name in ("ingest", "embed")}
    of_run = {n: context.inputs[f"run-{_PREFIX}{n}"] for n in ("sample", "score", "fit")}
    inputs = {**given, **of_run, "base": context.inputs[f"run-{_PREFIX}predict"]}
    return predict.run(replace(context, config=config_of_gate(context.config), inputs=inputs))


def _run_of_new_rows(context: StageContext) -> StageResult:
    """Judge the new rows as those of the run were."""
    before = context.inputs["run-quality"].counts
    path = context.directory / "judgement.parquet"
    counts = context.executor.call(
        _judge_new_rows, dict(context.inputs), context.config, bool(before["trusted"]), path
    )
    return _told(context, path, counts, before["trusted"], before["student"], before["reason"])


def _judge_new_rows(
    inputs: dict[str, Artifact], config: Config, trusted: bool, path: Path
) -> dict[str, int]:
    assert config.quality is not None, "there is no gate"
    table = read_table(inputs["run-quality"].path("judgement"))
    value, asked, dropped, penalty = (table[name].to_numpy() for name in table.column_names)
    known = Judgement(value, asked, dropped, penalty)
    is_free = config.quality.teacher.facts.from_embeddings
    if is_free:
        sides = (VectorParts(inputs["embed"], group_of("candidates", s)) for s in _ROW)
        values = cosines(*(side.take(np.arange(len(side))) for side in sides))
    else:
        values = load_array(inputs["quality_predict"].path("means"))
    found = judge_more(values, is_free, known, config.quality, trusted)
    return _written(found, int((~np.isfinite(values)).sum()), path)


_ROW: tuple[Source, ...] = ("prompt", "response")
