"""The best candidates of very many targets: pools of candidates beside comparing everything.

    python benchmarks/prefilter.py --work DIR --runs delift=RUN se=RUN2 --json FILE

For every network (of a finished run; `benchmarks/fidelity.py` makes such runs) and every size,
M candidates that are their own targets, real texts (`benchmarks/pool.py`), k = 64:

exact          `top_candidates(..., recall=1)`: our kernel over all pairs
pools          `top_candidates(..., recall=R)`: `told` is the recall that it measured itself
low rank       the other way to do it: an inner-product form of the matrix, from the SVD of a
               sampled tile and extended to all rows through the network, searched by FAISS (Flat,
               IVF and HNSW, their building included); timed on some targets and scaled up. What
               it fetches would still have to be compared exactly, which is not timed
embeddings     the nearest neighbours by the raw embeddings, likewise

`find_seconds` of the pools' seconds go into finding them. `recall` is counted against the exact
lists of all targets (of the timed ones). Wall seconds; what is timed runs in turns on the same
threads.
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

from benchmarks.pool import pool
from benchmarks.provenance import markdown_table, save
from engine import InfluenceNetwork, fit_network, predict_influence, top_candidates
from engine.influence.pools import find_pools
from engine.kernels.units import norm_bound

K = 64
TILE = 1500  # rows and columns of the tile that a low-rank form is learned from
QUERIES = 10_000  # targets that FAISS is timed on
LISTS = 1024  # of the IVF index, of which an eighth is searched
HNSW_LINKS = 32
COLUMNS = [
    "network", "rows", "method", "seconds", "find_seconds", "recall", "told", "times_exact", "note",
]  # fmt: skip

Array = NDArray[Any]


def measure(
    name: str,
    network: InfluenceNetwork,
    embeddings: Array,
    recall: float,
    threads: int,
    repeats: int,
    with_faiss: bool,
) -> Iterator[dict[str, Any]]:
    """All methods with one network on one size."""
    rows = len(embeddings)

    def row(method: str, seconds: float, **more: Any) -> dict[str, Any]:
        return {
            "network": name,
            "rows": rows,
            "method": method,
            "seconds": seconds,
            "times_exact": exact_seconds / seconds,
            **more,
        }

    exact_times, pool_times = [], []
    for _ in range(repeats):
        seconds, exact = _timed(network, embeddings, 1.0, threads)
        exact_times.append(seconds)
        seconds, ours = _timed(network, embeddings, recall, threads)
        pool_times.append(seconds)
    exact_seconds = float(np.median(exact_times))
    note = "nothing to gain: everything was compared" if ours.recall == 1 else ""
    yield row("exact", exact_seconds, recall=1.0)
    yield row(
        "pools",
        float(np.median(pool_times)),
        find_seconds=_find_seconds(network, embeddings, recall, threads),
        recall=found(ours.ids, exact.ids),
        told=ours.recall,
        note=note,
    )
    if not with_faiss:
        return
    rng = np.random.default_rng(1)
    asked = rng.choice(rows, min(rows, QUERIES), replace=False)
    scale = rows / len(asked)
    for rank in (16, 64):
        left, right, form_seconds = low_rank(network, embeddings, asked, rank, rng)
        for kind in ("Flat", "IVF", "HNSW"):
            index, build_seconds = _index(left, kind)
            for fetch in (2 * K, 4 * K):
                started = time.perf_counter()
                _, ids = index.search(right, fetch)
                seconds = (time.perf_counter() - started) * scale + build_seconds + form_seconds
                yield row(
                    f"low rank {rank}, {kind}, fetch {fetch}",
                    seconds,
                    recall=found(ids, exact.ids[asked]),
                    note="extrapolated",
                )
    index, build_seconds = _index(embeddings, "Flat")
    for fetch in (K, 16 * K):
        some = asked[:1000]
        started = time.perf_counter()
        _, ids = index.search(embeddings[some], fetch)
        seconds = (time.perf_counter() - started) * rows / len(some)
        yield row(
            f"embeddings, Flat, fetch {fetch}",
            seconds,
            recall=found(ids, exact.ids[some]),
            note="extrapolated",
        )


def _timed(network: InfluenceNetwork, embeddings: Array, recall: float, threads: int) -> Any:
    started = time.perf_counter()
    top = top_candidates(network, embeddings, embeddings, K, recall, threads=threads)
    return time.perf_counter() - started, top


def _find_seconds(
    network: InfluenceNetwork, embeddings: Array, recall: float, threads: int
) -> float:
    """Of the pools' seconds, those that go into finding them."""
    form = network.factorise().fixed_point(norm_bound(embeddings))
    sides = [form.of_candidates(embeddings)], [form.of_targets(embeddings)]
    started = time.perf_counter()
    find_pools(*sides, K, recall, threads=threads)
    return time.perf_counter() - started


