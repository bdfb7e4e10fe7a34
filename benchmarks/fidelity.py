"""How well does the network learn each teacher? Designs and presets beside the cheap baselines.

    python benchmarks/fidelity.py --work DIR [--teachers delift less ...] [--json FILE]

Real rows, real models, the pipeline itself: one run directory per teacher, in which a teacher's
answers are paid for once and every design and preset is then fitted and audited. Teachers paid by
the point are also asked about everything, and the network's subset is compared with theirs. The
audit is the product's own: quadrant 4 is pairs of rows that no training pair touched. With
`--sizes` the same share of ever larger pools is asked instead: how fidelity grows with M.

DELIFT takes about an hour on two cores, the others 10 to 20 minutes; a killed run goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.provenance import markdown_table, save
from engine.artifacts.files import read_json
from engine.artifacts.run_directory import RunDirectory
from engine.config import PACKAGED_LANGUAGE_MODEL, Config, RayConfig, parse_config
from engine.runtime.ray_cluster import connected
from engine.stages.pipeline import run
from engine.terminal.progress import say

CORPUS = Path(__file__).resolve().parents[2] / "shared/data/corpus_small.parquet"
BUDGET = 0.3
PRESETS = ("paper", "default")
# What each teacher is measured with. LESS is smaller than published, to be affordable on two cores.
TEACHERS: dict[str, dict[str, Any]] = {
    "delift": {"name": "delift"},
    # the teacher's encoder is the expensive one: mean-pooled states of the language model
    "delift_se": {
        "name": "delift_se",
        "model": {"path": PACKAGED_LANGUAGE_MODEL, "dtype": "bfloat16"},
        "batch_size": 8,
    },
    "less": {
        "name": "less",
        "batch_size": 8,
        "less": {
            "lora_rank": 16,
            "lora_alpha": 64,
            "learning_rate": 2e-4,
            "warmup_epochs": 1,
            "projection_dim": 2048,
        },
    },
    "selectit": {"name": "selectit"},
}
DESIGNS = {
    "delift": ("block", "scattered", "stratified"),
    "delift_se": ("block", "stratified"),
    "less": ("block", "stratified"),
    "selectit": ("block", "stratified"),
}
TARGETS_FROM_VALID = ("less",)  # 300 targets of their own: their gradients are dear
FULLY_ASKED = ("delift_se", "less", "selectit")
COLUMNS = (
    "teacher",
    "rows",
    "design",
    "preset",
    "labels",
    "teacher_cpu_s",
    "quadrant",
    "mse_std",
    "r2",
    "spearman",
    "cosine",
    "ridge",
    "ridge_r2",
    "within",
    "within_interval",
    "within_r2",
    "cosine_within",
    "ridge_within",
    "permuted",
    "means",
    "split_half",
    "top_overlap",
    "subset_overlap",
    "chance",
)


def main() -> None:
    """Measure the teachers asked for, print the table as it grows, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--teachers", nargs="+", choices=TEACHERS, default=list(TEACHERS))
    parser.add_argument("--designs", nargs="+", help="only these of each teacher's")
    parser.add_argument("--dataset", default="superni_like", help="of corpus_small.parquet")
    parser.add_argument("--audit", nargs=2, type=int, default=(100, 12), metavar=("C", "T"))
    parser.add_argument("--fraction", type=float, default=0.05)
    parser.add_argument("--sizes", nargs="+", type=int, help="pools of so many rows instead")
    parser.add_argument("--json", type=Path, help="write the table here")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with connected(RayConfig()):
        for teacher in arguments.teachers:
            rows += (growth if arguments.sizes else measure)(teacher, arguments)
            print(markdown_table(rows, COLUMNS), flush=True)
    if arguments.json:
        settings = {k: str(v) for k, v in vars(arguments).items() if k not in ("work", "json")}
        teachers = {name: TEACHERS[name] for name in arguments.teachers}
        save(arguments.json, "fidelity", {**settings, "teachers": teachers}, rows, threads=1)


def settings(teacher: str, arguments: argparse.Namespace, **sections: Any) -> Config:
    """The pipeline's settings for one teacher on one data set of the corpus."""
    rows = {"path": str(CORPUS), "where": {"dataset": arguments.dataset, "split": "train"}}
    values: dict[str, Any] = {
        "run_dir": str(arguments.work / f"{teacher}-{arguments.dataset}"),
        "corpus": rows,
        "teacher": TEACHERS[teacher],
        "network": {"num_workers": 1},
        "student": {"name": "network"},
        "features": ["text"],
        "selection": {"budget": BUDGET},
    }
    if teacher in TARGETS_FROM_VALID:
        where = {"dataset": arguments.dataset, "split": "valid"}
        values["target"] = {"path": str(CORPUS), "where": where}
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return parse_config(values)


