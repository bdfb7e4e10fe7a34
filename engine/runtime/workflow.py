"""The loop over stages: what is there already, what contradicts the settings, and doing the rest.

A stage whose manifest carries the fingerprint that the settings ask for is skipped. One that was
made with other settings stops the run with a sentence that says what differs, before anything is
spent, unless `overwrite` says to redo it and what depends on it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import storage
from engine.artifacts.files import digest, disk_problems_told
from engine.artifacts.run_directory import Artifact, RunDirectory
from engine.config import Config, GivenConfig
from engine.errors import RunDirectoryError
from engine.runtime.executor import Executor
from engine.runtime.stage import Stage, StageContext, StageResult, settings_of
from engine.terminal.progress import in_stage, say

__all__ = ["Plan", "do_stage", "paths_to_see", "plan_stages", "refuse_other_settings"]


@dataclass(frozen=True)
class Plan:
    """One stage, what it should be made from, and what is there.

    Attributes:
        settings: all that the stage's output depends on, beside its inputs.
        inputs: fingerprints of those, by name.
        fingerprint: what the manifest must carry.
        found: the stage's artifact, of whatever fingerprint.
    """

    stage: Stage
    settings: dict[str, Any]
    inputs: dict[str, str]
    fingerprint: str
    found: Artifact | None

    @property
    def done(self) -> bool:
        return self.found is not None and self.found.fingerprint == self.fingerprint


def plan_stages(
    stages: Sequence[Stage],
    config: Config,
    directory: RunDirectory,
    given: Mapping[str, Artifact] | None = None,
) -> Iterator[Plan]:
    """The stages in order; `given` are artifacts of elsewhere that they read, by name."""
    fingerprints = {name: artifact.fingerprint for name, artifact in (given or {}).items()}
    for stage in stages:
        settings = {**settings_of(config, stage.settings), "identity": dict(stage.identity(config))}
        inputs = {name: fingerprints[name] for name in stage.reads}
        fingerprint = digest(stage.name, stage.version, settings, inputs)
        fingerprints[stage.name] = fingerprint
        yield Plan(stage, settings, inputs, fingerprint, directory.artifact(stage.directory))


def refuse_other_settings(plans: Sequence[Plan], directory: RunDirectory, overwrite: bool) -> None:
    """Raise RunDirectoryError for stages made with other settings, unless they may be redone."""
    stale = [plan for plan in plans if plan.found is not None and not plan.done]
    if overwrite or not stale:
        return
    first, artifact = stale[0], stale[0].found
    assert artifact is not None
    changes = list(_differences(artifact.manifest["settings"], first.settings))
    changes += [f"another {name}" for name in _other_inputs(artifact, first)]
    what = "; ".join(changes[:3]) or "the engine's code for it has changed"
    raise RunDirectoryError(
        f"stage {first.stage.name} in {directory} was made with other settings ({what}): "
        f"add --overwrite to redo {', '.join(plan.stage.name for plan in stale)}, "
        "or choose another --run-dir"
    )


def _other_inputs(artifact: Artifact, plan: Plan) -> list[str]:
    then = artifact.manifest["inputs"]
    return [name for name, now in plan.inputs.items() if then.get(name) not in (None, now)]


def _differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            inner = f"{name}.{key}" if name else str(key)
            yield from _differences(old.get(key), new.get(key), inner)
    elif old != new:
        yield f"{name}: {old} then, {new} now"


def paths_to_see(config: Config, directory: RunDirectory) -> list[Path]:
    """Local paths of a job that every node of its cluster must see."""
    if storage.uri_of(directory.path) is None:
        directory.path.mkdir(parents=True, exist_ok=True)
        found = [directory.path]
    else:
        found = []
    sides = (config.corpus, config.target, config.owned, *config.protected.values())
    corpora = [side for side in sides if side is not None]
    models = [config.embedding.model, config.teacher.model]
    if config.quality is not None:
        models.append(config.quality.teacher.model)
    named = [
        *(p for c in corpora for p in ((c.path,) if isinstance(c.path, str) else c.path)),
        *(model.path for model in models),
        *([config.teacher.own(GivenConfig).path] if config.teacher.facts.is_given else []),
    ]
    local = [Path(p).expanduser().absolute() for p in named if p and not storage.is_remote(p)]
    return found + [path for path in local if path.exists()]


def do_stage(
    plan: Plan,
    config: Config,
    directory: RunDirectory,
    stages: Sequence[Stage],
    executor: Executor,
    given: Mapping[str, Artifact] | None = None,
) -> None:
    """Run a stage that is not done and write its manifest."""
    stage = plan.stage
    with in_stage(stage.name):
        if plan.done:
            say(f"{stage.name}: done before", "stage_skipped")
            return
        say(f"{stage.name} ...", "stage_started")
        started = time.perf_counter()
        result = _run(stage, config, directory, stages, executor, given or {})
        seconds = time.perf_counter() - started
        directory.commit(stage.directory, _manifest(plan, config, result, seconds))
        text = f"{stage.name}: {_summary(result)} in {seconds:.1f} s"
        say(text, "stage_finished", seconds=round(seconds, 1))


def _run(
    stage: Stage,
    config: Config,
    directory: RunDirectory,
    stages: Sequence[Stage],
    executor: Executor,
    given: Mapping[str, Artifact],
) -> StageResult:
    inputs = dict(given)
    for other in stages:
        if other.name in stage.reads:
            artifact = directory.artifact(other.directory)
            assert artifact is not None, f"{stage.name} reads {other.name}, which is not finished"
            inputs[other.name] = artifact
    context = StageContext(config, directory.reopen(stage.directory), inputs, executor)
    with disk_problems_told(context.directory):
        return stage.run(context)


def _manifest(plan: Plan, config: Config, result: StageResult, seconds: float) -> dict[str, Any]:
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
