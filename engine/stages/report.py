"""Report: one self-contained page that says how far to trust the subset and what it cost.

A worker collects the facts, since they come from rows; the page is drawn from the facts alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine.artifacts.files import atomic_path, file_sha256, shown, write_json
from engine.artifacts.parts import finish_part
from engine.artifacts.run_directory import Artifact
from engine.config import Config
from engine.report.facts import Facts, collect
from engine.report.other_results import read_results
from engine.report.page import render
from engine.runtime.stage import Stage, StageContext, StageResult

__all__ = ["STAGE", "identity", "run", "write_report"]


def identity(config: Config) -> dict[str, str]:
    """The results files that are shown, by their content; a bad one stops the job at its start."""
    read_results(config.report.results)
    return {path: file_sha256(Path(path)) for path in config.report.results}


def run(context: StageContext) -> StageResult:
    """Write report.html and ledger.json; the counts are the job's headline."""
    directory = context.directory
    counts = context.executor.call(write_report, context.config, dict(context.inputs), directory)
    files = {"report": directory / "report.html", "ledger": directory / "ledger.json"}
    return StageResult(
        parts={name: [finish_part(directory, path, 1)] for name, path in files.items()},
        counts=counts,
        columns={
            "report.html": "for people: opens without a network",
            "ledger.json": "for programs: costs in seconds, calls and tokens",
        },
    )


def write_report(config: Config, inputs: Mapping[str, Artifact], directory: Path) -> dict[str, Any]:
    """Collect, draw and write, in a worker; returns the headline.

    The same bytes for the same artifacts. Raises SettingsError for a `known_bad_column` that the
    corpus does not have.
    """
    facts = collect(config, inputs)
    write_json(directory / "ledger.json", facts.ledger.to_dict())
    page = directory / "report.html"
    with atomic_path(page) as temporary:
        temporary.write_text(render(facts), encoding="utf-8")
    return headline(facts, page, inputs["select"].path("subset"))


def headline(facts: Facts, page: Path, subset: Path) -> dict[str, Any]:
    """What the job prints in its last line: JSON without NaN, None for what is undefined."""
    ledger, marked = facts.ledger, facts.known_bad
    pool = facts.funnel[0]
    mix = None if facts.composition is None else facts.composition.mix
    values = {
        "candidates": pool.kept,
        "targets": facts.num_targets,
        "selected": facts.gains.num_picks,
        "quarantined": sum(side.quarantined for side in facts.funnel),
        "leaked": pool.leaked,
        "duplicates": pool.repeated,
        "leaks": None if facts.leaks is None else {s.name: s.kinds for s in facts.leaks.sets},
        "trusted": bool(facts.fidelity["trusted"]),
        "verdict": facts.verdict,
        "student": facts.student,
        "judged_quadrant": facts.fidelity["judged_quadrant"],
        "spearman": facts.fidelity["spearman"],
        "r2": facts.fidelity["r2"],
        "means": facts.fidelity["means"],
        "teacher": ledger.teacher,
        "teacher_calls": ledger.teacher_calls,
        "unscorable": facts.unscorable,
        "teacher_seconds": ledger.teacher_seconds,
        "total_seconds": ledger.total_seconds,
        "full_teacher_seconds": ledger.full_teacher.seconds,
        "saved": ledger.saved,
        "known_bad": None
        if marked is None
        else {
            "selected": marked.selected,
            "in_pool": marked.in_pool,
            "expected_by_chance": marked.chance.mean,
            "cosine_round_robin": marked.free,
        },
        "mix_distance": None
        if mix is None
        else {"selected": mix.selected, "in_pool": mix.pool, "cosine_round_robin": mix.free},
        "quality": None
        if facts.quality is None
        else {
            name: getattr(facts.quality, name)
            for name in ("teacher", "trusted", "calls", "asked", "dropped", "bad_dropped")
        },
        "in_cosine_round_robin": None if facts.free is None else facts.free.in_both,
        "asked_selected": facts.asked_selected,
        "zero_gain_picks": facts.gains.tail_size,
        "report": shown(page.absolute()),
        "subset": shown(subset.absolute()),
    }
    assert all(np.isfinite(v) for v in values.values() if isinstance(v, float)), values
    return values


STAGE = Stage(
    name="report",
    directory="8-report",
    run=run,
    settings=("report", "teacher", "selection"),
    reads=("ingest", "embed", "sample", "score", "fit", "predict", "select"),
    version=4,
    identity=identity,
)
