"""The arms of an evaluation: who chooses the subset, and what a model makes of it.

    RUN/1-corpus 2-embeddings          of the candidates and targets, shared by all arms
    RUN/evaluation/
        teachers/NAME/store/           every answer of a teacher, shared by the arms that ask it
        subsets/ARM-SEED/3-sample ... 7-selection      a subset, by the pipeline's own stages
        1-test 2-adapters 3-answers 4-grades 5-results

The arm of a teacher asks it about everything, that of the network about `sample.fraction`; both
ask through one store, so nothing is paid twice. `Random` and the other baselines
(engine/selection/baselines.py) have as many rows as the others select.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.artifacts.files import atomic_path, digest
from engine.artifacts.parts import finish_part
from engine.artifacts.rows import TableParts, VectorParts, id_hashes, read_extra
from engine.artifacts.run_directory import Artifact, RunDirectory
from engine.config import (
    ArmKind,
    Config,
    DuplicatesConfig,
    TeacherConfig,
    load_config,
    parse_config,
)
from engine.errors import SettingsError
from engine.evaluation import answer, fine_tune, grade, results
from engine.evaluation.cells import Cell
from engine.evaluation.judge import RUBRIC_VERSION
from engine.evaluation.text_metrics import TEXT_METRICS, added_metrics
from engine.features.rows import group_of
from engine.models.resolve import model_identity
from engine.runtime.executor import Executor
from engine.runtime.opening import ExecutorChoice, opened
from engine.runtime.stage import Stage, StageContext, StageResult
from engine.runtime.workflow import do_stage, plan_stages, refuse_other_settings
from engine.selection import baselines
from engine.selection.prepare import num_to_select
from engine.stages import ingest
from engine.stages.pipeline import STAGES, run, stages_of
from engine.terminal.progress import say

__all__ = ["Arm", "answer_stages", "arms_of", "evaluate"]

FOLDER = "evaluation"
# Arms that ask nobody, in the order of the table; "Full" comes last.
ALONE: dict[ArmKind, str] = {
    "initial": "Initial (zero-shot)",
    "random": "Random",
    "balanced": "Random, balanced",
    "length": "Longest",
    "perplexity_middle": "Middle perplexity",
    "perplexity_top": "Top perplexity",
    "bm25": "BM25",
    "bm25_round_robin": "BM25, in turn",
    "tf_idf": "TF-IDF",
    "tf_idf_round_robin": "TF-IDF, in turn",
    "cosine": "Cosine, in turn",
}
_RDS = "RDS+, in turn"
_READING = "reading"
_ASKING = ("sample", "score", "fit", "predict", "select")


@dataclass(frozen=True)
class Arm:
    """Who chooses the rows.

    Attributes:
        name: in the table.
        kind: as in the settings.
        teacher: whom it asks, if anybody.
        fraction: of the points that the teacher is asked about.
    """

    name: str
    kind: ArmKind
    teacher: TeacherConfig | None = None
    fraction: float = 1.0

    @property
    def has_subset(self) -> bool:
        return self.kind != "initial"


def arms_of(config: Config) -> list[Arm]:
    """The arms that the settings ask for, in the order of the table."""
    settings = config.evaluation
    assert settings is not None
    arms = [Arm(name, kind) for kind, name in ALONE.items() if kind in settings.arms]
    teachers = settings.teachers or (config.teacher,)
    if "rds" in settings.arms:
        arms.append(Arm(_RDS, "rds", _rds(config, teachers)))
    for teacher in teachers:
        name = teacher.facts.label
        if "teacher" in settings.arms:
            arms.append(Arm(name, "teacher", teacher))
        if "small" in settings.arms and settings.small_model is not None:
            small = teacher.model_copy(update={"model": settings.small_model})
            arms.append(Arm(f"small {name}", "small", small))
        if "network" in settings.arms:
            arms.append(Arm(f"NN+{name}", "network", teacher, config.sample.fraction))
    return arms + ([Arm("Full", "full")] if "full" in settings.arms else [])


def _rds(config: Config, teachers: Sequence[TeacherConfig]) -> TeacherConfig:
    """RDS+ as the settings have it, else with the language model of the first teacher with one."""
    for teacher in teachers:
        if teacher.name == "rds":
            return teacher
    return _reader(config, teachers).model_copy(update={"name": "rds"})


def _reader(config: Config, teachers: Sequence[TeacherConfig]) -> TeacherConfig:
    """Whose language model reads rows: a teacher's, or the evaluated one where they have none."""
    for teacher in (config.teacher, *teachers):
        if teacher.facts.reads_language_model:
            return teacher
    assert config.evaluation is not None
    return TeacherConfig(name="rds", model=config.evaluation.model)


