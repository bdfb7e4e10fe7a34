"""What matters in the network and its sample, and what does not: the studies of jobs/tune.py.

    python benchmarks/study.py --work DIR --out benchmarks/results/study     # an hour on two cores

Each study of jobs/configs/study_*.yaml for each teacher, on rows of one data set of
../shared/data/corpus_small.parquet with at most `--tokens` tokens, drawn by hash: candidates from
the split `train`, targets from `valid`. Every teacher is asked about all pairs once; trials are
judged on what they did not learn from. Writes NAME.parquet (all trials), NAME.json (means over
seeds, machine, settings) and the charts as SVG. May be killed and started again.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.fidelity import CORPUS, TEACHERS
from benchmarks.provenance import ROOT, markdown_table, save
from benchmarks.quality import draw, short_rows
from engine.artifacts.files import read_json
from engine.config import Config, RayConfig, override, parse_config
from engine.runtime.ray_cluster import connected
from engine.study.charts import charts_of
from engine.study.figures import write_figures
from engine.study.study import run_study
from engine.terminal.progress import say

SMALL_SHAPES = 2_500_000  # parameters
FEW = [0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4]
MANY = [0.5, 0.6, 0.7, 0.8]
# Each study: its config, and the settings of one or more runs whose trials are shown together.
STUDIES: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "size": ("size", [{}]),
    # the published recipe leaves a network of few labels far from their scale, whatever its size
    "size-standardised": (
        "size",
        [{"network.standardise_labels": True, "network.learning_rate": 1e-3}],
    ),
    # the default preset fits ten times as long: only up to the largest published u
    "fraction": (
        "fraction",
        [
            {"study.grid": {"network.preset": ["paper", "default"], "sample.fraction": FEW}},
            {"study.grid": {"network.preset": ["paper"], "sample.fraction": MANY}},
        ],
    ),
    "settings": ("settings", [{}]),
    "answers": ("answers", [{}]),
}
SPLITS = {"candidates": "train", "targets": "valid", "test": "test"}
OBJECTIVE = "q4 network mse_std"
SHOWN = ("trials", "labels", "teacher_cpu_s", OBJECTIVE, "q4 network r2", "q4 network spearman")
BESIDE = ("q4 ridge mse_std", "q4 cosine mse_std", "q4 mean mse_std")


def write_rows(work: Path, dataset: str, sizes: tuple[int, int, int], tokens: int) -> None:
    """Candidates, targets and test rows of the study."""
    table = pq.read_table(CORPUS).filter(pc.equal(pc.field("dataset"), dataset))
    table = short_rows(table, tokens)
    for (name, split), count in zip(SPLITS.items(), sizes, strict=True):
        pq.write_table(draw(table, split, count), work / f"{name}.parquet")


def settings(work: Path, study: str, changes: dict[str, Any], teacher: str) -> Config:
    """The study's own config on these rows, for one teacher."""
    chosen = dict(TEACHERS[teacher])
    chosen["model"] = {**chosen.get("model", {}), "dtype": "float32"}
    path = ROOT / f"jobs/configs/study_{STUDIES[study][0]}.yaml"
    values = {
        **yaml.safe_load(path.read_text(encoding="utf-8")),
        "run_dir": str(work / teacher),
        "corpus": {"path": str(work / "candidates.parquet")},
        "target": {"path": str(work / "targets.parquet")},
        "teacher": chosen,
    }
    if study == "answers":
        override(values, "evaluation.test", {"path": str(work / "test.parquet")})
    if study == "size-standardised":
        shapes = values["study"]["grid"]["network.hidden"]
        small = [shape for shape in shapes if _parameters(shape) < SMALL_SHAPES]
        changes = {**changes, "study.grid": {"network.hidden": small}}
    for name, value in changes.items():
        override(values, name, value)
    return parse_config(values, source=str(path))


def _parameters(shape: list[int], inputs: int = 768) -> int:
    widths = [inputs, *shape, 1]
    return sum(a * b + b for a, b in itertools.pairwise(widths))


def measure(study: str, teachers: list[str], work: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """All trials of a study, and what it studied."""
    rows: list[dict[str, Any]] = []
    for teacher in teachers:
        for changes in STUDIES[study][1]:
            config = settings(work, study, changes, teacher)
            say(f"=== {study}, {teacher}")
            started = time.monotonic()
            folder = run_study(config, overwrite=True)
            trials = pq.read_table(folder / "trials.parquet").to_pylist()
            say(f"{len(trials)} trials in {time.monotonic() - started:.0f} s")
            best = read_json(folder / "study.json")["rows"]
            say(f"best: {best[0] if best else None}")
            rows += [{"teacher": teacher, **trial} for trial in trials]
            assert config.study is not None
            studied = [*config.study.grid, *config.study.search]
    return rows, studied


def means(rows: list[dict[str, Any]], studied: list[str]) -> list[dict[str, Any]]:
    """Over seeds, for each teacher and combination of settings; the best on unseen rows first."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(str([row[name] for name in ("teacher", *studied)]), []).append(row)
    found = []
    for group in groups.values():
        mean: dict[str, Any] = {name: group[0][name] for name in ("teacher", *studied)}
        mean["trials"] = len(group)
        names = [
            n for row in group for n, v in row.items() if isinstance(v, float) or n == "labels"
        ]
        for name in dict.fromkeys(names):
            values = [row[name] for row in group if row.get(name) is not None]
            if name not in mean and values:
                mean[name] = sum(values) / len(values)
        found.append(mean)
    return sorted(found, key=lambda m: (m["teacher"], m.get(OBJECTIVE, float("inf"))))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--out", type=Path, help="folder for tables, charts and JSON")
    parser.add_argument("--studies", nargs="+", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--teachers", nargs="+", choices=TEACHERS, default=["delift_se", "less"])
    parser.add_argument("--dataset", default="superni_like", help="of corpus_small.parquet")
    parser.add_argument("--tokens", type=int, default=160, help="of the longest row")
    parser.add_argument(
        "--sizes", type=int, nargs=3, default=(500, 120, 20), metavar=("M", "N", "TEST")
    )
    arguments = parser.parse_args()
    work = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    write_rows(work, arguments.dataset, tuple(arguments.sizes), arguments.tokens)
    said = {k: str(v) for k, v in vars(arguments).items() if k not in ("work", "out")}
    with connected(RayConfig()):
        for study in arguments.studies:
            rows, studied = measure(study, arguments.teachers, work)
            table = means(rows, studied)
            print(markdown_table(table, ("teacher", *studied, *SHOWN, *BESIDE)), flush=True)
            if arguments.out:
                write(arguments.out, study, rows, studied)
                save(arguments.out / f"{study}.json", f"study of {study}", said, table, threads=1)


def write(out: Path, study: str, rows: list[dict[str, Any]], studied: list[str]) -> None:
    """All trials and the charts of all teachers together, in one folder."""
    out.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    pq.write_table(pa.table(columns), out / f"{study}.parquet")
    with tempfile.TemporaryDirectory() as folder:
        charts = charts_of(rows, studied, OBJECTIVE)
        write_figures(charts, f"Study of {study}", "", Path(folder))
        for picture in sorted(Path(folder).glob("*.svg")):
            named = picture.name.startswith(study)
            shutil.copy(picture, out / (picture.name if named else f"{study}-{picture.name}"))


if __name__ == "__main__":
    main()
