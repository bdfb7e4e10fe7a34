"""Does it scale: rows on one machine, nodes of one cluster, and what many rows would take.

    python benchmarks/scale.py rows --work DIR --json FILE      # half an hour on two cores
    python benchmarks/scale.py nodes --work DIR --json FILE     # a quarter of an hour
    python benchmarks/scale.py project --json FILE              # arithmetic on the other two

(a) *rows*: the real pipeline, `jobs/select.py` as a process of its own, over 100,000 and 1,000,000
synthetic rows whose encoder costs almost nothing, with the memory of the driver, of Ray's own
processes and of the largest worker as seen from outside.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.process_memory import (
    INTERVAL,
    MEASURES,
    ROLES,
    MemorySampler,
    Sample,
    peak,
    worker_cpu_seconds,
)
from benchmarks.projection import (
    Assumption,
    assumed,
    cost_assumptions,
    costs_of,
    measured_costs,
    project,
)
from benchmarks.provenance import ROOT, markdown_table, save
from benchmarks.scale_nodes import (
    pools_on_nodes,
    run_on_nodes,
    scaled,
    stages_on_nodes,
    subset_digest,
)
from benchmarks.synthetic import write_rows, write_static_encoder
from engine.artifacts.files import read_json
from engine.terminal.progress import say

STAGES = {
    "ingest": "1-corpus",
    "embed": "2-embeddings",
    "sample": "3-sample",
    "score": "4-teacher",
    "fit": "5-student",
    "predict": "6-influence",
    "select": "7-selection",
    "report": "8-report",
}
MIB = 2**20

Row = dict[str, Any]


# --- (a) rows ------------------------------------------------------------------------------------


def fraction_for(labels: int, candidates: int, targets: int) -> float:
    """The share u of the points whose u^2 M N pairs are about so many labels."""
    return min(1.0, math.sqrt(labels / (candidates * targets)))


def write_job(folder: Path, num_rows: int, arguments: argparse.Namespace) -> Path:
    """Write the corpus, the targets, the encoder and the settings; returns the settings' file."""
    folder.mkdir(parents=True, exist_ok=True)
    encoder = encoder_in(folder.parent)
    corpus = write_rows(folder / "corpus.jsonl", num_rows, seed=1)
    targets = write_rows(folder / "targets.jsonl", arguments.targets, seed=2, prefix="target")
    model = {"path": str(encoder)}
    settings = {
        "run_dir": str(folder / "run"),
        "corpus": {"path": str(corpus)},
        "target": {"path": str(targets)},
        "embedding": {"model": model},
        "sample": {"fraction": fraction_for(arguments.labels, num_rows, arguments.targets)},
        "teacher": {"name": "delift_se", "model": model},
        "network": {} if arguments.epochs is None else {"epochs": arguments.epochs},
        "selection": {"budget": arguments.budget},
        "ray": {"num_cpus": arguments.cpus},
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def encoder_in(work: Path) -> Path:
    """The encoder of all runs below a folder."""
    encoder = work / "encoder"
    return encoder if encoder.exists() else write_static_encoder(encoder)


def run_job(path: Path) -> list[Sample]:
    """Run `jobs/select.py` as a process of its own; what its memory was."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "jobs/select.py"), "--config", str(path)]
    with (
        open(path.with_suffix(".out"), "w", encoding="utf-8") as said,
        subprocess.Popen(command, stdout=said, env=environment) as process,
        MemorySampler(process.pid) as sampler,
    ):
        code = process.wait()
    if code:
        raise SystemExit(f"{' '.join(command)} ended with {code}")
    return sampler.samples


def stage_rows(run: Path, num_rows: int, samples: list[Sample]) -> Iterator[Row]:
    """Of each stage: time, memory and files."""
    counts = sizes_of(run)
    for stage, folder in STAGES.items():
        path = run / folder / "manifest.json"
        if not path.is_file():
            continue
        manifest = read_json(path)
        seconds, stop = float(manifest["wall_seconds"]), path.stat().st_mtime
        pools = pool_usage(run / folder, manifest)
        window = {"start": stop - seconds - INTERVAL, "stop": stop + INTERVAL}
        loads = [s.load for s in samples if window["start"] <= s.time <= window["stop"]]
        needed, title = peak(samples, "worker", "anon", **window)
        yield {
            "rows": num_rows,
            "stage": stage,
            "seconds": seconds,
            "us_per_row": 1e6 * seconds / num_rows,
            "worker_cpu_seconds": worker_cpu_seconds(samples, stop - seconds, stop),
            "pool_seconds": pools["seconds"],
            "pool_cpu_seconds": pools["cpu_seconds"],
            **{f"node_{name}": value for name, value in node_usage(manifest).items()},
            "driver_rss_mib": peak(samples, "driver", "rss", **window)[0] / MIB,
            "worker_rss_mib": peak(samples, "worker", "rss", **window)[0] / MIB,
            "worker_anon_mib": needed / MIB,
            "worker": title.removeprefix("ray::"),
            "disk_mib": folder_bytes(run / folder) / MIB,
            "load": statistics.fmean(loads) if loads else None,
            **counts,
        }


def pool_usage(folder: Path, manifest: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of all that the stage did side by side: of its parts, and of its store's.

    Parsed files are parts of the first step of ingest, and gone: what they took is in the usage.
    """
    groups = (group for name, group in manifest["parts"].items() if name not in ON_ONE_NODE)
    records = [part["usage"] for group in groups for part in group]
    store = [read_json(path)["usage"] for path in sorted((folder / "store").rglob("*.json"))]
    names = ("seconds", "cpu_seconds")
    if manifest["kind"] == "ingest":
        return {name: float(manifest["usage"][name]) for name in names}
    return {name: sum(usage.get(name, 0.0) for usage in [*records, *store]) for name in names}


ON_ONE_NODE = ("means", "pools")


def node_usage(manifest: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of what the stage did in one process with the threads of a whole node."""
    records = [p["usage"] for name in ON_ONE_NODE for p in manifest["parts"].get(name, ())]
    names = ("seconds", "cpu_seconds")
    return {name: sum(usage.get(name, 0.0) for usage in records) for name in names}


def sizes_of(run: Path) -> dict[str, int]:
    """Targets, labels to learn from and rows selected of a run."""

    def counts(stage: str) -> dict[str, Any]:
        found: dict[str, Any] = read_json(run / STAGES[stage] / "manifest.json")["counts"]
        return found

    return {
        "targets": counts("ingest")["targets"],
        "labels": counts("sample")["pairs"],
        "training_labels": counts("sample")["training_pairs"],
        "selected": counts("select")["selected"],
    }


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def memory_rows(samples: Mapping[int, list[Sample]]) -> Iterator[Row]:
    """Peaks of each kind of process at each size, and how the last compares with the first."""
    sizes = sorted(samples)
    for role in ROLES:
        for measure in MEASURES:
            peaks = {size: peak(samples[size], role, measure)[0] / MIB for size in sizes}
            row: Row = {"process": role, "measure": measure}
            row |= {f"mib_{size}": value for size, value in peaks.items()}
            if len(sizes) > 1:
                row["ratio"] = peaks[sizes[-1]] / peaks[sizes[0]]
            yield row


STAGE_COLUMNS = (
    "rows", "stage", "seconds", "us_per_row", "worker_cpu_seconds", "pool_cpu_seconds",
    "driver_rss_mib", "worker_rss_mib", "worker_anon_mib", "worker", "disk_mib", "load",
)  # fmt: skip


def rows_command(arguments: argparse.Namespace) -> None:
    """(a)."""
    found: list[Row] = []
    samples: dict[int, list[Sample]] = {}
    for size in arguments.sizes:
        folder = arguments.work / f"rows-{size}"
        say(f"{size:,} rows")
        samples[size] = run_job(write_job(folder, size, arguments))
        found += stage_rows(folder / "run", size, samples[size])
        print(markdown_table([row for row in found if row["rows"] == size], STAGE_COLUMNS))
    memory = list(memory_rows(samples))
    columns = ("process", "measure", *(f"mib_{size}" for size in sorted(samples)), "ratio")
    print(markdown_table(memory, columns))
    if arguments.json:
        last = arguments.sizes[-1]
        corpus = arguments.work / f"rows-{last}/corpus.jsonl"
        said = {
            name: getattr(arguments, name)
            for name in ("sizes", "targets", "labels", "epochs", "budget", "cpus")
        }
        said["text_bytes"] = corpus.stat().st_size / last
        save(arguments.json, "scale", said, [*found, *memory], threads=arguments.cpus)


# --- (b) nodes -----------------------------------------------------------------------------------


def nodes_command(arguments: argparse.Namespace) -> None:
    """(b)."""
    seconds = (arguments.row_s, arguments.point_s, arguments.pair_s)
    arguments.work.mkdir(parents=True, exist_ok=True)
    model = {"path": str(encoder_in(arguments.work))}  # never loaded: it gives the settings a name
    corpus = write_rows(arguments.work / "corpus.jsonl", arguments.rows, seed=1)
    targets = write_rows(
        arguments.work / "targets.jsonl", arguments.targets, seed=2, prefix="target"
    )
    settings = {
        "corpus": {"path": str(corpus)},
        "target": {"path": str(targets)},
        "embedding": {"model": model},
        "sample": {"fraction": fraction_for(arguments.labels, arguments.rows, arguments.targets)},
        "teacher": {"name": "delift", "model": {**model, "dtype": "float32"}},
        "network": {"members": 1, "epochs": 20, "num_workers": 1},
        "selection": {"budget": 500},
    }
    stages: list[Row] = []
    pools: list[Row] = []
    subsets = {}
    for nodes in arguments.nodes:
        say(f"{nodes} nodes")
        directory = run_on_nodes(settings, arguments.work / f"nodes-{nodes}", nodes, seconds)
        stages += stages_on_nodes(directory, nodes, seconds)
        pools += pools_on_nodes(directory, nodes, seconds)
        subsets[nodes] = subset_digest(directory)
    same = len(set(subsets.values())) == 1
    print(markdown_table(scaled(stages, "seconds"), NODE_COLUMNS))
    print(markdown_table(scaled(pools, "span_s"), POOL_COLUMNS))
    print(
        f"the subset is {'the same bytes' if same else 'NOT the same'} on {arguments.nodes} nodes"
    )
    if arguments.json:
        names = ("nodes", "rows", "targets", "labels", "row_s", "point_s", "pair_s")
        said = {name: getattr(arguments, name) for name in names} | {"same_subset": same}
        rows = [*scaled(stages, "seconds"), *scaled(pools, "span_s")]
        save(arguments.json, "scale-nodes", said, rows, threads=1)
    if not same:
        raise SystemExit(1)


NODE_COLUMNS = (
    "nodes", "stage", "seconds", "ideal_s", "beyond_s", "speedup", "efficiency",
)  # fmt: skip
POOL_COLUMNS = (
    "nodes", "pool", "parts", "starts_after_s", "span_s", "ideal_s", "worked_s",
    "overhead_ms_per_part", "busy", "speedup", "efficiency",
)  # fmt: skip


# --- (c) project ---------------------------------------------------------------------------------

# The defaults; each is a flag of the command.
FLAGS = (
    Assumption("labels", 100_000, "pairs", "chosen", "as many for any number of rows, u by that"),
    Assumption("targets", 10_000, "rows", "chosen", "as in the rows benchmark"),
    Assumption(
        "selected", 10_000, "rows", "chosen", "as in the rows benchmark at its largest size"
    ),
    Assumption("gpus_per_node", 8, "", "assumed", "usual machine of a cloud"),
    Assumption(
        "cores_per_node", 96, "", "assumed", "as usual; each as fast as one of this machine"
    ),
    Assumption("gpu_tflops", 312, "TFLOP/s", "assumed", "NVIDIA A100 data sheet, dense bfloat16"),
    Assumption("encoder_utilisation", 0.0994, "", "measured", "gpu.json: of a large product, H200"),
    Assumption("teacher_utilisation", 0.276, "", "measured", "gpu.json: delift, the same"),
    Assumption("encoder_params", 335e6, "", "assumed", "BAAI/bge-large-en-v1.5, the publication's"),
    Assumption("dim", 1024, "", "assumed", "of its vectors: files and cosines grow with it"),
    Assumption("tokens_per_row", 256, "tokens", "assumed", "prompt and answer of usual rows"),
    Assumption("teacher_params", 3.8e9, "", "assumed", "Phi-3-mini, the publication's"),
    Assumption("tokens_per_pair", 400, "tokens", "assumed", "the target's, the example read once"),
    Assumption("storage_bytes_s", 2e9, "B/s", "assumed", "shared file system, all nodes together"),
)
PROJECTED = (
    "rows", "gpus", "stage", "seconds", "start_s", "serial_s", "cpu_s", "gpu_s", "storage_s",
    "parts_s", "worker_gib", "disk_gib", "hours",
)  # fmt: skip


def project_command(arguments: argparse.Namespace) -> None:
    """(c)."""
    on_rows, on_nodes = read_json(arguments.rows_json), read_json(arguments.nodes_json)
    stages = [row for row in on_rows["rows"] if "stage" in row]
    costs = {name: costs_of(name, stages, on_rows["settings"]["cpus"]) for name in STAGES}
    flags = [replace(flag, value=getattr(arguments, flag.name)) for flag in FLAGS]
    pools = [row for row in on_nodes["rows"] if "pool" in row]
    assumptions = [*assumed(flags), *measured_costs(stages, pools, on_rows["settings"])]
    known = {item.name: item.value for item in assumptions}
    table = [
        row
        for size in arguments.sizes
        for gpus in arguments.gpus
        for row in project(size, gpus, costs, known)
    ]
    told = [vars(item) for item in [*assumptions, *cost_assumptions(costs)]]
    print(markdown_table(table, PROJECTED))
    print()
    print(markdown_table(told, ("name", "value", "unit", "kind", "source")))
    if arguments.json:
        said = {flag.name: flag.value for flag in flags}
        save(arguments.json, "scale-projection", said, [*table, *told], threads=1)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    rows = commands.add_parser("rows", help="many rows on this machine")
    rows.set_defaults(command=rows_command)
    rows.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    rows.add_argument("--targets", type=int, default=10_000)
    rows.add_argument("--labels", type=int, default=10_000, help="pairs asked, whatever the size")
    rows.add_argument("--epochs", type=int, help="of the fit; default: the engine's own")
    rows.add_argument("--budget", type=float, default=0.01, help="share that is selected")
    rows.add_argument("--cpus", type=int, default=2)
    rows.add_argument("--work", type=Path, required=True)
    rows.add_argument("--json", type=Path)
    nodes = commands.add_parser("nodes", help="Ray nodes on this machine, models asleep")
    nodes.set_defaults(command=nodes_command)
    nodes.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4])
    nodes.add_argument("--rows", type=int, default=16_384)
    nodes.add_argument("--targets", type=int, default=256)
    nodes.add_argument("--labels", type=int, default=4_000)
    nodes.add_argument("--row-s", type=float, default=0.003, help="of the encoder")
    nodes.add_argument("--point-s", type=float, default=0.02, help="of the teacher")
    nodes.add_argument("--pair-s", type=float, default=0.015, help="of the teacher")
    nodes.add_argument("--work", type=Path, required=True)
    nodes.add_argument("--json", type=Path)
    project_to = commands.add_parser("project", help="many rows on many GPUs: arithmetic")
    project_to.set_defaults(command=project_command)
    results = ROOT / "benchmarks/results"
    project_to.add_argument("--rows-json", type=Path, default=results / "scale.json")
    project_to.add_argument("--nodes-json", type=Path, default=results / "scale-nodes.json")
    project_to.add_argument("--sizes", type=int, nargs="+", default=[10**6, 10**7, 10**8])
    project_to.add_argument("--gpus", type=int, nargs="+", default=[8, 64])
    for flag in FLAGS:
        name, told = flag.name.replace("_", "-"), f"{flag.unit}; {flag.source}"
        project_to.add_argument(f"--{name}", type=float, default=flag.value, help=told)
    project_to.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.command(arguments)


if __name__ == "__main__":
    main()