def evaluate(
    config: Config | Path | str,
    *,
    run_dir: Path | str | None = None,
    overwrite: bool = False,
    executor: ExecutorChoice = None,
) -> RunDirectory:
    """Select with every arm, train and show, answer, grade, compare; returns RUN/evaluation.

    Args:
        config: settings with an `evaluation` section, or the YAML file that holds them.
        run_dir: in place of the config's.
        overwrite: redo what was made with other settings, instead of stopping.
        executor: as of `run`.

    May be killed at any moment and started again. Cost: each teacher asked about everything (once,
    whatever number of seeds), one training per arm and seed, one pass over each prompt and its
    answer. Raises SettingsError without an `evaluation` section, and otherwise what the stages
    raise.
    """
    config = config if isinstance(config, Config) else load_config(Path(config))
    if config.evaluation is None:
        raise SettingsError("nothing to evaluate on: set evaluation.test.path")
    if config.sample.fraction == 1 and "network" in config.evaluation.arms:
        raise SettingsError("sample.fraction 1 leaves nothing for the network: set it below 1")
    _refuse_baselines(config)
    for arm in arms_of(config):
        _settings_of(config, arm)  # what suits no teacher is told before any is asked
    with opened(config, executor) as working:
        base = run(config, run_dir=run_dir, until="embed", overwrite=overwrite, executor=working)
        directory = RunDirectory(base.path / FOLDER)
        with directory.lock():
            subsets = _Subsets(config, base, directory, overwrite, working)
            cells, given = _cells(config, subsets)
            given |= subsets.shared
            stages = _stages(cells, tuple(given), subsets.trusted, arms_of(config))
            plans = list(plan_stages(stages, config, directory, given))
            refuse_other_settings(plans, directory, overwrite)
            for plan in plans:
                do_stage(plan, config, directory, stages, working, given)
    return directory


def _refuse_baselines(config: Config) -> None:
    """Raise SettingsError for baselines that lack a library, or targets to compare with."""
    assert config.evaluation is not None
    arms = config.evaluation.arms
    baselines.require(arms)
    aimless = [name for name in arms if name in (*baselines.NEED_TARGETS, "rds")]
    if config.target is None and aimless:
        raise SettingsError(
            f"evaluation.arms: {', '.join(aimless)} compare rows with targets: set target.path, or "
            "leave them out"
        )


def _cells(config: Config, subsets: _Subsets) -> tuple[list[Cell], dict[str, Artifact]]:
    """All cells and the subsets that they read, by name."""
    settings = config.evaluation
    assert settings is not None
    given: dict[str, Artifact] = {}
    cells: list[Cell] = []
    for arm in sorted(arms_of(config), key=lambda arm: arm.teacher is None):  # Random comes after
        trainings = settings.qlora.max_seeds.get(arm.kind, len(settings.seeds))
        for number, seed in enumerate(settings.seeds):
            name = subsets.of(arm, seed, given) if arm.has_subset else None
            cells += [
                Cell(arm.name, method, seed, name)
                for method in settings.methods
                if method == "icl" or number < trainings
            ]
    return cells, given