def measure(teacher: str, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows of the table for one teacher, four quadrants per design and preset."""
    full = None
    if teacher in FULLY_ASKED:
        say(f"--- {teacher}, asked about everything")
        everything = settings(teacher, arguments, sample={"fraction": 1})
        full = _choices(run(everything, overwrite=True, until="select"))
    num_candidates, num_targets = arguments.audit
    for design in arguments.designs or DESIGNS[teacher]:
        for preset in PRESETS:
            say(f"--- {teacher}, {design}, {preset}")
            sample: dict[str, Any] = {
                "fraction": arguments.fraction,
                "design": design,
                "audit": {"candidates": num_candidates, "targets": num_targets, "max_share": 0.99},
            }
            config = settings(teacher, arguments, sample=sample, network={"preset": preset})
            directory = run(config, overwrite=True, until="select")
            yield from _rows(
                {"teacher": teacher, "design": design, "preset": preset}, directory, full
            )


def growth(teacher: str, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows of the table for pools of growing size, of all data sets, at the same share."""
    rows = pq.read_table(CORPUS)
    rows = rows.filter(pc.equal(rows["split"], "train")).sort_by("id")
    rows = rows.take(np.random.default_rng(0).permutation(len(rows)))
    num_candidates, num_targets = arguments.audit
    for size in arguments.sizes:
        path = arguments.work / f"rows-{size}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows.slice(0, size), path)
        audit = {"candidates": num_candidates, "targets": num_targets, "max_share": 0.99}
        sample = {"audit": audit}
        config = settings(teacher, arguments, sample={**sample, "fraction": arguments.fraction})
        values = {"corpus": config.corpus.model_copy(update={"path": str(path), "where": {}})}
        values["run_dir"] = str(arguments.work / f"{teacher}-{size}")
        directory = run(config.model_copy(update=values), overwrite=True, until="select")
        named = {"teacher": teacher, "rows": size, "design": "default"}
        yield from _rows({**named, "preset": "default"}, directory, None)


def _rows(
    named: dict[str, Any], directory: RunDirectory, full: list[np.ndarray] | None
) -> Iterator[dict[str, Any]]:
    score, fit = _artifact(directory, "4-teacher"), _artifact(directory, "5-student")
    found = read_json(fit.path("fidelity"))
    means = found["candidate_means"]
    row = {
        **named,
        "labels": fit.counts["training_labels"],
        "teacher_cpu_s": _training_seconds(directory, score.manifest["usage"]),
        "means": means["spearman"]["student"],
        "means_cosine": means["spearman"].get("cosine"),
        "means_ridge": means["spearman"]["linear"],
        "split_half": means["split_half"],
        "trusted": found["trusted"],
        "verdict": found["reasons"],
    }
    if full is not None:
        ours = _choices(directory)
        for name, mine, theirs in zip(("top", "subset"), ours, full, strict=True):
            shared = len(np.intersect1d(mine, theirs)) / len(np.union1d(mine, theirs))
            row[f"{name}_overlap"] = shared
        row["chance"] = BUDGET / (2 - BUDGET)
    for quadrant, measured in found["quadrants"].items():
        student, scores = measured["scores"]["student"], measured["scores"]
        yield {
            **row,
            "quadrant": quadrant,
            "pairs": measured["num_pairs"],
            **student,
            "cosine": scores["cosine"]["spearman"] if "cosine" in scores else None,
            "cosine_within": scores["cosine"]["within"] if "cosine" in scores else None,
            "cosine_r2": scores["cosine"]["r2"] if "cosine" in scores else None,
            "ridge": scores["linear"]["spearman"],
            "ridge_within": scores["linear"]["within"],
            "ridge_r2": scores["linear"]["r2"],
            "mean_r2": scores["mean"]["r2"],
            "permuted": scores["permuted"]["spearman"],
            "lead_over_ridge": scores["linear"]["within_lead_interval"],
        }


def _training_seconds(directory: RunDirectory, usage: dict[str, float]) -> float:
    """CPU seconds of the teacher for what the network learned from; the audit comes on top."""
    counts = _artifact(directory, "3-sample").counts
    if usage.get("pairs_calls"):
        return usage["cpu_seconds"] * counts["training_pairs"] / counts["pairs"]
    paid = sum(usage.get(f"features_{side}_rows", 0) for side in ("candidate", "target"))
    learned = counts["training_candidates"]
    learned += counts["training_targets"] if counts["pairwise"] else 0
    prepared = usage.get("prepared_cpu_seconds", 0.0)
    return prepared + (usage["cpu_seconds"] - prepared) * learned / paid


def _choices(directory: RunDirectory) -> list[np.ndarray]:
    """The best 30 % of the candidates by mean influence, and those that the objective selected."""
    means = np.load(_artifact(directory, "6-influence").path("means"), allow_pickle=False)
    ranking = pq.read_table(_artifact(directory, "7-selection").path("ranking"))["row"]
    return [np.argsort(-means)[: len(ranking)], np.asarray(ranking.to_numpy())]


def _artifact(directory: RunDirectory, stage: str) -> Any:
    artifact = directory.artifact(stage)
    assert artifact is not None, f"{stage} is not finished"
    return artifact


if __name__ == "__main__":
    main()
