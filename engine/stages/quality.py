"""The quality gate of a run: sample, score, fit and predict for its teacher, then the judgement.

The stages are those of the main teacher with the gate's settings, on the same corpus and features.
Answers of both lie in one store, 4-teacher/store: the same teacher is never paid twice, whether it
is the main one or the gate's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from engine.config import Config
from engine.influence import predict_stage
from engine.progress import say
from engine.run_directory import Artifact, finish_part, load_array, read_json, read_table
from engine.selection.quality import judge
from engine.stage import Stage, StageContext, StageResult
from engine.stages import fit
from engine.teachers import sample, score
from engine.teachers.store import write_table

__all__ = ["QUALITY", "config_of_gate"]

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


def _of_gate(run: Callable[[StageContext], StageResult]) -> Callable[[StageContext], StageResult]:
    def run_for_gate(context: StageContext) -> StageResult:
        inputs = {name.removeprefix(_PREFIX): made for name, made in context.inputs.items()}
        # where the main teacher's answers are kept, whatever its own settings are
        home = Artifact(context.directory.parent / "4-teacher", {"fingerprint": ""})
        if run is score.run:
            inputs["run-score"] = home
        return run(replace(context, config=config_of_gate(context.config), inputs=inputs))

    return run_for_gate


def _identity_of_gate(
    identity: Callable[[Config], Mapping[str, Any]],
) -> Callable[[Config], Mapping[str, Any]]:
    return lambda config: identity(config_of_gate(config))


def run(context: StageContext) -> StageResult:
    """Judge every candidate by the gate's answers and predictions."""
    settings, inputs = context.config.quality, context.inputs
    assert settings is not None, "there is no gate"
    fitted = inputs["quality_fit"].counts
    trusted = bool(fitted["trusted"])
    reason = str(read_json(inputs["quality_fit"].path("fidelity"))["reasons"][0])
    path = context.directory / "judgement.parquet"
    counts = context.executor.call(_judge, dict(inputs), context.config, trusted, path)
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
            "student": fitted["student"],
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
    penalty = pa.nulls(len(predicted), pa.float64())
    columns = {
        "value": found.values,
        "asked": found.asked,
        "dropped": found.dropped,
        "penalty": penalty if found.penalty is None else found.penalty,
    }
    write_table(pa.table(columns), path)
    return {
        "rows": len(predicted),
        "asked": int(found.asked.sum()),
        "unscorable": len(labels) - int(np.isfinite(labels["score"].to_numpy()).sum()),
        "dropped": int(found.dropped.sum()),
        "dropped_asked": int((found.dropped & found.asked).sum()),
    }


# After predict, where `quality` is set; what their output depends on is in the gate's settings.
QUALITY: tuple[Stage, ...] = (
    Stage(
        "quality_sample",
        "3q-sample",
        _of_gate(sample.run),
        ("seed", "quality.sample"),
        ("ingest", "embed"),
        identity=_identity_of_gate(sample.identity),
    ),
    Stage(
        "quality_score",
        "4q-teacher",
        _of_gate(score.run),
        ("quality.teacher",),
        ("ingest", "embed", "quality_sample"),
        identity=_identity_of_gate(score.identity),
    ),
    Stage(
        "quality_fit",
        "5q-student",
        _of_gate(fit.run),
        ("seed", "features", "quality.student", "network"),
        ("embed", "quality_sample", "quality_score"),
    ),
    Stage(
        "quality_predict",
        "6q-influence",
        _of_gate(predict_stage.run),
        ("seed", "influence", "features"),
        ("ingest", "embed", "quality_sample", "quality_score", "quality_fit"),
    ),
    Stage(
        "quality",
        "6q-quality",
        run,
        ("quality",),
        ("quality_score", "quality_fit", "quality_predict"),
    ),
)