# --- subsets -------------------------------------------------------------------------------------


class _Subsets:
    """Makes the subset of an arm and seed, from the artifacts that all share."""

    def __init__(
        self,
        config: Config,
        base: RunDirectory,
        directory: RunDirectory,
        overwrite: bool,
        executor: Executor,
    ) -> None:
        self._config, self._directory, self._overwrite = config, directory, overwrite
        self._executor = executor
        self.trusted: dict[str, list[bool]] = {}  # of the networks, by arm, one for each seed
        self.shared: dict[str, Artifact] = {}
        for stage in STAGES:
            if stage.name in ("ingest", "embed"):
                artifact = base.artifact(stage.directory)
                assert artifact is not None, f"{stage.name} is not finished"
                self.shared[stage.name] = artifact

    def of(self, arm: Arm, seed: int, given: dict[str, Artifact]) -> str:
        """Make the subset if it is not there; adds it to `given` and returns its name there.

        A teacher that is asked about everything has one subset for all seeds.
        """
        drawn = arm.kind in ("random", "balanced", "network")
        slug = arm.name.lower().replace("(", "-").replace(")", "").replace("+", "-")
        if arm.teacher is None or arm.kind == "rds":
            slug = f"{arm.kind}-in-turn" if arm.kind == "rds" else arm.kind
        name = slug.replace(" ", "-") + (f"-{seed}" if drawn else "")
        if name in given:
            return name
        place = RunDirectory(self._directory.path / "subsets" / name)
        if arm.teacher is None:
            seed = seed if drawn else self._config.seed
            artifact = self._drawn(arm.kind, seed, place, self._size(arm, given))
        else:
            say(f"--- {name}")
            artifact = self._selected(arm, seed if drawn else self._config.seed, place)
        given[name] = artifact
        return name

    def _selected(self, arm: Arm, seed: int, place: RunDirectory) -> Artifact:
        """A subset by the pipeline's stages; a teacher is prepared alike for every seed."""
        config = _settings_of(self._config, arm)
        seeded = config.model_copy(update={"seed": seed})
        stages = [stage for stage in stages_of(config) if stage.name in _ASKING]
        who = config.teacher.name if arm.kind != "small" else f"small-{config.teacher.name}"
        store = self._directory.path / "teachers" / who
        given = {**self.shared, "run-score": Artifact(store, {"fingerprint": ""})}
        plans = list(plan_stages(stages, seeded, place, given))
        refuse_other_settings(plans, place, self._overwrite)
        for plan in plans:
            settings = config if plan.stage.name == "score" else seeded
            do_stage(plan, settings, place, stages, self._executor, given)
        if arm.kind == "network":
            fit = _finished(place, next(stage for stage in stages if stage.name == "fit"))
            self.trusted.setdefault(arm.name, []).append(bool(fit.counts["trusted"]))
        return _finished(place, stages[-1])

    def _size(self, arm: Arm, given: Mapping[str, Artifact]) -> int:
        """Rows that are drawn: all, or as many as the largest subset of the others has."""
        num = len(TableParts(self.shared["ingest"], "candidates"))
        if arm.kind == "full":
            return num
        others = [artifact.counts["selected"] for artifact in given.values()]
        return max(others, default=num_to_select(self._config.selection, num))

    def _drawn(self, kind: ArmKind, seed: int, place: RunDirectory, count: int) -> Artifact:
        """A subset that no teacher is asked for."""
        by_hash = kind in ("random", "full")
        told: dict[str, Any] = {"rows": count} | ({} if by_hash else {"baseline": kind})
        reads = {"ingest": self.shared["ingest"]}
        settings: tuple[str, ...] = ("seed",)
        if kind == "cosine":
            reads["embed"] = self.shared["embed"]
        if kind.startswith("perplexity"):
            reads["embed"] = self._reading()
        if kind == "balanced":
            settings += ("evaluation.source_column",)
        stage = Stage(
            "draw",
            "7-selection",
            partial(_draw, kind="random" if by_hash else kind, count=count),
            settings,
            tuple(reads),
            identity=lambda _: told,
        )
        return self._done(stage, self._config.model_copy(update={"seed": seed}), place, reads)

    def _reading(self) -> Artifact:
        """Embeddings with the losses of every row: those of the run, or made for this."""
        embeddings = self.shared["embed"]
        if group_of("candidates", "reading") in embeddings.manifest["parts"]:
            return embeddings
        settings = self._config.evaluation
        assert settings is not None
        who = _reader(self._config, settings.teachers)
        config = self._config.model_copy(update={"teacher": who, "features": ("losses",)})
        stage = next(stage for stage in STAGES if stage.name == "embed")
        place = RunDirectory(self._directory.path / _READING)
        return self._done(stage, config, place, {"ingest": self.shared["ingest"]})

    def _done(
        self, stage: Stage, config: Config, place: RunDirectory, given: dict[str, Artifact]
    ) -> Artifact:
        (plan,) = plan_stages([stage], config, place, given)
        refuse_other_settings([plan], place, self._overwrite)
        do_stage(plan, config, place, [stage], self._executor, given)
        return _finished(place, stage)


