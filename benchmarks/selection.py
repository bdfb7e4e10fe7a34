"""Facility location: our lazy greedy beside submodlib's and apricot's, its cost, partitions.

    python benchmarks/selection.py --json FILE        # a minute, and two for the sizes

dense    n rows that cover each other, cosines of clustered vectors cut at 0, 30 % picked: the same
         kernel and budget for all, in turns in one process; `value` is the objective of the picks
         under the kernel, computed here in float64
sparse   M rows with 64 neighbours each, 30 % picked: wall seconds and peak memory, each size in a
         process of its own; the kernel is made before the clock starts

in parts one kernel of 64 nearest neighbours by the cosine of clustered vectors, selected from at
         once and in partitions of neighbouring clusters (`engine.selection.partitioned`), one after
         the other here; `ratio` is the objective in two rounds over that at once, `by_gain` that
         of merging the partitions' picks by their gains, as where even those do not fit

submodlib-py and apricot-select are asked only where they are installed (`pip install --no-deps
submodlib-py apricot-select`); a row says so where they are not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import scipy.sparse
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.provenance import markdown_table, save
from engine import select
from engine.artifacts.files import save_array
from engine.artifacts.rows import as_lists
from engine.selection.kernel_files import KernelFiles
from engine.selection.partitioned import (
    CLUSTERS_PER_PARTITION,
    first_budgets,
    partitions_of,
    second_round,
)
from engine.selection.problem import Problem

SHARE = 0.3
NEIGHBOURS = 64
DENSE = ["way", "rows", "picks", "cpu_s", "wall_s", "times_ours", "value", "note"]
SPARSE = ["rows", "picks", "wall_s", "peak_rss_gib"]
PARTS = ["rows", "picks", "partitions", "at_once_s", "in_parts_s", "ratio", "by_gain"]

Array = NDArray[Any]


def dense_kernel(rows: int) -> Array:
    """Cosine similarities of vectors around 50 centres, cut at 0: (n, n) float32."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((50, 32))
    vectors = centres[rng.integers(0, 50, rows)] + rng.standard_normal((rows, 32))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.maximum(vectors @ vectors.T, 0).astype(np.float32)


def sparse_kernel(rows: int) -> scipy.sparse.csr_array:
    """Each row's similarity to itself and to 63 others near it in a line of clusters."""
    rng = np.random.default_rng(0)
    near = np.arange(rows)[:, None] + rng.integers(-500, 501, (rows, NEIGHBOURS))
    near[:, 0] = np.arange(rows)
    values = rng.random((rows, NEIGHBOURS), dtype=np.float32)
    values[:, 0] = 1
    starts = np.arange(0, rows * NEIGHBOURS + 1, NEIGHBOURS)
    kernel = scipy.sparse.csr_array(
        (values.ravel(), np.clip(near, 0, rows - 1).ravel(), starts), shape=(rows, rows)
    )
    kernel.sum_duplicates()
    return kernel


def ways(kernel: Array, budget: int) -> dict[str, Callable[[], Array] | str]:
    """What is timed by name: a call that returns the picks, or why there is none."""
    found: dict[str, Callable[[], Array] | str] = {
        "ours": lambda: select(kernel, budget).ranking,
    }
    try:
        from submodlib import FacilityLocationFunction

        def submodlib() -> Array:
            function = FacilityLocationFunction(
                n=len(kernel), mode="dense", sijs=kernel, separate_rep=False
            )
            picks = function.maximize(
                budget=budget, optimizer="LazyGreedy", show_progress=False, verbose=False
            )
            return np.array([pick for pick, _ in picks])

        found["submodlib LazyGreedy"] = submodlib
    except ImportError:
        found["submodlib LazyGreedy"] = "not installed"
    try:
        from apricot import FacilityLocationSelection

        def apricot() -> Array:
            selector = FacilityLocationSelection(budget, metric="precomputed", optimizer="lazy")
            return np.asarray(selector.fit(kernel.astype(np.float64)).ranking)

        found["apricot lazy"] = apricot
    except ImportError:
        found["apricot lazy"] = "not installed"
    return found


def dense_table(rows: int, repeats: int) -> list[dict[str, Any]]:
    """Ours beside the others on one dense kernel."""
    kernel, budget = dense_kernel(rows), int(SHARE * rows)
    asked = ways(kernel, budget)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in asked}
    values: dict[str, float] = {}
    select(kernel[:100, :100], 10)  # compiles
    for _ in range(repeats):
        for name, way in asked.items():
            if isinstance(way, str):
                continue
            cpu, wall = time.process_time(), time.perf_counter()
            picks = way()
            times[name].append((time.process_time() - cpu, time.perf_counter() - wall))
            values[name] = float(kernel[:, picks].max(axis=1).astype(np.float64).sum())
    ours = median(cpu for cpu, _ in times["ours"])
    table = []
    for name, way in asked.items():
        row: dict[str, Any] = {"way": name, "rows": rows, "picks": budget}
        if isinstance(way, str):
            table.append({**row, "note": way})
            continue
        cpu, wall = (median(column) for column in zip(*times[name], strict=True))
        row |= {"cpu_s": cpu, "wall_s": wall, "times_ours": cpu / ours, "value": values[name]}
        table.append(row)
    return table


