"""The pipeline in order, as data, run by the loop of `workflow`: skip, resume, stop.

After the fit comes the gate: a network that cannot be trusted is reported, stops the run, or has
the teacher asked about more. With `selection.second_look` two stages more stand before the
selection: the teacher is asked about the best of what was predicted. With `quality` a second
teacher, one of rows, is asked, learned and audited beside the first, and judges which rows may be
selected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from engine import storage
from engine.artifacts.files import disk_problems_told, read_json, write_json
from engine.artifacts.run_directory import CONFIG, Artifact, RunDirectory, discard
from engine.audit.verdict import Look
from engine.config import Config, load_config
from engine.errors import EngineError, FidelityError, SettingsError
from engine.runtime.executor import Executor
from engine.runtime.opening import ExecutorChoice, opened
from engine.runtime.processor import emulates_bfloat16
from engine.runtime.stage import Stage
from engine.runtime.workflow import Plan, do_stage, paths_to_see, plan_stages, refuse_other_settings
from engine.selection.prepare import num_to_select
from engine.spelling import meant
from engine.stages import embed, fit, ingest, predict, report, sample, score, second_look, select
from engine.stages.named_columns import refuse_unknown_columns
from engine.stages.quality import QUALITY, config_of_gate
from engine.students.student import student_class
from engine.teachers.teacher import teacher_class
from engine.terminal.progress import say

__all__ = ["STAGES", "run", "stages_of"]

SMALL = 500  # rows; of more, work on several cores makes up for what starting Ray takes

Stages = tuple[Stage, ...]
Attempt = tuple[Config, Stages]

STAGES: Stages = (
    ingest.STAGE,
    embed.STAGE,
    sample.STAGE,
    score.STAGE,
    fit.STAGE,
    predict.STAGE,
    select.STAGE,
    report.STAGE,
)
_READ_THEM = {"select": ("shortlist", "second_look"), "report": ("second_look",)}
_READ_GATE = {
    "shortlist": ("quality",),
    "select": ("quality",),
    "report": tuple(stage.name for stage in QUALITY),
}


def stages_of(config: Config) -> tuple[Stage, ...]:
    """The stages of a run with these settings, in their order."""
    stages = list(STAGES)
    if config.teacher.facts.from_embeddings:
        stages = [replace(s, reads=(*s.reads, "embed")) if s.name == "score" else s for s in stages]
    if config.selection.second_look:
        stages = _with(stages, second_look.SECOND_LOOK, _READ_THEM, before="select")
    if config.quality is not None:
        first = "shortlist" if config.selection.second_look else "select"
        stages = _with(stages, QUALITY, _READ_GATE, before=first)
    return tuple(stages)


def _with(
    stages: list[Stage], more: Stages, reads: Mapping[str, tuple[str, ...]], before: str
) -> list[Stage]:
    """Further stages before one, and who reads them."""
    reading = [replace(s, reads=(*s.reads, *reads.get(s.name, ()))) for s in stages]
    place = [stage.name for stage in reading].index(before)
    return [*reading[:place], *more, *reading[place:]]


def run(
    config: Config | Path | str,
    *,
    run_dir: Path | str | None = None,
    until: str | None = None,
    overwrite: bool = False,
    executor: ExecutorChoice = None,
) -> RunDirectory:
    """Do everything that is missing in the run directory, in order; returns the directory.

    Args:
        config: settings, or the YAML file that holds them.
        run_dir: in place of the config's.
        until: name of the last stage to do.
        overwrite: redo stages that were made with other settings, instead of stopping.
        executor: "ray", "local", or one that is there; default: `execution` of the settings.

    Raises EngineError for what the user can act on. May be killed at any moment and started
    again: what was finished, every teacher answer among it, is kept and gives the same bytes.
    """
    if not isinstance(config, Config):
        config = load_config(Path(config))
    _refuse_student(config)
    directory = RunDirectory.at(_outliving(str(run_dir or config.run_dir)))
    attempts = _attempts(config, _stages_until(config, until), directory)
    first = _attempt_found(attempts, directory)
    plans = list(_plans(attempts[first], directory))
    refuse_other_settings(plans, directory, overwrite)
    is_last = first + 1 == len(attempts) or _is_trusted(directory)
    if is_last and all(plan.done for plan in plans):
        say(f"all of {', '.join(plan.stage.name for plan in plans)} done before in {directory}")
        _check_gate(config, directory)
        return directory
    with (
        _fresh_is_removed(directory),
        disk_problems_told(directory.path),
        directory.lock(),
        opened(config, executor) as working,
    ):
        working.refuse_unseen(paths_to_see(config, directory))
        write_json(directory.path / CONFIG, config.model_dump(mode="json"))
        for number in range(first, len(attempts)):
            is_last = number + 1 == len(attempts)
            if _do_all(*attempts[number], directory, is_last, working):
                break
    return directory


def _do_all(
    config: Config,
    stages: Stages,
    directory: RunDirectory,
    is_last: bool,
    executor: Executor,
) -> bool:
    """All stages in order; False, after the fit, when the teacher should be asked about more."""
    for plan in list(plan_stages(stages, config, directory)):
        do_stage(plan, config, directory, stages_of(config), executor)
        if plan.stage.name == "ingest":
            corpus = _corpus(directory)
            refuse_unknown_columns(config, corpus, executor)
            if config.selection.budget is not None:
                num_to_select(config.selection, corpus.counts["candidates"])  # refuses too many
            second_look.refuse_too_many(config, corpus.counts["candidates"])
            sample.refuse_useless_scores(config, corpus, executor)
            _tell_small(corpus, executor)
            _tell_emulated(config, executor)
        if plan.stage.name != "fit":
            continue
        if not (is_last or _is_trusted(directory)):
            asked = config.sample.fraction
            say(f"the student cannot be trusted yet at sample.fraction {asked:g}: asking for more")
            return False
        _check_gate(config, directory)
    return True


def _tell_small(corpus: Artifact, executor: Executor) -> None:
    """Where starting Ray takes longer than it saves."""
    rows = corpus.counts["candidates"] + corpus.counts.get("targets", 0)
    if executor.was_started_here and rows <= SMALL:
        say(f"  {rows:,} rows need no Ray: --execution local is done sooner, with the same result")


def _tell_emulated(config: Config, executor: Executor) -> None:
    """Where a model on CPUs is to compute in a precision that they have not."""
    models = {"embedding": (config.embedding.model, config.embedding.execution)}
    if config.teacher.facts.default_model is not None:
        models["teacher"] = (config.teacher.model, config.teacher.execution)
    if config.quality is not None and config.quality.teacher.facts.default_model is not None:
        gate = config.quality.teacher
        models["quality.teacher"] = (gate.model, gate.execution)
    slow = [
        name
        for name, (model, execution) in models.items()
        if model.dtype == "bfloat16" and not model.quantization and not execution.num_gpus
    ]
    if not slow:
        return
    if executor.call(emulates_bfloat16):
        settings = " ".join(f"--{name}.model.dtype float32" for name in slow)
        say(f"  these processors emulate bfloat16, many times slower than float32: {settings}")


def _refuse_student(config: Config) -> None:
    """Raise SettingsError for a student that cannot learn this teacher, before it is paid."""
    if config.quality is not None:
        _refuse_student(config_of_gate(config))
    name, teacher = config.student.name, teacher_class(config.teacher.name)
    if name == "auto":
        return
    student, why = student_class(name), None
    if student.needs_text and "text" not in config.features:
        raise SettingsError(f"student {name} compares the texts' embeddings: add text to features")
    if student.needs_vectors and teacher.vector_similarity(config.teacher) is None:
        why = "whose score of a pair is no similarity of two vectors"
    if student.needs_targets and not teacher.pairwise:
        why = "which scores rows, not pairs"
    if why is not None:
        raise SettingsError(
            f"student.name {name} cannot learn teacher {config.teacher.name}, {why}: use auto"
        )


def _stages_until(config: Config, until: str | None) -> Stages:
    stages = stages_of(config)
    names = [stage.name for stage in stages]
    if until is None:
        return stages
    if until not in names:
        raise SettingsError(
            f"unknown stage {until!r}; the stages are {', '.join(names)}{meant(until, names)}"
        )
    return stages[: names.index(until) + 1]


def _outliving(run_dir: str) -> str:
    """The run directory; a relative one outlives a submitted job's temporary working directory."""
    if storage.is_remote(run_dir) or Path(run_dir).is_absolute():
        return run_dir
    if "runtime_resources" not in Path.cwd().parts:
        return run_dir
    path = Path.home() / "nn-cift" / run_dir
    say(f"the uploaded working directory goes when the job ends: the run directory is {path}")
    return str(path)


