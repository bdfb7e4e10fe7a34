"""What matters in the network and its sample, and what does not: the studies of jobs/tune.py.

    python benchmarks/study.py --work DIR --out benchmarks/results/study     # an hour on two cores

Each study of jobs/configs/study_*.yaml for each teacher, on rows of one data set of
../shared/data/corpus_small.parquet drawn by hash: candidates from the split `train`, targets from
`valid`. Every teacher is asked about all pairs once; trials are judged on what they did not learn
from. Writes NAME.parquet (all trials), NAME.json (means over seeds, machine, settings) and the
charts as SVG. May be killed and started again.
"""

from __future__ import annotations

import argparse
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
from benchmarks.quality import draw
from engine.actors import connected
from engine.config import Config, RayConfig, parse_config
from engine.progress import say
from engine.run_directory import read_json
from engine.study.charts import charts_of
from engine.study.figures import write_figures
from engine.study.study import run_study

STUDIES = ("size", "fraction", "settings")
SPLITS = {"candidates": "train", "targets": "valid"}
OBJECTIVE = "q4 network mse_std"
SHOWN = ("trials", "labels", "teacher_cpu_s", OBJECTIVE, "q4 network r2", "q4 network spearman")
BESIDE = ("q4 ridge mse_std", "q4 cosine mse_std", "q4 mean mse_std")


def write_rows(work: Path, dataset: str, sizes: tuple[int, int]) -> None:
    """Candidates and targets of the study."""
    table = pq.read_table(CORPUS).filter(pc.equal(pc.field("dataset"), dataset))
    for (name, split), count in zip(SPLITS.items(), sizes, strict=True):
        pq.write_table(draw(table, split, count), work / f"{name}.parquet")


def settings(work: Path, study: str, teacher: str) -> Config:
    """The study's own config on these rows, for one teacher."""
    chosen = dict(TEACHERS[teacher])
    chosen["model"] = {**chosen.get("model", {}), "dtype": "float32"}
    path = ROOT / f"jobs/configs/study_{study}.yaml"
    values = {
        **yaml.safe_load(path.read_text(encoding="utf-8")),
        "run_dir": str(work / teacher),
        "corpus": {"path": str(work / "candidates.parquet")},
        "target": {"path": str(work / "targets.parquet")},
        "teacher": chosen,
    }
    return parse_config(values, source=str(path))


def measure(study: str, teachers: list[str], work: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """All trials of a study, and what it studied."""
    rows: list[dict[str, Any]] = []
    for teacher in teachers:
        config = settings(work, study, teacher)
        say(f"=== {study}, {teacher}")
        started = time.monotonic()
        folder = run_study(config)
        trials = pq.read_table(folder / "trials.parquet").to_pylist()
        say(f"{len(trials)} trials in {time.monotonic() - started:.0f} s")
        say(f"best: {read_json(folder / 'study.json')['rows'][0]}")
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
    parser.add_argument("--sizes", type=int, nargs=2, default=(600, 150), metavar=("M", "N"))
    arguments = parser.parse_args()
    work = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    write_rows(work, arguments.dataset, tuple(arguments.sizes))
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
            shutil.copy(picture, out / f"{study}-{picture.name}")


if __name__ == "__main__":
    main()
