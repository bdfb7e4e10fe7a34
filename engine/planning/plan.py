"""Plan: read the corpus, probe some random rows, and say what the run would take.

Nothing of the run directory is touched: the probes work beside it, in RUN.plan, which is removed.
Costs reading the corpus, loading each model, and `PROBE_SECONDS` of work for each kind of answer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.artifacts.rows import TableParts, target_side
from engine.artifacts.run_directory import Artifact, RunDirectory, discard
from engine.config import Config, ModelConfig
from engine.errors import SettingsError
from engine.features.feature import sources_of
from engine.models.resolve import resolve
from engine.planning.estimate import Prices, StageEstimate, estimate, totals
from engine.planning.machines import Machines, this_machine
from engine.planning.probe import (
    PIECE,
    Price,
    probe_encoder,
    probe_network,
    probe_preparation,
    probe_reading,
    probe_teacher,
)
from engine.planning.sizes import Asked, Sizes, asked_for, sizes_of
from engine.runtime.executor import Executor
from engine.runtime.opening import opened
from engine.runtime.workflow import do_stage, paths_to_see, plan_stages
from engine.stages.pipeline import STAGES
from engine.stages.quality import config_of_gate
from engine.teachers.teacher import Side, teacher_class

__all__ = ["Plan", "headline", "make_plan", "model_bytes", "table", "wall_of"]

PROBED_ROWS = 100  # of each side and kind, at most
READ_ROWS = 16  # by the language model, with and without their prompt
PREPARED_ROWS = 8
PROBE_SECONDS = 45.0
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Plan:
    """What a run would take, for the settings and for asking the teacher about everything.

    Attributes:
        sizes, asked, asked_everything: the counts behind it.
        stages, everything: the estimates.
        prices: measured.
        machines: where the hours are told for; the first is this machine.
        gpu_speedup: how many workers of this machine one GPU is taken for, if told.
        remarks: every assumption, one sentence each.
    """

    sizes: Sizes
    asked: Asked
    asked_everything: Asked
    stages: list[StageEstimate]
    everything: list[StageEstimate]
    prices: Prices
    machines: list[Machines]
    gpu_speedup: float | None
    remarks: list[str]


def make_plan(
    config: Config,
    *,
    run_dir: Path | str | None = None,
    cluster: Machines | None = None,
    gpu_speedup: float | None = None,
) -> Plan:
    """Read, probe and estimate.

    Args:
        config: the run's settings.
        run_dir: in place of the config's.
        cluster: to tell the hours for, beside this machine.
        gpu_speedup: workers of this machine that one GPU of the cluster does the work of.

    Raises SettingsError for a teacher that costs nothing, and what reading the corpus and loading
    the models raise.
    """
    if config.teacher.facts.from_embeddings:
        raise SettingsError(
            f"a plan measures what the teacher costs, and teacher {config.teacher.name} costs "
            "nothing: start the run"
        )
    home = RunDirectory.at(run_dir or config.run_dir).path
    scratch = home.with_name(home.name + ".plan")
    discard(scratch)
    try:
        with opened(config) as executor:
            executor.refuse_unseen(paths_to_see(config, RunDirectory(scratch)))
            sizes, asked, full, prices = _measure(config, RunDirectory(scratch), executor)
    finally:
        discard(scratch)
    return Plan(
        sizes,
        asked,
        full,
        estimate(config, sizes, asked, prices),
        estimate(config, sizes, full, prices),
        prices,
        [this_machine(), *([] if cluster is None else [cluster])],
        gpu_speedup,
        _remarks(config, asked, cluster, gpu_speedup),
    )


def _measure(
    config: Config, scratch: RunDirectory, executor: Executor
) -> tuple[Sizes, Asked, Asked, Prices]:
    started = time.perf_counter()
    (reading,) = plan_stages(STAGES[:1], config, scratch)
    do_stage(reading, config, scratch, STAGES, executor)
    ingest_seconds = time.perf_counter() - started
    corpus = scratch.artifact(STAGES[0].directory)
    assert corpus is not None, "the corpus was not read"
    sizes = sizes_of(config, corpus)
    asked, full = executor.call(asked_for, config, corpus)
    kind, cpus = teacher_class(config.teacher.name), this_machine().cpus
    group = target_side(corpus)
    groups: dict[Side, str] = {"candidate": "candidates", "target": group}
    rows = {
        side: executor.call(_random_rows, corpus, name, config.seed)
        for side, name in groups.items()
    }
    shares = {name: rows[s] for s, name in groups.items() if name != "candidates" or s != "target"}
    actors = max(1, cpus // config.embedding.model.threads)
    encoder = probe_encoder(
        executor,
        config,
        corpus,
        _in_proportion(shares, corpus),
        scratch.path,
        actors,
        PROBE_SECONDS,
    )
    prepared, one, to_gate = None, 0.0, dict[str, Price]()
    if asked.prepared:
        few = rows["candidate"][:PREPARED_ROWS]
        prepared, one = probe_preparation(executor, config, corpus, few, scratch.path)
    actors = max(1, cpus // config.teacher.model.threads)
    teacher: dict[str, Price] = {}
    if not config.teacher.facts.is_given:
        teacher = probe_teacher(
            executor, config, corpus, rows, groups, prepared, scratch.path, actors, PROBE_SECONDS
        )
    memory = {"encoder": model_bytes(config.embedding.model)}
    memory["teacher"] = model_bytes(config.teacher.model) if kind.default_model else 2**28
    if asked.gate is not None and asked.gate.answers:
        gate = config_of_gate(config)
        own_model = gate.teacher.facts.default_model is not None
        memory["gate"] = model_bytes(gate.teacher.model) if own_model else 2**28
        actors_of_gate = max(1, cpus // gate.teacher.model.threads)
        to_gate = probe_teacher(
            executor, gate, corpus, rows, groups, None, scratch.path, actors_of_gate,
            PROBE_SECONDS, label="probe gate",
        )  # fmt: skip
    found = executor.call(probe_network, config.network, encoder.width)
    read: Price | None = None
    if "reading" in sources_of(config.features):
        few = rows["candidate"][:READ_ROWS]
        read = probe_reading(executor, config, corpus, few, scratch.path, actors, PROBE_SECONDS)
    prices = Prices(
        encoder, teacher, one, found, ingest_seconds, encoder.width, memory, read, to_gate
    )
    return sizes, asked, full, prices


def _random_rows(corpus: Artifact, group: str, seed: int) -> list[int]:
    """Up to PROBED_ROWS random rows of a side."""
    count = len(TableParts(corpus, group))
    order = np.random.default_rng(seed).permutation(count)[:PROBED_ROWS]
    return [int(row) for row in order]


def _in_proportion(rows: Mapping[str, list[int]], corpus: Artifact) -> dict[str, list[int]]:
    """Rows of each side as they are in the corpus, since sides differ in length."""
    counts = {side: len(TableParts(corpus, side)) for side in rows}
    whole = sum(counts.values())
    return {
        side: some[: max(1, round(PROBED_ROWS * counts[side] / whole))]
        for side, some in rows.items()
    }


def model_bytes(config: ModelConfig) -> int:
    """Memory of a model's weights, from the sizes of its files; of a hub model unknown, 0."""
    resolved = resolve(config)
    if not resolved.is_local:
        return 0
    files = sum(path.stat().st_size for path in Path(resolved.source).rglob("*.safetensors"))
    stored = json.loads((Path(resolved.source) / "config.json").read_text(encoding="utf-8"))
    was = _BYTES.get(str(stored.get("dtype", stored.get("torch_dtype", "float32"))), 4)
    wanted = {"nf4": 0.6, "int8": 1.1}.get(str(config.quantization), _BYTES[config.dtype])
    return int(files / was * wanted)


