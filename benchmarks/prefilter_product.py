"""The best candidates of very many targets in the product form: FAISS beside comparing everything.

    python benchmarks/prefilter_product.py --answers DIR --json FILE

DIR is the --work of benchmarks/target_recovery.py, whose rows are candidates and targets at once:
embeddings of real texts, and the vectors that RDS+ and DELIFT (SE) make of 2 % of them, which a
VectorStudent learns. k = 64 best candidates of every target:

exact     `top_candidates(..., recall=1)`: all pairs
index     `top_candidates(..., recall=R)`: an inverted file of FAISS over the candidates' factors,
          compared exactly afterwards; `told` is the recall that it measured itself, `recall` what
          it is. exact where nothing would be gained
HNSW      what one would build first: a graph of FAISS, nothing compared afterwards

Wall seconds of the search, building included; what is timed runs in turns on the same threads.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.prefilter import HNSW_LINKS, QUERIES, K, found
from benchmarks.provenance import markdown_table, save
from benchmarks.target_recovery import MIXED, TEACHERS, Pool
from engine import VectorStudent, top_candidates
from engine.terminal.progress import say

LEARNED = 0.02
COLUMNS = ("teacher", "rows", "method", "wanted", "seconds", "recall", "told", "times_exact")

Array = NDArray[Any]


def measure(
    teacher: str, student: VectorStudent, features: Array, recalls: list[float], threads: int
) -> Iterator[dict[str, Any]]:
    """All methods of one student on some rows."""
    vectors = student.predict(features, threads=threads)

    def row(method: str, seconds: float, **more: Any) -> dict[str, Any]:
        told = {"teacher": teacher, "rows": len(features), "method": method, "seconds": seconds}
        return {**told, "times_exact": exact_s / seconds, **more}

    def timed(recall: float) -> tuple[float, Any]:
        started = time.perf_counter()
        top = top_candidates(student, features, vectors, K, recall, threads=threads)
        return time.perf_counter() - started, top

    started = time.perf_counter()
    student.candidate_factors(features, threads=threads)
    predicting_s = time.perf_counter() - started  # a part of each search that is none
    exact_s, exact = timed(1.0)
    exact_s -= predicting_s
    yield row("exact", exact_s, recall=1.0)
    for recall in recalls:
        seconds, top = timed(recall)
        hits = found(top.ids, exact.ids)
        seconds -= predicting_s
        yield row("index", seconds, wanted=recall, recall=hits, told=top.recall)
    factors = np.asarray(student.candidate_factors(features, threads=threads))
    asked = np.random.default_rng(1).permutation(len(features))[:QUERIES]
    started = time.perf_counter()
    index = faiss.IndexHNSWFlat(factors.shape[1], HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = index.hnsw.efSearch = 4 * K
    index.add(factors)
    build_s, started = time.perf_counter() - started, time.perf_counter()
    _, ids = index.search(np.asarray(student.target_factors(vectors))[asked], K)
    seconds = (time.perf_counter() - started) * len(features) / len(asked) + build_s
    yield row("HNSW", seconds, recall=found(ids, exact.ids[asked]))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--answers", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[24_000, 48_000])
    parser.add_argument("--recalls", type=float, nargs="+", default=[0.9, 0.98])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(arguments.threads)
    pool = Pool(arguments.answers, MIXED)
    rows: list[dict[str, Any]] = []
    for teacher in TEACHERS:
        order = np.random.default_rng(0).permutation(pool.size)
        asked = order[: round(LEARNED * pool.size)]
        vectors = pool.vectors[teacher][0]
        centre = vectors[asked].mean(axis=0) if teacher == "rds" else 0
        student = VectorStudent.fit(pool.features[0][asked], vectors[asked] - centre)
        for size in arguments.sizes:
            some = pool.features[0][order[:size]]
            for row in measure(teacher, student, some, arguments.recalls, arguments.threads):
                rows.append(row)
                say(str(row))
    print(markdown_table(rows, COLUMNS))
    if arguments.json:
        settings = {"k": K, "learned": LEARNED, "recalls": arguments.recalls}
        save(arguments.json, "prefilter_product", settings, rows, threads=arguments.threads)


if __name__ == "__main__":
    main()