def _settings_of(config: Config, arm: Arm) -> Config:
    """The settings with the teacher and the share of an arm; SettingsError for what does not fit.

    Some settings of the selection suit some teachers only. An arm is one teacher's choice alone: no
    quality gate stands before it.
    """
    if arm.teacher is None:
        return config
    values = config.model_dump(mode="json")
    values["teacher"] = arm.teacher.model_dump(mode="json")
    values["sample"]["fraction"] = arm.fraction
    values["quality"] = None
    if arm.kind == "rds":
        values["selection"]["objective"] = "round_robin"
    return parse_config(values, source=f"evaluation, {arm.name}")


def _finished(place: RunDirectory, stage: Stage) -> Artifact:
    artifact = place.artifact(stage.directory)
    assert artifact is not None, f"{stage.name} in {place} is not finished"
    return artifact


def _draw(context: StageContext, kind: str, count: int) -> StageResult:
    path = context.directory / "ranking.parquet"
    context.executor.call(_write_draw, dict(context.inputs), context.config, kind, count, path)
    return StageResult(
        parts={"ranking": [finish_part(context.directory, path, count)]},
        counts={"selected": count},
        columns={"row": "int64 row of the candidates, in the order drawn or ranked"},
    )


def _write_draw(
    inputs: Mapping[str, Artifact], config: Config, kind: str, count: int, path: Path
) -> None:
    """The rows of a baseline; reads what that one looks at, all of it at a time."""
    corpus, settings = inputs["ingest"], config.evaluation
    assert settings is not None
    rows = TableParts(corpus, "candidates")
    known: dict[str, Any] = {}
    if kind in ("length", *baselines.NEED_TARGETS):
        known["candidates"] = rows.examples(np.arange(len(rows)))
    if kind in baselines.NEED_TARGETS:
        targets = TableParts(corpus, "targets")
        known["targets"] = targets.examples(np.arange(len(targets)))
    if kind == "cosine":
        known["embeddings"] = VectorParts(inputs["embed"], "candidates").all()
        known["target_embeddings"] = VectorParts(inputs["embed"], "targets").all()
    if kind.startswith("perplexity"):
        reading = VectorParts(inputs["embed"], group_of("candidates", "reading")).all()
        losses = reading[:, -2]
        known["losses"] = np.where(losses > 0, losses, np.nan)  # 0: nothing that could be read
    if kind == "balanced":
        known["sources"] = _sources(rows, settings.source_column)
    hashes = id_hashes(rows, config.seed, "random subset")
    pool = baselines.Pool(hashes, seed=config.seed, **known)
    picks = baselines.ranking(kind, pool, count)
    with atomic_path(path) as temporary:
        pq.write_table(pa.table({"row": picks}), temporary)


