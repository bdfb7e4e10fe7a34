"""Does a selection find what a target set asks for? Six single-topic target sets and a mixed one.

    python benchmarks/target_recovery.py --work DIR --json FILE    # two hours on two cores, resumes

The pool is the 48,125 rows of ../shared/data/corpus.parquet with its overlay of rows known to be
bad (a tenth of every category). One run of the pipeline per teacher learns influence on the targets
of all sets together; each set is then selected for with its own columns of the influence. Beside
NN-CIFT stand methods that need no teacher, on the same embeddings, and the full DELIFT (SE) one.

right     share of the picks in a category of the target set (for six sets words alone do it)
mix_error distance of the picks' category shares from the target set's, half the sum of all
          |difference|: 0 is the same mix, 1 disjoint
bad       share of the picks that are known to be bad; the pool has 0.099
redundant mean cosine of a pick to the nearest other pick
overlap   Jaccard overlap with the same objective under the full teacher, where that could be asked

The teachers are the packaged models in float32 on a CPU: DELIFT asked about 2,000 pairs, LESS about
577 rows and 18 targets (rank 16, one epoch of warm-up on 144 rows), DELIFT (SE) about 1.5 %: its
encoder is the network's own here, so it saves nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.provenance import markdown_table, save
from engine import select
from engine.artifact_rows import TableParts, VectorParts
from engine.cluster import connected
from engine.config import Config, RayConfig, parse_config
from engine.pipeline import run
from engine.progress import say
from engine.run_directory import RunDirectory, read_json

DATA = Path(__file__).resolve().parents[2] / "shared/data"
MIXED = "mixed_math_code_sentiment_summ"
SHARES = (0.02, 0.05)
NEIGHBOURS = 64
FLOOR, RELEVANT_SHARE = 0.5, 0.1  # of mutual information in form 1
SEEDS = 3  # of random
TEACHERS: dict[str, dict[str, Any]] = {
    "delift": {
        "teacher": {
            "name": "delift",
            "model": {"dtype": "float32"},
            "max_example_tokens": 96,
            "max_tokens": 1024,
        },
        "sample": {
            "fraction": 0.0042,
            "targets_per_candidate": 4,
            "audit": {"candidates": 30, "targets": 12},
        },
    },
    "less": {
        "teacher": {
            "name": "less",
            "model": {"dtype": "float32"},
            "max_tokens": 512,
            "batch_size": 4,
            "less": {
                "lora_rank": 16,
                "lora_alpha": 64,
                "learning_rate": 2.0e-4,
                "warmup_epochs": 1,
                "projection_dim": 2048,
                "warmup_fraction": 0.003,
            },
        },
        "sample": {"fraction": 0.012, "audit": {"candidates": 30, "targets": 12}},
    },
    "delift_se": {
        "teacher": {"name": "delift_se"},
        "sample": {"fraction": 0.015, "audit": {"candidates": 100, "targets": 30}},
    },
}
COLUMNS = (
    "target",
    "method",
    "objective",
    "picks",
    "right",
    "mix_error",
    "bad",
    "redundant",
    "overlap",
)

Array = NDArray[Any]


# --- the data -------------------------------------------------------------------------------------


def write_files(work: Path) -> None:
    """pool.parquet, bad rows in place, and targets.parquet, all sets with their name as `set`."""
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "pool.parquet").exists():
        pool = pq.read_table(DATA / "corpus.parquet").to_pandas()
        bad = pq.read_table(DATA / "corpus_known_bad.parquet").to_pandas().set_index("id")
        is_bad = pool["id"].isin(bad.index)
        pool["known_bad"] = ""
        pool.loc[is_bad, "known_bad"] = pool.loc[is_bad, "id"].map(bad["kind"])
        pool.loc[is_bad, "output"] = pool.loc[is_bad, "id"].map(bad["bad_output"])
        table = pa.Table.from_pandas(pool, preserve_index=False)
        pq.write_table(table, work / "pool.parquet")
    if not (work / "targets.parquet").exists():
        tables = []
        for path in sorted((DATA / "targets").glob("*.parquet")):
            rows = pq.read_table(path).to_pandas()
            rows["set"] = path.stem
            rows["id"] = path.stem + "/" + rows["id"]
            tables.append(pa.Table.from_pandas(rows, preserve_index=False))
        pq.write_table(pa.concat_tables(tables), work / "targets.parquet")


def settings(work: Path, teacher: str) -> Config:
    """The pipeline's settings for one teacher, all target sets at once."""
    return parse_config(
        {
            "run_dir": str(work / "runs" / teacher),
            "corpus": {"path": str(work / "pool.parquet")},
            "target": {"path": str(work / "targets.parquet")},
            "embedding": {"max_tokens": 128, "batch_size": 16},
            "influence": {"subtask_column": "set"},
            **TEACHERS[teacher],
        }
    )


