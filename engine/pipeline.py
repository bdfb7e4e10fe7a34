"""The pipeline in order, as data, run by the loop of `workflow`: skip, resume, stop.

After the fit comes the gate: a network that cannot be trusted is reported, stops the run, or has
the teacher asked about more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine import storage
from engine.cluster import connected, refuse_unseen
from engine.config import Config, load_config
from engine.corpus import ingest
from engine.embedding import embed
from engine.errors import EngineError, FidelityError, SettingsError
from engine.influence import predict_stage
from engine.named_columns import refuse_unknown_columns
from engine.progress import say
from engine.report import report
from engine.run_directory import CONFIG, Artifact, RunDirectory, discard, read_json, write_json
from engine.selection import select_stage
from engine.spelling import meant
from engine.stage import Stage
from engine.stages import fit
from engine.teachers import sample, score
from engine.teachers.teacher import teacher_class
from engine.workflow import do_stage, paths_to_see, plan_stages, refuse_other_settings

__all__ = ["STAGES", "run"]

STAGES: tuple[Stage, ...] = (
    Stage("ingest", "1-corpus", ingest.run, ("corpus", "target", "owned"), (), 1, ingest.identity),
    Stage(
        "embed",
        "2-embeddings",
        embed.run,
        ("embedding", "features"),
        ("ingest",),
        2,
        embed.identity,
    ),
    Stage(
        "sample",
        "3-sample",
        sample.run,
        ("seed", "sample"),
        ("ingest", "embed"),
        3,
        sample.identity,
    ),
    Stage("score", "4-teacher", score.run, ("teacher",), ("ingest", "sample"), 3, score.identity),
    Stage(
        "fit",
        "5-student",
        fit.run,
        ("seed", "features", "student", "network"),
        ("embed", "sample", "score"),
        3,
    ),
    Stage(
        "predict",
        "6-influence",
        predict_stage.run,
        ("seed", "influence", "features"),
        ("ingest", "embed", "sample", "score", "fit"),
        5,
    ),
    Stage(
        "select",
        "7-selection",
        select_stage.run,
        ("seed", "selection", "influence.neighbours"),
        ("ingest", "embed", "score", "predict"),
        2,
        select_stage.identity,
    ),
    Stage(
        "report",
        "8-report",
        report.run,
        ("report", "teacher", "selection"),
        ("ingest", "embed", "sample", "score", "fit", "predict", "select"),
        2,
        report.identity,
    ),
)


def run(
    config: Config | Path | str,
    *,
    run_dir: Path | str | None = None,
    until: str | None = None,
    overwrite: bool = False,
) -> RunDirectory:
    """Do everything that is missing in the run directory, in order; returns the directory.

    Args:
        config: settings, or the YAML file that holds them.
        run_dir: in place of the config's.
        until: name of the last stage to do.
        overwrite: redo stages that were made with other settings, instead of stopping.

    Raises EngineError for what the user can act on. May be killed at any moment and started
    again: what was finished, every teacher answer among it, is kept and gives the same bytes.
    """
    if not isinstance(config, Config):
        config = load_config(Path(config))
    _refuse_student(config)
    directory = RunDirectory.at(_outliving(str(run_dir or config.run_dir)))
    stages = _stages_until(until)
    attempts = _attempts(config)
    first = _attempt_found(attempts, directory)
    plans = list(plan_stages(stages, attempts[first], directory))
    refuse_other_settings(plans, directory, overwrite)
    is_last = first + 1 == len(attempts) or _is_trusted(directory)
    if is_last and all(plan.done for plan in plans):
        say(f"all of {', '.join(plan.stage.name for plan in plans)} done before in {directory}")
        _check_gate(config, directory)
        return directory
    with _fresh_is_removed(directory), directory.lock(), connected(config.ray):
        refuse_unseen(paths_to_see(config, directory))
        write_json(directory.path / CONFIG, config.model_dump(mode="json"))
        for number in range(first, len(attempts)):
            is_last = number + 1 == len(attempts)
            if _do_all(stages, attempts[number], directory, is_last):
                break
    return directory


def _do_all(
    stages: tuple[Stage, ...], config: Config, directory: RunDirectory, is_last: bool
) -> bool:
    """All stages in order; False, after the fit, when the teacher should be asked about more."""
    for plan in list(plan_stages(stages, config, directory)):
        do_stage(plan, config, directory, STAGES)
        if plan.stage.name == "ingest":
            refuse_unknown_columns(config, _corpus(directory))
        if plan.stage.name != "fit":
            continue
        if not (is_last or _is_trusted(directory)):
            asked = config.sample.fraction
            say(f"the student cannot be trusted yet at sample.fraction {asked:g}: asking for more")
            return False
        _check_gate(config, directory)
    return True


def _refuse_student(config: Config) -> None:
    """Raise SettingsError for a student that cannot learn this teacher, before it is paid."""
    name, teacher = config.student.name, teacher_class(config.teacher.name)
    why = None
    by_vectors = name in ("vectors", "vector_network")
    if by_vectors and teacher.vector_similarity(config.teacher) is None:
        why = "whose score of a pair is no similarity of two vectors"
    if (by_vectors or name == "cosine") and not teacher.pairwise:
        why = "which scores rows, not pairs"
    if why is not None:
        raise SettingsError(
            f"student.name {name} cannot learn teacher {config.teacher.name}, {why}: use auto"
        )


def _stages_until(until: str | None) -> tuple[Stage, ...]:
    names = [stage.name for stage in STAGES]
    if until is None:
        return STAGES
    if until not in names:
        raise SettingsError(
            f"unknown stage {until!r}; the stages are {', '.join(names)}{meant(until, names)}"
        )
    return STAGES[: names.index(until) + 1]


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


def _attempts(config: Config) -> list[Config]:
    """The settings to try in turn: with growing shares for the teacher under `extend`."""
    attempts = [config]
    gate = config.gate
    if gate.on_low_fidelity == "extend":
        while (last := attempts[-1].sample.fraction) < gate.max_fraction:
            larger = min(last * gate.growth, gate.max_fraction)
            sample_settings = config.sample.model_copy(update={"fraction": larger})
            attempts.append(config.model_copy(update={"sample": sample_settings}))
    return attempts


def _attempt_found(attempts: list[Config], directory: RunDirectory) -> int:
    """The attempt that the run directory's sample was drawn for, else the first."""
    for number, config in enumerate(attempts):
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
        if directory.artifact(STAGES[0].directory) is None:
            discard(first)
            storage.remove(directory.path / CONFIG)
            if is_new:
                discard(directory.path)
        raise