def _sources(rows: TableParts, column: str | None) -> list[str]:
    """Where each row is from: a column of the user's, or its file."""
    if column is None:
        return [name for table in rows.iter_parts(["file"]) for name in table["file"].to_pylist()]
    extras = (text for table in rows.iter_parts(["extra"]) for text in table["extra"].to_pylist())
    return [json.dumps(read_extra(text).get(column)) for text in extras]


# --- what is made of them ------------------------------------------------------------------------


def _test_set(config: Config) -> Config:
    """Settings whose corpus is the test set."""
    assert config.evaluation is not None
    alone = {"corpus": config.evaluation.test, "target": None, "owned": None, "evaluation": None}
    as_it_is = {"protect": (), "duplicates": DuplicatesConfig(drop="keep")}
    return config.model_copy(update={**alone, **as_it_is})


def _test(context: StageContext) -> StageResult:
    return ingest.run(replace(context, config=_test_set(context.config)))


def answer_stages(cells: Sequence[Cell], subsets: tuple[str, ...]) -> tuple[Stage, ...]:
    """Test set, trainings and answers of some cells, whose subsets are given by these names."""
    first = Stage(
        "test",
        "1-test",
        _test,
        ("evaluation.test",),
        identity=lambda config: ingest.identity(_test_set(config)),
    )
    return (
        first,
        _stage("fine-tune", "2-adapters", fine_tune.run, cells, subsets),
        _stage("answer", "3-answers", answer.run, cells, ("test", "fine-tune", *subsets)),
    )


def _stages(
    cells: Sequence[Cell],
    subsets: tuple[str, ...],
    trusted: Mapping[str, Sequence[bool]],
    arms: Sequence[Arm],
) -> tuple[Stage, ...]:
    """The stages of the evaluation."""
    compare = partial(results.run, trusted=trusted, order=[arm.name for arm in arms])
    read = ("test", "answer", "grade", *subsets)
    return (
        *answer_stages(cells, subsets),
        _stage("grade", "4-grades", grade.run, cells, ("test", "answer")),
        _stage("results", "5-results", compare, cells, read),
    )


def _stage(
    name: str, directory: str, function: Any, cells: Sequence[Cell], reads: tuple[str, ...]
) -> Stage:
    """A stage that is done for cells; which there are belongs to its settings."""
    which = {"cells": digest([vars(cell) for cell in cells])}
    return Stage(
        name,
        directory,
        partial(function, cells=cells),
        ("seed", *_SETTINGS[name]),
        reads,
        identity=partial(_identity, which, name),
    )


def _identity(which: Mapping[str, str], stage: str, config: Config) -> dict[str, str]:
    """The cells, and the models that a stage asks, by their content."""
    settings = config.evaluation
    assert settings is not None
    found = dict(which)
    if stage in ("fine-tune", "answer"):
        found["model"] = model_identity(settings.model)
    if stage == "grade":
        found["similarity"] = model_identity(grade.similarity_model(config))
        found |= {f"metric {name}": TEXT_METRICS[name].place for name in added_metrics()}
        if settings.judge is not None:
            found |= {"judge": model_identity(settings.judge.model), "rubric": RUBRIC_VERSION}
    return found


_MODEL = ("evaluation.model", "evaluation.prompt_style")
_SETTINGS: dict[str, tuple[str, ...]] = {
    "fine-tune": (*_MODEL, "evaluation.qlora"),
    "answer": (
        *_MODEL,
        "embedding",
        "evaluation.instruction",
        "evaluation.methods",
        "evaluation.num_examples",
        "evaluation.max_tokens",
        "evaluation.max_new_tokens",
        "evaluation.batch_size",
        "evaluation.sampling",
        "evaluation.qlora",
    ),
    "grade": ("evaluation.similarity_model", "evaluation.judge", "embedding.model"),
    "results": ("evaluation.seeds",),
}
