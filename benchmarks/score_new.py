"""New rows for a finished run: what they cost, and that they get the influence of a full rerun.

    python benchmarks/score_new.py --work DIR --json FILE        # a quarter of an hour on two cores

A run over some rows of ../shared/data/corpus.parquet (DELIFT (SE), target gsm8k), then
`engine.score_new` with ever more other rows of it, each to a run that has none of them. `wall_s` is
all of it, `embed_s`, `predict_s` and `select_s` the worker seconds of those stages. The largest
addition is compared with predicting all rows, old and new, embedded anew, by the same network:
`difference` is the largest difference of influence, `label_std` what to hold it against.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.provenance import markdown_table, save
from engine.artifacts.run_directory import Artifact, RunDirectory
from engine.config import Config, RayConfig, parse_config
from engine.runtime.ray_cluster import connected
from engine.runtime.stage import StageContext
from engine.stages import predict as predict_stage
from engine.stages.additions import ADDITION_STAGES, score_new
from engine.stages.pipeline import STAGES, run
from engine.terminal.progress import say

DATA = Path(__file__).resolve().parents[2] / "shared/data"
COLUMNS = ("old_rows", "new_rows", "wall_s", "embed_s", "predict_s", "select_s", "added", "s_a_row")


def settings(work: Path, name: str, rows: Path) -> Config:
    """A cheap run: short texts, and a teacher that is asked in seconds."""
    return parse_config(
        {
            "run_dir": str(work / name),
            "corpus": {"path": str(rows)},
            "target": {"path": str(DATA / "targets/gsm8k.parquet")},
            "embedding": {"max_tokens": 48},
            "teacher": {"name": "delift_se"},
            "network": {"num_workers": 1},
            "selection": {"budget": 0.05},
        }
    )


def artifacts(directory: RunDirectory, stages: Any) -> dict[str, Artifact]:
    """The finished artifacts by stage."""
    found = {stage.name: directory.artifact(stage.directory) for stage in stages}
    return {name: artifact for name, artifact in found.items() if artifact is not None}


def measured(old: RunDirectory, new: Path, num_old: int, num_new: int) -> dict[str, Any]:
    """Score the new rows and tell what it cost."""
    started = time.perf_counter()
    added = score_new(old.path, str(new), overrides={"drift.audit_candidates": 0})
    seconds = time.perf_counter() - started
    made = artifacts(added, ADDITION_STAGES)
    row: dict[str, Any] = {"old_rows": num_old, "new_rows": num_new, "wall_s": seconds}
    row |= {f"{name}_s": _seconds(made[name]) for name in ("embed", "predict", "select")}
    return row | {"added": made["select"].counts["selected"], "s_a_row": seconds / num_new}


def _seconds(artifact: Artifact) -> float:
    manifest = artifact.manifest
    return float(manifest["usage"].get("seconds", manifest["wall_seconds"]))


def rerun(work: Path, old: RunDirectory, rows: Path) -> NDArray[np.float32]:
    """Influence of all rows, embedded anew, by the network of the old run."""
    config = settings(work, "both", rows)
    both = run(config, until="embed", overwrite=True)
    inputs = {**artifacts(old, STAGES), **artifacts(both, STAGES)}
    folder = both.path / "6-influence"
    folder.mkdir(exist_ok=True)
    result = predict_stage.run(StageContext(config, folder, inputs))
    return np.concatenate([np.load(folder / part.path) for part in result.parts["dense"]])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--rows", type=int, default=4000, help="of the old run")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 3000, 10_000])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    work, num_old = arguments.work.absolute(), arguments.rows
    work.mkdir(parents=True, exist_ok=True)
    table = pq.read_table(DATA / "corpus.parquet")
    table = table.take(np.random.default_rng(0).permutation(len(table)))
    pq.write_table(table.slice(0, num_old), work / "old.parquet")
    rows = []
    with connected(RayConfig()):
        old = run(settings(work, "old", work / "old.parquet"), until="select", overwrite=True)
        for size in arguments.sizes:
            say(f"--- {size} new rows")
            path = work / f"new-{size}.parquet"
            pq.write_table(table.slice(num_old, size), path)
            shutil.rmtree(old.path / "additions", ignore_errors=True)  # each beside the run alone
            rows.append(measured(old, path, num_old, size))
        (folder,) = (old.path / "additions").iterdir()
        mine = artifacts(RunDirectory(folder), ADDITION_STAGES)["predict"]
        ours = np.concatenate([np.load(mine.directory / p.path) for p in mine.parts("dense")])
        pq.write_table(table.slice(0, num_old + arguments.sizes[-1]), work / "both.parquet")
        again = rerun(work, old, work / "both.parquet")[num_old:]
    labels = pq.read_table(artifacts(old, STAGES)["score"].path("labels"))["score"].to_numpy()
    difference = {
        "rows": len(ours),
        "difference": float(np.abs(ours - again).max()),
        "label_std": float(np.nanstd(labels)),
        "equal": float((ours == again).mean()),
    }
    print(markdown_table(rows, COLUMNS), markdown_table([difference], list(difference)), sep="\n\n")
    if arguments.json:
        said = {"rows": num_old, "sizes": arguments.sizes}
        save(arguments.json, "score_new", said, [*rows, difference], threads=1)


if __name__ == "__main__":
    main()
