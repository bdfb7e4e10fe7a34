"""What a stage declares decides what a changed setting redoes: that, and what reads it."""

from __future__ import annotations

from typing import Any

import pytest

from engine.artifacts.run_directory import RunDirectory
from engine.config import Config, parse_config
from engine.runtime.workflow import plan_stages
from engine.stages.additions import ADDITION_STAGES
from engine.stages.pipeline import STAGES, stages_of

# Sections that change no byte of a run, and those that belong to other jobs.
NO_PART = {"run_dir", "execution", "ray", "gate", "drift", "evaluation", "study"}

CHANGES: dict[str, tuple[Any, set[str]]] = {  # setting: another value, the first stages redone
    "seed": (1, {"sample", "quality_sample"}),
    "corpus.on_bad_row": ("stop", {"ingest"}),
    "embedding.batch_size": (7, {"embed"}),
    "features": (["text"], {"embed"}),
    "sample.fraction": (0.3, {"sample"}),
    "teacher.max_tokens": (300, {"score"}),
    "student.folds": (3, {"fit"}),
    "network.epochs": (5, {"fit", "quality_fit"}),
    "influence.neighbours": (9, {"predict", "quality_predict"}),
    "selection.budget": (20, {"shortlist"}),
    "selection.second_look": (2.0, {"shortlist"}),
    "quality.sample.fraction": (0.4, {"quality_sample"}),
    "quality.student.folds": (3, {"quality_fit"}),
    "quality.drop_worst": (0.3, {"quality"}),
    "report.title": ("Another", {"report"}),
    "gate.on_low_fidelity": ("fail", set()),
    "execution": ("ray", set()),
    "ray.num_cpus": (3, set()),
    "teacher.execution.max_actors": (3, set()),
    "drift.audit_candidates": (7, set()),
}


def changed(settings: dict[str, Any], name: str, value: Any) -> Config:
    top, *rest = name.split(".")
    if not rest:
        return parse_config({**settings, top: value})
    inner = settings.get(top) or {}
    return parse_config({**settings, top: _with(inner, rest, value)})


def _with(values: dict[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    first, *rest = path
    return {**values, first: _with(values.get(first) or {}, rest, value) if rest else value}


@pytest.fixture(scope="module")
def settings(small_job: dict[str, Any]) -> dict[str, Any]:
    model = small_job["teacher"]["model"]
    gate = {"teacher": {"name": "ifd", "model": model}, "drop_worst": 0.1}
    look = {**small_job["selection"], "second_look": 1.5}
    return {**small_job, "quality": gate, "selection": look}


def fingerprints(config: Config, tmp_path: Any) -> dict[str, str]:
    plans = plan_stages(stages_of(config), config, RunDirectory.at(tmp_path / "run"))
    return {plan.stage.name: plan.fingerprint for plan in plans}


def reached(config: Config, first: set[str]) -> set[str]:
    """Those stages, and all that read them, directly or not."""
    found = set(first)
    for stage in stages_of(config):
        if found & set(stage.reads):
            found.add(stage.name)
    return found


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_redoes_its_stage_and_what_reads_it(
    settings: dict[str, Any], tmp_path: Any, name: str
) -> None:
    value, first = CHANGES[name]
    before = parse_config(settings)
    old, new = (fingerprints(c, tmp_path) for c in (before, changed(settings, name, value)))
    assert {stage for stage in old if old[stage] != new[stage]} == reached(before, first)


def test_every_section_belongs_to_a_stage() -> None:
    gate = {"teacher": {"name": "fit"}, "weight": 1.0}
    config = parse_config({"corpus": {"path": "x"}, "quality": gate})
    declared = {name.split(".")[0] for stage in stages_of(config) for name in stage.settings}
    assert declared | NO_PART == set(Config.model_fields)
    assert "drift" in {name for stage in ADDITION_STAGES for name in stage.settings}


def test_folders_and_names_are_not_shared() -> None:
    for stages in (STAGES, ADDITION_STAGES):
        assert len({stage.directory for stage in stages}) == len(stages)
        names = [stage.name for stage in stages]
        assert len(set(names)) == len(names)
        known = set(names)
        if stages is STAGES:
            assert all(set(stage.reads) <= known for stage in stages)