# --- the gate ------------------------------------------------------------------------------------


def _attempts(config: Config, stages: Stages, directory: RunDirectory) -> list[Attempt]:
    """Settings and stages to try in turn: with growing shares for the teacher under `extend`.

    Each attempt looks at the same audit rows once more, so its fit is told which look it is. One
    that looked alone and found no trust would not find it among several looks, which ask for more:
    it stands as it is, and a run under `warn` or `fail` can be extended.
    """
    configs, gate = [config], config.gate
    if gate.on_low_fidelity == "extend":
        while (last := configs[-1].sample.fraction) < gate.max_fraction:
            larger = min(last * gate.growth, gate.max_fraction)
            sample_settings = config.sample.model_copy(update={"fraction": larger})
            configs.append(config.model_copy(update={"sample": sample_settings}))
    # who asks about everything has nothing to audit
    num_looks = sum(one.sample.fraction < 1 for one in configs)
    if num_looks == 1:
        return [(one, stages) for one in configs]
    return [
        (one, stages)
        if _failed_alone(one, directory)
        else (one, _with_look(stages, Look(number, num_looks)))
        for number, one in enumerate(configs, 1)
    ]


def _failed_alone(config: Config, directory: RunDirectory) -> bool:
    """Whether these settings were tried in a run of one look, and found no trust."""
    plans = plan_stages(STAGES, config, directory)
    return not _is_trusted(directory) and any(
        plan.stage.name == "fit" and plan.done for plan in plans
    )


