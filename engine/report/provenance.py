"""Where the numbers come from: settings, models, versions, fingerprints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from engine.artifacts.run_directory import Artifact
from engine.config import Config, ModelConfig

__all__ = ["ModelUsed", "Provenance", "StageRecord", "read_provenance"]


@dataclass(frozen=True)
class ModelUsed:
    """A third-party model: its setting and the identity of what that setting named."""

    role: str
    path: str
    identity: str
    dtype: str
    trust_remote_code: bool


@dataclass(frozen=True)
class StageRecord:
    """A stage's line of the provenance."""

    name: str
    fingerprint: str
    version: int
    host: str


@dataclass(frozen=True)
class Provenance:
    """Everything that is needed to make the run again."""

    settings_yaml: str
    seed: int
    python: str
    packages: dict[str, str]
    models: list[ModelUsed]
    stages: list[StageRecord]


def read_provenance(config: Config, inputs: Mapping[str, Artifact]) -> Provenance:
    """From the settings and the manifests; packages are those of the latest stage."""
    manifests = {name: artifact.manifest for name, artifact in inputs.items()}
    latest = list(manifests.values())[-1]
    settings = config.model_dump(mode="json")
    return Provenance(
        settings_yaml=yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100),
        seed=config.seed,
        python=str(latest["python"]),
        packages=dict(latest["packages"]),
        models=list(_models(config, manifests["embed"], manifests["score"])),
        stages=[
            StageRecord(name, str(m["fingerprint"]), int(m["version"]), str(m["host"]))
            for name, m in manifests.items()
        ],
    )


def _models(
    config: Config, embed: Mapping[str, Any], score: Mapping[str, Any]
) -> Iterator[ModelUsed]:
    teacher = f"teacher ({config.teacher.name})"
    yield _model("student's encoder", config.embedding.model, embed["models"].get("encoder"))
    yield _model(teacher, config.teacher.model, score["models"].get("model"))
    known = score["settings"].get("identity", {}).get("further_models", [])
    for number, setting in enumerate(config.teacher.facts.further_models(config.teacher)):
        identity = known[number]["model"] if number < len(known) else None
        yield _model(f"{teacher}, as well", setting, identity)


def _model(role: str, setting: ModelConfig, identity: str | None) -> ModelUsed:
    return ModelUsed(
        role, setting.path or "none", identity or "none", setting.dtype, setting.trust_remote_code
    )
