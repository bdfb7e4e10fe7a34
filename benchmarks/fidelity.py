"""What the audit of a run says of its student, and how near its subset is to the teacher's own.

    python benchmarks/fidelity.py --work DIR [--teachers delift less ...] [--json FILE]

Real rows, real models, the pipeline itself: one run directory per teacher, in which a teacher's
answers are paid for once, and every student is then fitted, audited and selects. Beside what the
engine does by itself (auto) stands the InfluenceNetwork on the texts' embeddings: with the paper's
preset and a block of u x u of the pairs (as published), and with the engine's settings (network).
Teachers paid by the point are also asked about everything, and subsets are compared with theirs.
The audit is the product's own: quadrant 4 is pairs of rows that no training pair touched. With
`--sizes` the same share of ever larger pools is asked instead.

DELIFT takes about half an hour on two cores, the others 10 to 20 minutes; a killed run goes on.
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
# Which settings learn; the last are those that benchmarks/prefilter.py finds in the run.
LEARNERS: dict[str, dict[str, Any]] = {
    "auto": {},
    "as published": {
        "student": {"name": "network"},
        "network": {"preset": "paper"},
        "features": ["text"],
        "sample": {"design": "block"},
    },
    "network": {"student": {"name": "network"}, "features": ["text"]},
}
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
TARGETS_FROM_VALID = ("less",)  # 300 targets of their own: their gradients are dear
FULLY_ASKED = ("delift_se", "less", "selectit")
COLUMNS = (
    "teacher",
    "rows",
    "settings",
    "student",
    "labels",
    "teacher_cpu_s",
    "within",
    "within_interval",
    "within_r2",
    "cosine_within",
    "linear_within",
    "means",
    "cosine_means",
    "linear_means",
    "split_half",
    "top_overlap",
    "subset_overlap",
    "chance",
    "trusted",
)


def main() -> None:
    """Measure the teachers asked for, print the table as it grows, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--teachers", nargs="+", choices=TEACHERS, default=list(TEACHERS))
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
    unseen = [row for row in rows if row["quadrant"] == "Q4"]
    print(markdown_table(unseen, COLUMNS))
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
        "selection": {"budget": BUDGET},
    }
    if teacher in TARGETS_FROM_VALID:
        where = {"dataset": arguments.dataset, "split": "valid"}
        values["target"] = {"path": str(CORPUS), "where": where}
    for name, section in sections.items():
        mapping = isinstance(section, dict)
        values[name] = {**values.get(name, {}), **section} if mapping else section
    return parse_config(values)


def measure(teacher: str, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows of the table for one teacher, four quadrants for each of LEARNERS."""
    full = None
    if teacher in FULLY_ASKED:
        say(f"--- {teacher}, asked about everything")
        everything = settings(teacher, arguments, sample={"fraction": 1})
        full = _choices(run(everything, overwrite=True, until="select"))
    for name, sections in LEARNERS.items():
        say(f"--- {teacher}, {name}")
        sample = {**_sample(arguments), **sections.get("sample", {})}
        config = settings(teacher, arguments, **{**sections, "sample": sample})
        directory = run(config, overwrite=True, until="select")
        yield from _rows({"teacher": teacher, "settings": name}, directory, full)


def _sample(arguments: argparse.Namespace) -> dict[str, Any]:
    num_candidates, num_targets = arguments.audit
    audit = {"candidates": num_candidates, "targets": num_targets, "max_share": 0.99}
    return {"fraction": arguments.fraction, "audit": audit}


def growth(teacher: str, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows of the table for pools of growing size, of all data sets, at the same share."""
    rows = pq.read_table(CORPUS)
    rows = rows.filter(pc.equal(rows["split"], "train")).sort_by("id")
    rows = rows.take(np.random.default_rng(0).permutation(len(rows)))
    for size in arguments.sizes:
        path = arguments.work / f"rows-{size}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows.slice(0, size), path)
        config = settings(teacher, arguments, sample=_sample(arguments))
        values = {"corpus": config.corpus.model_copy(update={"path": str(path), "where": {}})}
        values["run_dir"] = str(arguments.work / f"{teacher}-{size}")
        directory = run(config.model_copy(update=values), overwrite=True, until="select")
        yield from _rows({"teacher": teacher, "rows": size, "settings": "auto"}, directory, None)


def _rows(
    named: dict[str, Any], directory: RunDirectory, full: list[np.ndarray] | None
) -> Iterator[dict[str, Any]]:
    score, fit = _artifact(directory, "4-teacher"), _artifact(directory, "5-student")
    found = read_json(fit.path("fidelity"))
    means = found["candidate_means"]
    row = {
        **named,
        "student": found["student"],
        "labels": fit.counts["training_labels"],
        "teacher_cpu_s": _training_seconds(directory, score.manifest["usage"]),
        "means": means["spearman"]["student"],
        "cosine_means": means["spearman"].get("cosine"),
        "linear_means": means["spearman"]["linear"],
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
            "cosine_within": scores["cosine"]["within"] if "cosine" in scores else None,
            "linear_within": scores["linear"]["within"],
            "linear_r2": scores["linear"]["r2"],
            "mean_r2": scores["mean"]["r2"],
            "permuted": scores["permuted"]["spearman"],
            "lead_over_linear": scores["linear"]["within_lead_interval"],
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
