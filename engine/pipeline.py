"""The pipeline in order, as data, and the one loop that runs it: skip, resume, stop.

A stage whose manifest carries the fingerprint that the settings ask for is skipped. One that was
made with other settings stops the run with a sentence that says what differs, before anything is
spent, unless `overwrite` says to redo it and what depends on it. After the fit comes the gate: a
network that cannot be trusted is reported, stops the run, or has the teacher asked about more.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.actors import connected
from engine.config import Config, load_config
from engine.corpus import ingest
from engine.embedding import embed
from engine.errors import EngineError, FidelityError, RunDirectoryError, SettingsError
from engine.influence import predict_stage
from engine.network import fit_stage
from engine.progress import say
from engine.report import report
from engine.run_directory import Artifact, RunDirectory, digest, discard, read_json
from engine.selection import select_stage
from engine.stage import Stage, StageContext, StageResult, settings_of
from engine.teachers import sample, score

__all__ = ["STAGES", "run"]

STAGES: tuple[Stage, ...] = (
    Stage("ingest", "1-corpus", ingest.run, ("corpus", "target"), (), 1, ingest.identity),
    Stage("embed", "2-embeddings", embed.run, ("embedding",), ("ingest",), 1, embed.identity),
    Stage(
        "sample",
        "3-sample",
        sample.run,
        ("seed", "sample"),
        ("ingest", "embed"),
        2,
        sample.identity,
    ),
    Stage("score", "4-teacher", score.run, ("teacher",), ("ingest", "sample"), 2, score.identity),
    Stage("fit", "5-network", fit_stage.run, ("seed", "network"), ("embed", "sample", "score"), 2),
    Stage(
        "predict",
        "6-influence",
        predict_stage.run,
        ("seed", "influence"),
        ("ingest", "embed", "sample", "score", "fit"),
        3,
    ),
    Stage(
        "select",
        "7-selection",
        select_stage.run,
        ("seed", "selection"),
        ("ingest", "score", "predict"),
    ),
    Stage(
        "report",
        "8-report",
        report.run,
        ("report", "teacher", "selection"),
        ("ingest", "embed", "sample", "score", "fit", "predict", "select"),
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
    directory = RunDirectory(_absolute(str(run_dir or config.run_dir)))
    stages = _stages_until(until)
    attempts = _attempts(config)
    first = _attempt_found(attempts, directory)
    plans = list(_plan(stages, attempts[first], directory))
    _refuse_other_settings(plans, directory, overwrite)
    is_last = first + 1 == len(attempts) or _is_trusted(directory)
    if is_last and all(plan.done for plan in plans):
        say(
            f"all of {', '.join(plan.stage.name for plan in plans)} done before in {directory.path}"
        )
        _check_gate(config, directory)
        return directory
    with _fresh_is_removed(directory), directory.lock(), connected(config.ray):
        for number in range(first, len(attempts)):
            is_last = number + 1 == len(attempts)
            if _do_all(stages, attempts[number], directory, is_last):
                break
    return directory


def _do_all(
    stages: tuple[Stage, ...], config: Config, directory: RunDirectory, is_last: bool
) -> bool:
    """All stages in order; False, after the fit, when the teacher should be asked about more."""
    for plan in list(_plan(stages, config, directory)):
        _do(plan, config, directory)
        if plan.stage.name != "fit":
            continue
        if not (is_last or _is_trusted(directory)):
            asked = config.sample.fraction
            say(f"the network cannot be trusted yet at sample.fraction {asked:g}: asking for more")
            return False
        _check_gate(config, directory)
    return True


def _stages_until(until: str | None) -> tuple[Stage, ...]:
    names = [stage.name for stage in STAGES]
    if until is None:
        return STAGES
    if until not in names:
        raise SettingsError(f"unknown stage {until!r}; the stages are {', '.join(names)}")
    return STAGES[: names.index(until) + 1]


def _absolute(run_dir: str) -> Path:
    """The run directory; a relative one outlives a submitted job's temporary working directory."""
    path = Path(run_dir)
    if not path.is_absolute() and "runtime_resources" in Path.cwd().parts:
        path = Path.home() / "nn-cift" / path
        say(f"the uploaded working directory goes when the job ends: the run directory is {path}")
    return path.absolute()


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
            plan.stage.name == "sample" and plan.done for plan in _plan(STAGES, config, directory)
        ):
            return number
    return 0


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
        f"the network cannot be trusted: {reasons[0]}. What was computed is kept in "
        f"{directory.path}; raise sample.fraction, or go on with --gate.on_low_fidelity warn"
    )