def _with_look(stages: Stages, look: Look) -> Stages:
    """The stages with a fit that looks at the audit for the n-th time."""
    return tuple(
        replace(
            stage,
            run=partial(fit.run, look=look),
            identity=lambda config: {"look_at_the_audit": f"{look.number} of {look.of}"},
        )
        if stage.name == "fit"
        else stage
        for stage in stages
    )


def _plans(attempt: Attempt, directory: RunDirectory) -> Iterator[Plan]:
    config, stages = attempt
    return plan_stages(stages, config, directory)


def _attempt_found(attempts: list[Attempt], directory: RunDirectory) -> int:
    """The attempt that the run directory's sample was drawn for, else the first."""
    for number, (config, _) in enumerate(attempts):
        if any(
            plan.stage.name == "sample" and plan.done
            for plan in plan_stages(STAGES, config, directory)
        ):
            return number
    return 0


def _corpus(directory: RunDirectory) -> Artifact:
    (folder,) = (stage.directory for stage in STAGES if stage.name == "ingest")
    corpus = directory.artifact(folder)
    assert corpus is not None, "looked at before it was read"
    return corpus


def _is_trusted(directory: RunDirectory) -> bool:
    (folder,) = (stage.directory for stage in STAGES if stage.name == "fit")
    artifact = directory.artifact(folder)
    return artifact is not None and bool(artifact.counts["trusted"])


def _check_gate(config: Config, directory: RunDirectory) -> None:
    (folder,) = (stage.directory for stage in STAGES if stage.name == "fit")
    artifact = directory.artifact(folder)
    if config.gate.on_low_fidelity != "fail" or artifact is None or artifact.counts["trusted"]:
        return
    reasons = read_json(artifact.path("fidelity"))["reasons"]
    raise FidelityError(
        f"the student cannot be trusted: {reasons[0]}. What was computed is kept in "
        f"{directory}; raise sample.fraction, or go on with --gate.on_low_fidelity warn"
    )


@contextmanager
def _fresh_is_removed(directory: RunDirectory) -> Iterator[None]:
    """When bad input stops a run before its first artifact, leave no trace of it."""
    is_new = directory.is_new
    first = directory.stage_dir(STAGES[0].directory)
    try:
        yield
    except EngineError:
        with suppress(NotADirectoryError):  # a run directory that is a file, or below one
            if directory.artifact(STAGES[0].directory) is None:
                discard(first)
                storage.remove(directory.path / CONFIG)
                if is_new:
                    discard(directory.path)
        raise