def influence_of(work: Path, teachers: list[str]) -> dict[str, RunDirectory]:
    """A run per teacher up to the prediction; the rows are embedded once."""
    runs: dict[str, RunDirectory] = {}
    for teacher in teachers:
        config = settings(work, teacher)
        for earlier in runs.values():
            for folder in ("1-corpus", "2-embeddings"):
                if not (Path(config.run_dir) / folder).exists():
                    shutil.copytree(earlier.path / folder, Path(config.run_dir) / folder)
        say(f"--- {teacher}")
        runs[teacher] = run(config, until="predict", overwrite=True)
    return runs


class Pool:
    """Embeddings and columns of the rows, and the kernel of the candidates among themselves."""

    def __init__(self, work: Path, directory: RunDirectory) -> None:
        embed, corpus = (directory.artifact(name) for name in ("2-embeddings", "1-corpus"))
        assert embed is not None and corpus is not None, "the run is finished"
        self.candidates = VectorParts(embed, "candidates").all()
        self.targets = VectorParts(embed, "targets").all()
        rows = _extras(TableParts(corpus, "candidates"))
        self.category = np.array([row["category"] for row in rows])
        self.bad = np.array([bool(row["known_bad"]) for row in rows])
        of_targets = _extras(TableParts(corpus, "targets"))
        self.target_category = np.array([row["category"] for row in of_targets])
        self.target_set = np.array([row["set"] for row in of_targets])
        self.texts = [_texts(TableParts(corpus, side)) for side in ("candidates", "targets")]
        self.similar = _similar(self.candidates, work / "similar.npz")

    def measured(self, picks: Array, name: str) -> dict[str, float]:
        """The columns of the table for some picks."""
        wanted = self.target_category[self.target_set == name]
        categories = np.union1d(np.unique(self.category), np.unique(wanted))
        found = self.category[picks]
        shares = [[(of == c).mean() for c in categories] for of in (found, wanted)]
        cosines = self.candidates[picks] @ self.candidates[picks].T
        np.fill_diagonal(cosines, -1)
        return {
            "right": float(np.isin(found, wanted).mean()),
            "mix_error": float(np.abs(np.subtract(*shares)).sum() / 2),
            "bad": float(self.bad[picks].mean()),
            "redundant": float(cosines.max(axis=1).mean()),
        }


def _extras(rows: TableParts) -> list[dict[str, Any]]:
    return [
        json.loads(x) for table in rows.iter_parts(["extra"]) for x in table["extra"].to_pylist()
    ]


def _texts(rows: TableParts) -> list[str]:
    columns = ("instruction", "input", "output")
    tables = (table.to_pylist() for table in rows.iter_parts(columns))
    return [" ".join(row[name] for name in columns) for table in tables for row in table]


def _similar(embeddings: Array, path: Path) -> scipy.sparse.csr_array:
    """Cosines to the nearest rows, cut at FLOOR, (M, M)."""
    import faiss

    if not path.exists():
        cosines, ids = faiss.knn(
            embeddings, embeddings, NEIGHBOURS, metric=faiss.METRIC_INNER_PRODUCT
        )
        np.savez(path, cosines=cosines, ids=ids)
    found = np.load(path)
    values = np.maximum((found["cosines"] - FLOOR) / (1 - FLOOR), 0)
    starts = np.arange(0, values.size + 1, NEIGHBOURS)
    size = len(embeddings)
    return scipy.sparse.csr_array(
        (values.ravel(), found["ids"].ravel(), starts), shape=(size, size)
    )


# --- methods --------------------------------------------------------------------------------------


def without_teacher(pool: Pool, name: str, budget: int) -> Iterator[tuple[str, str, Array]]:
    """(method, objective, ranking) of what needs no teacher."""
    targets = pool.targets[pool.target_set == name]
    count = len(pool.candidates)
    for seed in range(SEEDS):
        yield (
            f"random, seed {seed}",
            "random",
            np.random.default_rng(seed).permutation(count)[:budget],
        )
    to_mean = pool.candidates @ targets.mean(axis=0)
    yield "cosine to the mean", "top", np.argsort(-to_mean, kind="stable")[:budget]
    yield "round robin", "nearest", _round_robin(pool.candidates @ targets.T, budget)
    yield "TF-IDF", "top", np.argsort(-_tf_idf(pool, name), kind="stable")[:budget]


def _round_robin(similarity: Array, budget: int) -> Array:
    """Every target in turn takes the nearest row that is left (RDS+)."""
    order = np.argsort(-similarity, axis=0, kind="stable")
    taken, place, picks = np.zeros(len(order), dtype=bool), np.zeros(order.shape[1], dtype=int), []
    while len(picks) < budget:
        for target in range(order.shape[1]):
            while taken[order[place[target], target]]:
                place[target] += 1
            row = order[place[target], target]
            taken[row] = True
            picks.append(row)
    return np.array(picks[:budget])


