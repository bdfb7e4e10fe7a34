"""The real pipeline on clusters of 1, 2 and 4 Ray nodes on this machine, its models asleep.

What a stage's pool took is told apart by the records of its parts: how long each was worked on,
and when the first was begun and the last was done.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.provenance import ROOT
from benchmarks.simulated import worker_environment
from engine.artifacts.files import file_sha256, read_json
from engine.artifacts.run_directory import RunDirectory

__all__ = [
    "PoolTimes",
    "pool_times",
    "pools_on_nodes",
    "run_on_nodes",
    "scaled",
    "stages_on_nodes",
    "subset_digest",
]

OBJECT_STORE_BYTES = 150 * 2**20

Row = dict[str, Any]
Costs = tuple[float, float, float]  # seconds of a row, a point and a pair


@dataclass(frozen=True)
class PoolTimes:
    """What one actor pool did, in seconds.

    Attributes:
        parts: pieces of work.
        worked: summed over the parts, the models' time among it.
        begun, done: when the first part was begun and the last was done, wall-clock time.
    """

    parts: int
    worked: float
    begun: float
    done: float

    @property
    def span(self) -> float:
        """Seconds between the two."""
        return self.done - self.begun


def pool_times(folder: Path, pattern: str) -> PoolTimes:
    """From the records of the parts below a folder whose data files match the pattern."""
    records = sorted(folder.rglob(f"{pattern}.json"))
    seconds = [float(read_json(record)["usage"]["seconds"]) for record in records]
    done = [record.stat().st_mtime for record in records]
    begun = min(end - took for end, took in zip(done, seconds, strict=True))
    return PoolTimes(len(records), sum(seconds), begun, max(done))


def run_on_nodes(
    settings: Mapping[str, Any], run_dir: Path, nodes: int, seconds: Costs
) -> RunDirectory:
    """Run up to the selection on a head without CPUs and so many nodes of one CPU each.

    `seconds` are those of a row, a point and a pair; see `worker_environment`.
    """
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ["PYTHONPATH"] = str(ROOT)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # as `connected` has it
    import ray
    from ray.cluster_utils import Cluster

    from engine.config import parse_config
    from engine.stages.pipeline import run

    head = {"num_cpus": 0, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES)
        ray.init(
            address=cluster.address,
            runtime_env=worker_environment(*seconds),
            log_to_driver=False,
            logging_level="ERROR",
        )
        cluster.wait_for_nodes()
        return run(parse_config(dict(settings)), run_dir=run_dir, until="select")
    finally:
        ray.shutdown()
        cluster.shutdown()


def stages_on_nodes(directory: RunDirectory, nodes: int, seconds: Costs) -> list[Row]:
    """Of the stages with models: seconds beside those that the models sleep at least."""
    ideal_of = ideal_seconds(directory, seconds)
    sums = {
        "embed": ideal_of["embed"],
        "score": ideal_of["score: points"] + ideal_of["score: pairs"],
    }
    rows = []
    for stage, ideal in sums.items():
        took = float(_manifest(directory, stage)["wall_seconds"])
        beyond = took - ideal / nodes
        rows.append(
            {"nodes": nodes, "stage": stage, "seconds": took, "ideal_s": ideal / nodes}
            | {"beyond_s": beyond}
        )
    return rows


def pools_on_nodes(directory: RunDirectory, nodes: int, seconds: Costs) -> list[Row]:
    """Of the actor pools of those stages: from the first part's begin to the last one's end."""
    ideal_of, rows = ideal_seconds(directory, seconds), []
    for pool, (stage, pattern) in _POOLS.items():
        folder = directory.path / _FOLDERS[stage]
        times, ideal = pool_times(folder, pattern), ideal_of[pool]
        began = (folder / "manifest.json").stat().st_mtime
        began -= float(_manifest(directory, stage)["wall_seconds"])
        row = {"nodes": nodes, "pool": pool, "parts": times.parts}
        row |= {"starts_after_s": times.begun - began, "span_s": times.span}
        row |= {"ideal_s": ideal / nodes, "worked_s": times.worked / nodes}
        row["overhead_ms_per_part"] = 1e3 * (nodes * times.span - ideal) / times.parts
        row["busy"] = ideal / nodes / times.span
        rows.append(row)
    return rows


_FOLDERS = {"embed": "2-embeddings", "score": "4-teacher"}
_POOLS = {
    "embed": ("embed", "*.npy"),
    "score: points": ("score", "features-*/*.arrow"),
    "score: pairs": ("score", "pairs/*.parquet"),
}


def _manifest(directory: RunDirectory, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(directory.path / _FOLDERS[stage] / "manifest.json")
    return found


def ideal_seconds(directory: RunDirectory, seconds: Costs) -> dict[str, float]:
    """Seconds that the models sleep, by pool, from what the manifests count."""
    embedded, usage = (
        _manifest(directory, "embed")["counts"],
        _manifest(directory, "score")["usage"],
    )
    return {
        "embed": (embedded["candidates"] + embedded["targets"]) * seconds[0],
        "score: points": usage["features_target_rows"] * seconds[1],
        "score: pairs": usage["pairs_rows"] * seconds[2],
    }


def scaled(rows: Sequence[Row], measure: str) -> list[Row]:
    """The rows with how much less of the measure it was than on the fewest nodes, and per node."""
    first: dict[str, Row] = {}
    out = []
    for row in sorted(rows, key=lambda row: row["nodes"]):
        base = first.setdefault(row.get("stage") or row["pool"], row)
        speedup = base[measure] / row[measure]
        more = {"speedup": speedup, "efficiency": speedup * base["nodes"] / row["nodes"]}
        out.append({**row, **more})
    return out


def subset_digest(directory: RunDirectory) -> str:
    """What must be the same for any number of nodes: sha256 of the subset."""
    return file_sha256(directory.path / "7-selection/subset.jsonl")
