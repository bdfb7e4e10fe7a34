"""Does the subset train a better model? The publication's quality table, on a small real corpus.

    python benchmarks/quality.py --work DIR --json FILE     # an hour and a half on two cores

Both data sets of ../shared/data/corpus_small.parquet: rows drawn by hash among those of at most
`--tokens` tokens (prompt and answer of a longer row would cost a CPU too much), candidates from the
split `train`, targets from `valid`, test rows from `test`. All arms of `jobs/evaluate.py` with the
packaged 135M model, in context and by QLoRA; `--small` adds its first ten layers in each teacher's
place. `--markdown FILE` writes the tables.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.fidelity import TEACHERS
from benchmarks.provenance import ROOT, save
from benchmarks.small_model import NUM_LAYERS, write_small_model
from engine.artifacts.files import read_json
from engine.config import PACKAGED_LANGUAGE_MODEL, Config, ModelConfig, RayConfig, parse_config
from engine.models.token_counter import TokenCounter
from engine.runtime.ray_cluster import connected
from engine.stages.arms import evaluate
from engine.terminal.progress import say

CORPUS = ROOT.parent / "shared/data/corpus_small.parquet"
DATASETS = ("alpaca_like", "superni_like")
MODEL = {"path": PACKAGED_LANGUAGE_MODEL, "dtype": "float32", "threads": 1}
SPLITS = {"pool": "train", "targets": "valid", "test": "test"}


def draw(table: pa.Table, split: str, count: int) -> pa.Table:
    """`count` rows of a split, by hash of their ids."""
    rows = table.filter(pc.equal(table["split"], split))
    ids = rows["id"].to_pylist()
    order = sorted(range(len(ids)), key=lambda i: hashlib.sha1(ids[i].encode()).digest())
    return rows.take(order[:count])


def short_rows(table: pa.Table, tokens: int) -> pa.Table:
    """Rows of at most so many tokens, prompt and output together."""
    rows = table.to_pylist()
    counter = TokenCounter(ModelConfig(**MODEL))
    prompts = counter.count([f"{row['instruction']} {row['input']}" for row in rows])
    outputs = counter.count([row["output"] for row in rows])
    counts = [prompt + output for prompt, output in zip(prompts, outputs, strict=True)]
    return table.filter(pa.array([count <= tokens for count in counts]))


def write_files(work: Path, sizes: dict[str, int], tokens: int) -> dict[str, Any]:
    """Candidates, targets and test rows of each data set; returns what share is short enough."""
    table = pq.read_table(CORPUS)
    short = short_rows(table, tokens)
    told = {}
    for dataset in DATASETS:
        mine = short.filter(pc.equal(short["dataset"], dataset))
        whole = pc.sum(pc.equal(table["dataset"], dataset)).as_py()
        told[dataset] = {"short_enough": len(mine) / whole}
        for name, split in SPLITS.items():
            pq.write_table(draw(mine, split, sizes[name]), work / f"{dataset}-{name}.parquet")
    return told


def settings(work: Path, dataset: str, arguments: argparse.Namespace) -> Config:
    """The evaluation of one data set."""
    teachers = []
    for name in arguments.teachers:
        model = {**TEACHERS[name].get("model", {}), "dtype": "float32"}
        teachers.append({**TEACHERS[name], "model": model})
    few = dict.fromkeys(("teacher", "small", "network", "full"), 1)
    small = {**MODEL, "path": str(work / "small")} if arguments.small else None
    return parse_config(
        {
            "run_dir": str(work / dataset),
            "corpus": {"path": str(work / f"{dataset}-pool.parquet")},
            "target": {"path": str(work / f"{dataset}-targets.parquet")},
            "sample": {
                "fraction": arguments.fraction,
                "audit": {"candidates": 20, "targets": arguments.sizes[1] // 2},
            },
            "network": {"num_workers": 1},
            "selection": {"budget": 0.3},
            "evaluation": {
                "test": {"path": str(work / f"{dataset}-test.parquet")},
                "model": MODEL,
                "teachers": teachers,
                "small_model": small,
                "seeds": list(range(arguments.seeds)),
                "max_new_tokens": 64,
                "batch_size": 16,
                "qlora": {
                    "epochs": arguments.epochs,
                    "execution": {"max_actors": 2},
                    "max_seeds": {} if arguments.train_all_seeds else few,
                },
                "judge": {
                    "model": MODEL,
                    "max_new_tokens": 8,
                    "max_tokens": 1024,
                    "rows": arguments.judged,
                }
                if arguments.judged
                else None,
            },
        }
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--teachers", nargs="+", choices=TEACHERS, default=list(TEACHERS))
    parser.add_argument(
        "--sizes",
        type=int,
        nargs=3,
        default=(200, 12, 30),
        metavar=("POOL", "TARGETS", "TEST"),
        help="rows of each data set",
    )
    parser.add_argument("--tokens", type=int, default=96, help="of the longest row")
    parser.add_argument(
        "--fraction", type=float, default=0.2, help="u, what the network learns from"
    )
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--train-all-seeds", action="store_true", help="not only of Random, which takes longer"
    )
    parser.add_argument("--small", action="store_true", help="the arms of a small model too")
    parser.add_argument("--judged", type=int, default=0, help="test rows to judge; 0: none")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    arguments = parser.parse_args()
    work = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    sizes = dict(zip(SPLITS, arguments.sizes, strict=True))
    told = write_files(work, sizes, arguments.tokens)
    if arguments.small:
        write_small_model(work / "small")
    rows, texts = [], []
    with connected(RayConfig()):
        for dataset in arguments.datasets:
            say(f"=== {dataset}")
            directory = evaluate(settings(work, dataset, arguments))
            artifact = directory.artifact("5-results")
            assert artifact is not None
            found = read_json(artifact.path("results"))
            del found["settings"]["test"]  # where the files lie is of no interest elsewhere
            if arguments.small:
                found["settings"]["small_model"]["path"] = f"first {NUM_LAYERS} of 30 layers"
            rows.append({"dataset": dataset, **told[dataset], **found})
            text = artifact.path("markdown").read_text(encoding="utf-8")
            texts.append(f"## {dataset}\n\n{text}")
            print(texts[-1], flush=True)
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(texts), encoding="utf-8")
    if arguments.json:
        said = {
            k: str(v) for k, v in vars(arguments).items() if k not in ("work", "json", "markdown")
        }
        save(arguments.json, "quality", said, rows, threads=1)


if __name__ == "__main__":
    main()