def found(ids: Array, true_ids: Array) -> float:
    """Share of the true best that are among the ids, on average over the targets."""
    hits = [np.isin(true, some).mean() for true, some in zip(true_ids, ids, strict=True)]
    return float(np.mean(hits))


def low_rank(
    network: InfluenceNetwork, embeddings: Array, asked: Array, rank: int, rng: np.random.Generator
) -> tuple[Array, Array, float]:
    """Vectors of all candidates and of the asked targets whose inner products are about S.

    A target's own mean is left out: it changes no order. Returns also the seconds that it took.
    """
    started = time.perf_counter()
    some_c, some_t = rng.choice(len(embeddings), (2, min(TILE, len(embeddings) // 2)))
    tile = predict_influence(network, embeddings[some_c], embeddings[some_t])
    mean = tile.mean(axis=0)
    u, sizes, v = np.linalg.svd(tile - mean, full_matrices=False)
    root = np.sqrt(sizes[:rank])
    rows = predict_influence(network, embeddings, embeddings[some_t]) - mean
    columns = predict_influence(network, embeddings[some_c], embeddings[asked]).T
    left, right = rows @ (v[:rank].T / root), columns @ (u[:, :rank] / root)
    seconds = time.perf_counter() - started
    return np.ascontiguousarray(left), np.ascontiguousarray(right), seconds


def _index(vectors: Array, kind: str) -> tuple[Any, float]:
    started = time.perf_counter()
    dim = vectors.shape[1]
    index: Any = faiss.IndexFlatIP(dim)
    if kind == "IVF":
        index = faiss.IndexIVFFlat(index, dim, LISTS, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = LISTS // 8
        index.train(vectors[: 64 * LISTS])
    if kind == "HNSW":
        index = faiss.IndexHNSWFlat(dim, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = index.hnsw.efSearch = 4 * K
    index.add(vectors)
    return index, time.perf_counter() - started


def cosine_network(embeddings: Array) -> InfluenceNetwork:
    """A network fitted on the cosine of some pairs: without hubs, the hardest case for pools."""
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 400, (20_000, 2))
    candidates, targets = embeddings[:400], embeddings[400:800]
    labels = np.einsum("nd,nd->n", candidates[pairs[:, 0]], targets[pairs[:, 1]])
    return fit_network(candidates, targets, pairs, labels)


def extrapolated(rows: list[dict[str, Any]], million: int = 1_000_000) -> list[dict[str, Any]]:
    """Exact and pools at a million rows, from the two largest sizes.

    Comparing everything, and the scouts' part of it, grow with the square of the largest size;
    comparing with pools by the power law through the two sizes.
    """
    more = []
    for name in dict.fromkeys(row["network"] for row in rows):
        of_method = {
            method: [r for r in rows if r["network"] == name and r["method"] == method][-2:]
            for method in ("exact", "pools")
        }
        if len(of_method["pools"]) < 2:
            continue
        small, large = of_method["pools"]
        growth = million / large["rows"]
        searching = [row["seconds"] - row["find_seconds"] for row in (small, large)]
        power = np.log(searching[1] / searching[0]) / np.log(large["rows"] / small["rows"])
        exact = of_method["exact"][1]["seconds"] * growth**2
        finding = large["find_seconds"] * growth**2
        pools = finding + searching[1] * growth**power
        for method, seconds in (("exact", exact), ("pools", pools)):
            more.append(
                {
                    "network": name,
                    "rows": million,
                    "method": method,
                    "seconds": float(seconds),
                    "find_seconds": float(finding) if method == "pools" else None,
                    "times_exact": float(exact / seconds),
                    "note": "extrapolated from the two sizes above",
                }
            )
    return more


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where embeddings are kept")
    parser.add_argument("--runs", nargs="*", default=[], help="NAME=RUN of finished runs")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 200_000])
    parser.add_argument("--recall", type=float, default=0.98)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-faiss", action="store_true", help="exact and pools only")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(arguments.threads)
    embeddings = pool(arguments.work, max(arguments.sizes))
    networks = {
        name: InfluenceNetwork.load(Path(run) / "5-student/student.safetensors")
        for name, run in (text.split("=", 1) for text in arguments.runs)
    }
    networks["cosine labels"] = cosine_network(embeddings)
    rows: list[dict[str, Any]] = []
    for size in sorted(arguments.sizes):
        for name, network in networks.items():
            for row in measure(
                name,
                network,
                embeddings[:size],
                arguments.recall,
                arguments.threads,
                arguments.repeats,
                not arguments.no_faiss,
            ):
                rows.append(row)
                print(f"{name}, {size:,}: {row['method']}", file=sys.stderr, flush=True)
    rows += extrapolated(rows)
    print(markdown_table(rows, COLUMNS))
    if arguments.json:
        settings = {name: value for name, value in vars(arguments).items() if name != "json"}
        settings |= {"work": "DIR", "runs": list(networks), "k": K}
        save(arguments.json, "prefilter", settings, rows, arguments.threads)


if __name__ == "__main__":
    main()
