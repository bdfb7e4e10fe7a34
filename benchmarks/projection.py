"""From what was measured on two cores to many rows on many GPUs: arithmetic, and its assumptions.

Every number is an `Assumption`: measured here, or taken from somewhere that it names. A stage takes

    start + serial * rows + CPU / cores + models / GPUs + files / storage + part * parts / actors

where serial is what single processes computed for each row more, and start the wall seconds beyond
all that at the smallest size. So it says what the code as it is would take, single processes
included, and not what could be.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.synthetic import DIM
from engine.corpus import layout
from engine.influence.pairs import UNIT_ROWS
from engine.selection.nearest import BLOCK_ROWS
from engine.stages.predict import BLOCK_PAIRS, MAX_MEAN_THREADS
from engine.teachers.missing import PARTS_AIMED_AT, POINTS_PER_BUCKET

__all__ = [
    "STAGES",
    "Assumption",
    "Line",
    "StageCosts",
    "assumed",
    "cost_assumptions",
    "costs_of",
    "line",
    "measured_costs",
    "project",
]

STAGES = ("ingest", "embed", "sample", "score", "fit", "predict", "select", "report")

Row = dict[str, Any]


@dataclass(frozen=True)
class Assumption:
    """A number, its unit, how it is known, and where it comes from."""

    name: str
    value: float
    unit: str
    kind: Literal["measured", "counted", "chosen", "assumed"]
    source: str


@dataclass(frozen=True)
class Line:
    """fixed + slope x rows, neither below 0."""

    fixed: float
    slope: float

    def at(self, rows: float) -> float:
        return self.fixed + self.slope * rows


def line(points: Sequence[tuple[float, float]]) -> Line:
    """Through the first and the last of points (rows, value).

    A value that falls with the rows is noise round a constant: the larger of the two, and no slope.
    One that rises faster than the rows has no fixed part.
    """
    (x0, y0), (x1, y1) = points[0], points[-1]
    slope = max(0.0, (y1 - y0) / (x1 - x0)) if x1 > x0 else 0.0
    if slope == 0.0:
        return Line(max(y0, y1), 0.0)
    fixed = y0 - slope * x0
    return Line(fixed, slope) if fixed >= 0 else Line(0.0, y1 / x1)


@dataclass(frozen=True)
class StageCosts:
    """Of one stage, from the measured sizes.

    Attributes:
        serial: seconds outside of what ran side by side, by rows: wall at the smallest size, and
            CPU for each row more, since wall seconds of a busy machine are no line.
        parallel_s: CPU seconds of the side by side, for each of `units`.
        node_s: CPU seconds for each pair of what one process does with a node's threads.
        memory: anonymous bytes of its largest worker, by rows.
        disk: bytes that it leaves, by rows.
    """

    serial: Line
    parallel_s: float
    node_s: float
    memory: Line
    disk: Line


def costs_of(stage: str, measured: Sequence[Mapping[str, Any]], cpus: int) -> StageCosts:
    """From the rows of the `rows` benchmark, by ascending size."""
    found = [row for row in measured if row["stage"] == stage]
    first, last = found[0], found[-1]
    slope = line([(r["rows"], _alone_cpu(r)) for r in found]).slope
    alone = first["seconds"] - first["pool_seconds"] / cpus - first["node_seconds"]
    memory = line([(r["rows"], r["worker_anon_mib"] * 2**20) for r in found])
    if stage == "fit":  # it holds the sampled rows, of which there are not more
        memory = Line(max(r["worker_anon_mib"] for r in found) * 2**20, 0.0)
    return StageCosts(
        serial=Line(max(0.0, alone - slope * first["rows"]), slope),
        parallel_s=last["pool_cpu_seconds"] / units(stage, last["rows"], last["targets"], last),
        node_s=last["node_cpu_seconds"] / (last["rows"] * last["targets"]),
        memory=memory,
        disk=line([(r["rows"], r["disk_mib"] * 2**20) for r in found]),
    )


def _alone_cpu(row: Mapping[str, Any]) -> float:
    """CPU seconds of workers beyond what they did side by side: single processes, and starts."""
    spent: float = row["worker_cpu_seconds"] - row["pool_cpu_seconds"] - row["node_cpu_seconds"]
    return max(0.0, spent)


def units(stage: str, rows: float, targets: float, counts: Mapping[str, Any]) -> float:
    """What the side-by-side work of a stage grows with."""
    return {
        "ingest": rows + targets,
        "embed": rows + targets,
        "predict": rows * targets,  # pairs
        "select": rows * counts["selected"],  # cosines of each row with what is selected
        "score": counts["labels"],
    }.get(stage, rows)


def project(
    rows: int, gpus: int, costs: Mapping[str, StageCosts], known: Mapping[str, float]
) -> Iterator[Row]:
    """Seconds of each stage by what they are spent on, and the sum.

    `known` are the values of the assumptions by name.
    """
    disk = {name: cost.disk.at(rows) for name, cost in costs.items()}
    disk["embed"] *= known["dim"] / known["measured_dim"]
    stages = []
    for stage in STAGES:
        spent = _spent(stage, costs[stage], rows, gpus, known)
        spent["storage_s"] = _bytes_moved(stage, disk, rows, gpus, known) / known["storage_bytes_s"]
        row: Row = {"rows": rows, "gpus": gpus, "stage": stage, "seconds": sum(spent.values())}
        row |= {**spent, "disk_gib": disk[stage] / 2**30}
        stages.append({**row, "worker_gib": costs[stage].memory.at(rows) / 2**30})
    yield from stages
    names = [name for name in stages[0] if name.endswith("_s") or name in ("seconds", "disk_gib")]
    total = {name: sum(row[name] for row in stages) for name in names}
    total["worker_gib"] = max(row["worker_gib"] for row in stages)
    yield {"rows": rows, "gpus": gpus, "stage": "sum", "hours": total["seconds"] / 3600, **total}


def _spent(
    stage: str, cost: StageCosts, rows: int, gpus: int, known: Mapping[str, float]
) -> dict[str, float]:
    targets = known["targets"]
    model_s = {
        "embed": (rows + targets) / known["encoder_rows_per_gpu_s"],
        "score": known["labels"] / known["teacher_pairs_per_gpu_s"],
    }
    # an actor that holds a GPU has one core busy beside it
    cores = gpus / known["gpus_per_node"] * known["cores_per_node"]
    actors = gpus if stage in model_s else cores
    work = cost.parallel_s * units(stage, rows, targets, known)
    if stage == "select":  # cosines of embeddings
        work *= known["dim"] / known["measured_dim"]
    threads = min(MAX_MEAN_THREADS, known["cores_per_node"])
    parts = _parts(stage, rows, targets)
    start, serial = cost.serial.fixed, cost.serial.slope * rows
    if stage == "fit":  # by labels, whatever the rows
        start, serial = 0.0, known["fit_label_s"] * known["labels"]
    return {
        "start_s": start,
        "serial_s": serial,
        "cpu_s": work / actors + cost.node_s * rows * targets / threads,
        "gpu_s": model_s.get(stage, 0.0) / gpus,
        "parts_s": parts * known["part_s"] / min(actors, max(parts, 1.0)),
    }


def _bytes_moved(
    stage: str, disk: Mapping[str, float], rows: int, gpus: int, known: Mapping[str, float]
) -> float:
    """What a stage writes, and what it reads of earlier artifacts as a whole."""
    read = {
        "ingest": known["text_bytes"] * rows,
        "embed": disk["ingest"],
        "sample": disk["ingest"] + disk["embed"],  # ids, and clusters of the vectors
        # every node maps the units of all rows
        "predict": disk["embed"] + disk["predict"] * gpus / known["gpus_per_node"],
        "select": disk["embed"] + disk["ingest"],
    }
    return disk[stage] + read.get(stage, 0.0)


# --- the assumptions -----------------------------------------------------------------------------


def assumed(flags: Sequence[Assumption]) -> list[Assumption]:
    """Those of the command line, and what follows from them."""
    found = list(flags)
    value = {item.name: item.value for item in found}
    models = {
        "encoder": ("encoder_rows_per_gpu_s", "tokens_per_row"),
        "teacher": ("teacher_pairs_per_gpu_s", "tokens_per_pair"),
    }
    for model, (name, per_unit) in models.items():
        flops = 1e12 * value["gpu_tflops"] * value[f"{model}_utilisation"]
        speed = flops / (2 * value[f"{model}_params"] * value[per_unit])
        source = f"gpu_tflops x {model}_utilisation / (2 x {model}_params x {per_unit})"
        found.append(Assumption(name, speed, "1/s", "assumed", source))
    return found


def measured_costs(
    rows: Sequence[Mapping[str, Any]],
    pools: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> list[Assumption]:
    """What `project` needs beside the stages: of the `rows` and the `nodes` benchmark."""
    fits = [row for row in rows if row["stage"] == "fit"]
    embedded = [row for row in pools if row["pool"] == "embed"]
    most = max(row["nodes"] for row in pools)
    part = next(row for row in embedded if row["nodes"] == most)["overhead_ms_per_part"] / 1e3
    # the same work at every size: what else ran on the machine only adds
    fit = min(row["seconds"] / row["training_labels"] for row in fits)
    return [
        Assumption(
            "fit_label_s", fit, "s", "measured", "rows: fit, the least of seconds / training labels"
        ),
        Assumption("part_s", part, "s", "measured", f"nodes: embed on {most} nodes, beyond sleep"),
        Assumption("measured_dim", DIM, "", "counted", "rows: D of the static encoder"),
        Assumption(
            "text_bytes",
            settings["text_bytes"],
            "B/row",
            "counted",
            "rows: size of the corpus file",
        ),
    ]


def cost_assumptions(costs: Mapping[str, StageCosts]) -> Iterator[Assumption]:
    """The measured costs of the stages, as lines of the same table."""
    for stage, cost in costs.items():
        rows = "rows: line through the sizes"
        start = "rows: wall beyond the rest at the smallest size"
        yield Assumption(f"{stage}, start", cost.serial.fixed, "s", "measured", start)
        slope, alone = 1e6 * cost.serial.slope, f"{rows}, CPU of workers outside of pools"
        yield Assumption(f"{stage}, serial", slope, "us/row", "measured", alone)
        if cost.parallel_s:
            unit = f"us/{_UNIT_NAMES.get(stage, 'row')}"
            source = "rows: CPU seconds of the parts at the largest size"
            yield Assumption(f"{stage}, cpu", 1e6 * cost.parallel_s, unit, "measured", source)
        if cost.node_s:
            source = f"rows: CPU seconds at the largest size, on up to {MAX_MEAN_THREADS} threads"
            yield Assumption(f"{stage}, means", 1e6 * cost.node_s, "us/pair", "measured", source)
        per_row = cost.disk.slope
        yield Assumption(f"{stage}, files", per_row, "B/row", "measured", rows)
        memory = cost.memory.slope
        yield Assumption(
            f"{stage}, largest worker", memory, "B/row", "measured", f"{rows}, anonymous memory"
        )


_UNIT_NAMES = {"predict": "pair", "select": "cosine", "score": "label"}


def _parts(stage: str, rows: float, targets: float) -> float:
    """Pieces of work on actor pools, as the stages cut it; of predict a block of targets each."""
    wanted = max(1, int(rows) // layout.PARTS_AIMED_AT)
    size = min(max(1 << (wanted - 1).bit_length(), layout.SMALLEST_PART), layout.LARGEST_PART)
    block = min(UNIT_ROWS, max(64, 2 ** int(math.log2(max(1, BLOCK_PAIRS // rows)))))
    return {
        "ingest": rows / size,
        "embed": rows / size,
        "score": targets / POINTS_PER_BUCKET + PARTS_AIMED_AT,
        "predict": 2 * rows / UNIT_ROWS + targets / block,
        "select": rows / BLOCK_ROWS,
    }.get(stage, 0.0)