def _tf_idf(pool: Pool, name: str) -> Array:
    """Mean of the five best cosines to the targets, by words: (M,)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    rows, targets = pool.texts
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2)
    weights = vectorizer.fit_transform(rows)
    asked = [text for text, of in zip(targets, pool.target_set, strict=True) if of == name]
    similarity = (weights @ vectorizer.transform(asked).T).toarray()
    return np.sort(similarity, axis=1)[:, -5:].mean(axis=1)


def by_objectives(
    kernel: Array, means: Array, pool: Pool, budget: int
) -> Iterator[tuple[str, Array]]:
    """(objective, ranking) from the influence on one target set, (M, N) scaled."""
    shared: dict[str, Any] = {"mean_influence": means}
    yield "top mean", select(means[None, :], budget, "top_mean", **shared).ranking
    yield "facility location", select(kernel.T, budget, **shared).ranking
    information = "facility_location_mutual_information"
    yield "mutual information 2", select(kernel.T, budget, information, **shared).ranking
    relevance = kernel.max(axis=1)
    low = np.quantile(relevance, 1 - RELEVANT_SHARE)
    relevance = np.maximum((relevance - low) / (relevance.max() - low), 0)
    ranking = select(pool.similar, budget, information, form=1, query=relevance, **shared).ranking
    yield "mutual information 1", ranking


def scaled_influence(directory: RunDirectory) -> tuple[Array, Array]:
    """The predicted influence (M, N) as it is, and scaled by the range of the training labels."""
    predict, score = directory.artifact("6-influence"), directory.artifact("4-teacher")
    assert predict is not None and score is not None, "the run is finished"
    parts = [np.load(predict.directory / part.path) for part in predict.parts("dense")]
    influence = np.concatenate(parts)
    labels = pq.read_table(score.path("labels")).to_pandas()
    known = labels["score"][labels["quadrant"] == 0].dropna()
    low, high = np.float32(known.min()), np.float32(known.max())
    return influence, np.maximum((influence - low) / (high - low), 0)


def rows_of(pool: Pool, runs: dict[str, RunDirectory]) -> Iterator[dict[str, Any]]:
    """The rows of the table."""
    budgets = [round(share * len(pool.candidates)) for share in SHARES]
    cosines = np.clip(pool.candidates @ pool.targets.T, 0, 1)
    kernels = {"full DELIFT (SE)": (cosines, cosines)}
    kernels |= {f"NN-CIFT, {name}": scaled_influence(found) for name, found in runs.items()}
    for name in np.unique(pool.target_set).tolist():
        say(f"--- {name}")
        columns = pool.target_set == name
        full: dict[str, Array] = {}
        ranked = list(without_teacher(pool, name, budgets[-1]))
        for method, (influence, kernel) in kernels.items():
            means = influence[:, columns].mean(axis=1, dtype=np.float64)
            for objective, ranking in by_objectives(kernel[:, columns], means, pool, budgets[-1]):
                ranked.append((method, objective, ranking))
                if method.startswith("full"):
                    full[objective] = ranking
        for method, objective, ranking in ranked:
            for budget in budgets:
                picks = ranking[:budget]  # greedy rankings are prefixes of one another
                row = {"target": name, "method": method, "objective": objective, "picks": budget}
                row |= pool.measured(picks, name)
                if method == "NN-CIFT, delift_se":
                    theirs = full[objective][:budget]
                    both = len(np.intersect1d(picks, theirs))
                    row["overlap"] = both / (2 * budget - both)
                yield row


def fidelity(runs: dict[str, RunDirectory]) -> list[dict[str, Any]]:
    """What the audit of each run says."""
    rows = []
    for teacher, directory in runs.items():
        artifact = directory.artifact("5-student")
        assert artifact is not None, "the run is finished"
        found = read_json(artifact.path("fidelity"))
        counts = {name: artifact.counts[name] for name in ("training_labels", "spearman", "r2")}
        trusted = {"trusted": found["trusted"], "first reason": found["reasons"][0]}
        rows.append({"table": "audit", "teacher": teacher, **counts, **trusted})
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--teachers", nargs="+", choices=TEACHERS, default=list(TEACHERS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    work = arguments.work.absolute()
    write_files(work)
    with connected(RayConfig()):
        runs = influence_of(work, arguments.teachers)
    audits = fidelity(runs)
    rows = list(rows_of(Pool(work, next(iter(runs.values()))), runs))
    columns = ("teacher", "training_labels", "spearman", "r2", "trusted", "first reason")
    print(markdown_table(audits, columns), markdown_table(rows, COLUMNS), sep="\n\n")
    if arguments.json:
        said = {"shares": SHARES, "floor": FLOOR, "relevant_share": RELEVANT_SHARE}
        said |= {"teachers": {name: TEACHERS[name] for name in arguments.teachers}}
        save(arguments.json, "target_recovery", said, [*audits, *rows], threads=1)


if __name__ == "__main__":
    main()