def measure_sparse(rows: int) -> dict[str, Any]:
    """One size of the cost curve, for a process of its own."""
    kernel = sparse_kernel(rows)
    budget = int(SHARE * rows)
    select(sparse_kernel(200), 20)  # compiles
    started = time.perf_counter()
    select(kernel, budget)
    seconds = time.perf_counter() - started
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return {
        "rows": rows,
        "picks": budget,
        "wall_s": seconds,
        "peak_rss_gib": int(peak.split()[1]) / 2**20,
    }


def sparse_table(sizes: list[int]) -> list[dict[str, Any]]:
    """The cost curve."""
    table = []
    for rows in sizes:
        command = [sys.executable, __file__, "--measure", str(rows)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        table.append(json.loads(done.stdout))
        print(f"measured {rows:,} rows", file=sys.stderr, flush=True)
    return table


def write_lists(rows: int, folder: Path) -> tuple[KernelFiles, Array]:
    """A kernel of cosines between clustered vectors as files of neighbour lists; the vectors."""
    import faiss

    rng = np.random.default_rng(0)
    centres = rng.standard_normal((rows // 100, 32))
    vectors = centres[rng.integers(0, len(centres), rows)] + rng.standard_normal((rows, 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    cosines, ids = faiss.knn(vectors, vectors, NEIGHBOURS, metric=faiss.METRIC_INNER_PRODUCT)
    table = pa.table({"ids": as_lists(ids), "similarity": as_lists(np.clip(cosines, 0, 1))})
    pyarrow.feather.write_feather(table, str(folder / "lists.arrow"), compression="uncompressed")
    kernel = KernelFiles(
        "lists", (folder / "lists.arrow",), rows, rows, NEIGHBOURS, (0.0, 1.0), False
    )
    return kernel, vectors


def partitions_table(rows: int, numbers: list[int]) -> list[dict[str, Any]]:
    """Selecting at once beside partitions, on the same kernel."""
    import faiss

    table = []
    with tempfile.TemporaryDirectory() as folder:
        kernel, vectors = write_lists(rows, Path(folder))
        save_array(Path(folder) / "means.npy", np.zeros(rows, dtype=np.float32))
        budget = int(SHARE * rows)
        problem = Problem(
            objective="facility_location",
            budget=budget,
            means=Path(folder) / "means.npy",
            kernel=kernel,
            settings={},
            seed=0,
            zero_gain_tail="by_mean_influence",
            optimizer="lazy",
            epsilon=0.01,
        )
        started = time.perf_counter()
        at_once = problem.solve().objective_value
        seconds = time.perf_counter() - started
        for number in numbers:
            started = time.perf_counter()
            kmeans = faiss.Kmeans(vectors.shape[1], CLUSTERS_PER_PARTITION * number, seed=0)
            kmeans.train(vectors)
            clusters = kmeans.index.search(vectors, 1)[1][:, 0]
            parts = partitions_of(clusters, kmeans.centroids, number)
            most = first_budgets([len(part) for part in parts], budget)
            firsts = [problem.solve(p, n) for p, n in zip(parts, most, strict=True)]
            picks = [(first.ranking, first.gains, first.rounds) for first in firsts]
            in_parts, _ = second_round(problem, picks, max_bytes=2**40)
            row = {"rows": rows, "picks": budget, "partitions": number, "at_once_s": seconds}
            row |= {"in_parts_s": time.perf_counter() - started}
            merged, _ = second_round(problem, picks, max_bytes=0)
            value = problem.value(problem.coverage(merged.ranking)[1], merged.ranking)
            assert value is not None, "facility location is coverage"
            row |= {"ratio": in_parts.objective_value / at_once, "by_gain": value / at_once}
            table.append(row)
    return table


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5000, help="of the dense kernel")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="*",
        default=[10_000, 30_000, 100_000, 300_000, 1_000_000],
        help="of the sparse kernels",
    )
    parser.add_argument(
        "--partitions", type=int, nargs="*", default=[2, 8, 32], help="numbers of them"
    )
    parser.add_argument("--partitioned-rows", type=int, default=100_000)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure_sparse(arguments.measure)))
        return
    dense, sparse = dense_table(arguments.rows, arguments.repeats), sparse_table(arguments.sizes)
    parts = partitions_table(arguments.partitioned_rows, arguments.partitions)
    print(markdown_table(dense, DENSE), markdown_table(sparse, SPARSE), sep="\n\n")
    print("", markdown_table(parts, PARTS), sep="\n")
    if arguments.json:
        names = ("rows", "repeats", "sizes", "partitioned_rows", "partitions")
        settings = {name: getattr(arguments, name) for name in names}
        rows = [{"table": "dense", **row} for row in dense]
        rows += [{"table": "sparse", **row} for row in sparse]
        rows += [{"table": "in parts", **row} for row in parts]
        save(arguments.json, "selection", settings, rows, threads=1)


if __name__ == "__main__":
    main()