def _remarks(
    config: Config, asked: Asked, cluster: Machines | None, gpu_speedup: float | None
) -> list[str]:
    remarks = [
        "Prices are those of random rows on this machine, as it is loaded now; intervals are 95 %.",
        "Reading the corpus is measured, whole; fit, prediction and selection on random numbers.",
        f"Features of a row: {', '.join(config.features)}; prompt and response together are taken "
        "for as long as the text.",
        "A network's fit ends early: twice network.patience epochs are expected, network.epochs "
        "are the most.",
    ]
    if config.gate.on_low_fidelity == "extend" and not asked.everything:
        remarks.append(
            "gate.on_low_fidelity extend may ask for more, up to "
            f"gate.max_fraction {config.gate.max_fraction:g}: that is not counted."
        )
    if asked.gate is not None:
        remarks.append(
            "Answers of the quality gate are counted as if the main teacher had none of them."
        )
    if config.teacher.facts.shares_candidate:
        remarks.append(
            f"A candidate of the probe has {PIECE} targets; with more, what they share costs less."
        )
    if cluster is not None and cluster.gpus:
        remarks.append(
            "How fast a GPU is cannot be measured here: give --gpu-speedup."
            if gpu_speedup is None
            else f"One GPU is taken for {gpu_speedup:g} workers of this machine, as you said."
        )
    return remarks


# --- for people ----------------------------------------------------------------------------------


def table(stages: Sequence[StageEstimate], plan: Plan) -> str:
    """The estimates as lines of text."""
    heads = ["stage", "rows", "calls", "worker", "95 %"]
    heads += [machine.name for machine in plan.machines] + ["memory", "disk"]
    lines = [heads]
    for stage in stages:
        lines.append(
            [
                stage.name,
                f"{stage.rows:,}",
                f"{stage.calls:,}" if stage.calls else "",
                _time(stage.worker_seconds),
                f"{_time(stage.low)} to {_time(stage.high)}",
                *(_time(stage.wall_seconds(m, plan.gpu_speedup)) for m in plan.machines),
                _bytes(stage.memory_bytes),
                _bytes(stage.disk_bytes),
            ]
        )
    whole = totals(stages)
    walls = [wall_of(stages, machine, plan.gpu_speedup) for machine in plan.machines]
    lines.append(
        [
            "all",
            "",
            f"{int(whole['calls']):,}",
            _time(whole["worker_seconds"]),
            f"{_time(whole['low'])} to {_time(whole['high'])}",
            *map(_time, walls),
            _bytes(whole["memory_bytes"]),
            _bytes(whole["disk_bytes"]),
        ]
    )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def wall_of(
    stages: Sequence[StageEstimate], machines: Machines, gpu_speedup: float | None
) -> float | None:
    """Wall seconds of all stages; None where one needs to know how fast a GPU is."""
    walls = [stage.wall_seconds(machines, gpu_speedup) for stage in stages]
    return None if any(wall is None for wall in walls) else sum(w for w in walls if w is not None)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


def headline(plan: Plan) -> dict[str, Any]:
    """The plan as JSON."""

    def told(stages: Sequence[StageEstimate]) -> dict[str, Any]:
        walls = {m.name: wall_of(stages, m, plan.gpu_speedup) for m in plan.machines}
        return {
            **totals(stages),
            "wall_seconds": walls,
            "stages": [stage.to_dict() for stage in stages],
        }

    return {
        "candidates": plan.sizes.candidates,
        "targets": plan.sizes.targets,
        "selected": plan.sizes.selected,
        "teacher_calls": int(totals(plan.stages)["calls"]),
        "full_teacher_calls": plan.asked_everything.calls,
        "run": told(plan.stages),
        "everything": told(plan.everything),
    }
