"""What a stage is: its name, its folder, the settings it depends on, and one function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.artifacts.parts import Part
from engine.artifacts.run_directory import Artifact
from engine.config import Config, Execution, Section
from engine.runtime.executor import Executor

__all__ = ["Stage", "StageContext", "StageResult", "settings_of"]


@dataclass(frozen=True)
class StageContext:
    """What a stage's function is given.

    Attributes:
        config: all settings; a stage reads its own sections.
        directory: the stage's folder, which may hold parts of an interrupted run.
        inputs: the finished artifacts of the stages it reads, by stage name.
        executor: who does its work.
    """

    config: Config
    directory: Path
    inputs: Mapping[str, Artifact]
    executor: Executor


@dataclass
class StageResult:
    """What a stage's function returns for its manifest.

    Attributes:
        parts: groups of files, each in row order.
        counts: row counts and headline numbers; the same on every run.
        usage: what it cost, summed over parts: seconds, calls, tokens, ...
        columns: dtype, shape and unit of what the files hold, for readers of the manifest.
        models: identity of each model used.
    """

    parts: dict[str, list[Part]]
    counts: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, float] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline, as data.

    Attributes:
        name: the verb, e.g. "embed".
        directory: the artifact's folder, e.g. "2-embeddings".
        run: does the work.
        settings: the sections (or dotted settings) of the config that its output depends on.
        reads: names of the stages whose artifacts it reads.
        version: raise it when the code's output changes, so that old artifacts are not reused.
        identity: what else the output depends on, such as the content of input files and models.
    """

    name: str
    directory: str
    run: Callable[[StageContext], StageResult]
    settings: tuple[str, ...]
    reads: tuple[str, ...] = ()
    version: int = 1
    identity: Callable[[Config], Mapping[str, Any]] = field(default=lambda config: {})


def settings_of(config: Config, names: tuple[str, ...]) -> dict[str, Any]:
    """The named settings as plain values, `execution` sections left out."""
    return {name: _plain(_lookup(config, name)) for name in names}


def _lookup(config: Config, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        fields = value.parts().items()
        return {name: _plain(item) for name, item in fields if not isinstance(item, Execution)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