# --- planning ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """One stage, what it should be made from, and what is there."""

    stage: Stage
    settings: dict[str, Any]
    inputs: dict[str, str]
    fingerprint: str
    found: Artifact | None

    @property
    def done(self) -> bool:
        return self.found is not None and self.found.fingerprint == self.fingerprint


def _plan(stages: tuple[Stage, ...], config: Config, directory: RunDirectory) -> Iterator[_Plan]:
    fingerprints: dict[str, str] = {}
    for stage in stages:
        settings = {**settings_of(config, stage.settings), "identity": dict(stage.identity(config))}
        inputs = {name: fingerprints[name] for name in stage.reads}
        fingerprint = digest(stage.name, stage.version, settings, inputs)
        fingerprints[stage.name] = fingerprint
        yield _Plan(stage, settings, inputs, fingerprint, directory.artifact(stage.directory))


def _refuse_other_settings(plans: list[_Plan], directory: RunDirectory, overwrite: bool) -> None:
    stale = [plan for plan in plans if plan.found is not None and not plan.done]
    if overwrite or not stale:
        return
    first, artifact = stale[0], stale[0].found
    assert artifact is not None
    changes = list(_differences(artifact.manifest["settings"], first.settings))
    what = "; ".join(changes[:3]) or "the engine's code for it has changed"
    raise RunDirectoryError(
        f"stage {first.stage.name} in {directory.path} was made with other settings ({what}): "
        f"add --overwrite to redo {', '.join(plan.stage.name for plan in stale)}, "
        "or choose another --run-dir"
    )


def _differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            inner = f"{name}.{key}" if name else str(key)
            yield from _differences(old.get(key), new.get(key), inner)
    elif old != new:
        yield f"{name}: {old} then, {new} now"


# --- doing ---------------------------------------------------------------------------------------


def _do(plan: _Plan, config: Config, directory: RunDirectory) -> None:
    stage = plan.stage
    if plan.done:
        say(f"{stage.name}: done before")
        return
    say(f"{stage.name} ...")
    inputs = {}
    for other in STAGES:
        if other.name in stage.reads:
            artifact = directory.artifact(other.directory)
            assert artifact is not None, f"{stage.name} reads {other.name}, which is not finished"
            inputs[other.name] = artifact
    started = time.perf_counter()
    context = StageContext(config, directory.reopen(stage.directory), inputs)
    result = stage.run(context)
    seconds = time.perf_counter() - started
    directory.commit(stage.directory, _manifest(plan, config, result, seconds))
    say(f"{stage.name}: {_summary(result)} in {seconds:.1f} s")


def _manifest(plan: _Plan, config: Config, result: StageResult, seconds: float) -> dict[str, Any]:
    return {
        "kind": plan.stage.name,
        "fingerprint": plan.fingerprint,
        "version": plan.stage.version,
        "settings": plan.settings,
        "inputs": plan.inputs,
        "seed": config.seed,
        "counts": result.counts,
        "usage": result.usage,
        "wall_seconds": seconds,
        "models": result.models,
        "columns": result.columns,
        "parts": {
            group: [{**vars(part)} for part in parts] for group, parts in result.parts.items()
        },
    }


def _summary(result: StageResult) -> str:
    shown = (
        f"{value:,} {name.replace('_', ' ')}"
        for name, value in result.counts.items()
        if isinstance(value, int) and not isinstance(value, bool) and value
    )
    return ", ".join(list(shown)[:4]) or "done"


@contextmanager
def _fresh_is_removed(directory: RunDirectory) -> Iterator[None]:
    """When bad input stops a run before its first artifact, leave no trace of it."""
    existed = directory.path.exists()
    first = directory.stage_dir(STAGES[0].directory)
    try:
        yield
    except EngineError:
        if directory.artifact(STAGES[0].directory) is None:
            discard(first)
            if not existed:
                discard(directory.path)
        raise
