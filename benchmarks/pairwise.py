"""The O(MN) predictor beside what it replaces and beside what the machine can do.

    python benchmarks/pairwise.py --json benchmarks/results/pairwise.json
    python benchmarks/pairwise.py --quick          # everything, tiny, in seconds

Random embeddings of unit length and an untrained network with main effects: time hardly depends on
either. Four claims:

    pairs   pairs per CPU second on one thread, all ways in turns in one process. From embeddings
            to the matrix: `ours` (predict_influence), `ours_in_place` (the same into used memory,
            as a job in blocks does), `per_pair_loop` (the published way), `concatenation` (the
            same in batches), `torch_broadcast` (the factorised form in the best of a few tiles).
            From ready units to a matrix in used memory: `ours_kernel`, `compiled_c_float` and
            `compiled_c_int`, the same maxima and additions in C as the system's compiler makes the
            most of them. `peak_int` and `peak_float` are maxima and additions in registers alone:
            what a pair would cost if it needed no memory at all. `share_of_c` is of the faster C.
            Then `threads`: ours on several, in wall seconds; where CPU seconds are those of one
            thread and the ratio is poor, something else had the other core
    means   mean_influence of M candidates over M targets
    top     top_candidates of M candidates for a few thousand targets
    matrix  top_candidates of M candidates for M targets: the cost of going through all pairs

The last three are wall seconds and memory; every size runs in a process of its own, so its peak is
nobody else's. `difference` in `pairs` is the largest from the network itself in float64, in
standard deviations of S; in `means` it is from the mean of predict_influence over all targets,
relative; `exact` in the others says that values and candidates of a few targets are those of their
sorted columns of predict_influence, bit for bit.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.compiled_loops import CompiledLoops, float_units
from benchmarks.plain_predictors import (
    ConcatenationNetwork,
    best_broadcast_tile,
    concatenation,
    per_pair_loop,
    torch_broadcast,
)
from benchmarks.provenance import ROOT, markdown_table, save
from engine.influence.network import embeddings_of
from engine.influence.predict import (
    SLAB_UNITS,
    mean_influence,
    predict_influence,
    top_candidates,
)
from engine.kernels.pairwise import pairwise_block
from engine.kernels.units import norm_bound
from engine.network.influence_network import InfluenceNetwork

SAMPLE = 64  # rows and columns of a matrix that are compared with float64
PATIENCE_S = 120.0  # no further repeat of a run after so many seconds
QUICK = {
    "pair_rows": 512, "concatenation_rows": 128, "loop_rows": 16, "repeats": 2,
    "sizes": [1000], "matrix_sizes": [250, 500], "targets": 100, "k": 50,
}  # fmt: skip
COLUMNS = {
    "pairs": (
        "way", "pairs", "pairs_per_s", "pairs_per_s_range", "speedup_of", "speedup",
        "speedup_range", "share_of_c", "share_of_peak", "difference", "note",
    ),
    "threads": (
        "way", "threads", "pairs", "one_thread_per_s", "pairs_per_s", "ratio", "ratio_range",
        "one_thread_cpu_s", "cpu_s",
    ),
    "means": (
        "rows", "threads", "wall_s", "wall_s_range", "repeats", "checks_s", "units_s",
        "rss_before_gib", "peak_rss_gib", "difference",
    ),
    "top": (
        "rows", "targets", "k", "threads", "wall_s", "wall_s_range", "repeats", "pairs_per_s",
        "rss_before_gib", "peak_rss_gib", "exact",
    ),
    "matrix": (
        "rows", "k", "threads", "wall_s", "wall_s_range", "repeats", "pairs_per_s",
        "rss_before_gib", "peak_rss_gib", "exact", "note",
    ),
}  # fmt: skip

Row = dict[str, Any]
Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to some part of S. `run` returns the matrix, or nothing where none is made."""

    name: str
    num_pairs: int
    run: Callable[[], Matrix | None]
    speedup_of: str  # which of ours does the same work


# --- the problem ---------------------------------------------------------------------------------


def random_embeddings(rows: int, dim: int, seed: Sequence[int]) -> Matrix:
    """(rows, dim) float32 of unit length, made in place: no second array of that size."""
    embeddings = np.empty((rows, dim), dtype=np.float32)
    random = np.random.default_rng(seed)
    for start in range(0, rows, 16384):
        block = embeddings[start : start + 16384]
        random.standard_normal(out=block, dtype=np.float32)
        block /= np.sqrt(np.einsum("nd,nd->n", block, block))[:, None]
    return embeddings


def random_network(dim: int, hidden: int, seed: int) -> InfluenceNetwork:
    """An untrained network whose main effects spread S about as much as its hidden units do."""
    generator = torch.Generator().manual_seed(seed)
    network = InfluenceNetwork(dim, (hidden,), main_effects=True, generator=generator)
    assert network.main is not None
    nn.init.uniform_(network.main.weight, -0.02, 0.02, generator=generator)
    network.label_mean.fill_(0.3)
    network.label_std.fill_(2.0)
    return network.eval()


def problem_of(
    flags: argparse.Namespace, num_candidates: int, num_targets: int
) -> tuple[InfluenceNetwork, Matrix, Matrix]:
    """Network, candidates and targets; two different sets."""
    return (
        random_network(flags.dim, flags.hidden, flags.seed),
        random_embeddings(num_candidates, flags.dim, [flags.seed, 0]),
        random_embeddings(num_targets, flags.dim, [flags.seed, 1]),
    )


@torch.inference_mode()
def exact_scores(network: InfluenceNetwork, candidates: Matrix, targets: Matrix) -> NDArray[Any]:
    """S (m, n) by the network's own forward pass, in float64."""
    e_c, e_t = (torch.from_numpy(side).double() for side in (candidates, targets))
    pairs = copy.deepcopy(network).double()(
        e_c.repeat_interleave(len(e_t), dim=0), e_t.repeat(len(e_c), 1)
    )
    return cast(Tensor, pairs).view(len(e_c), len(e_t)).numpy()


# --- pairs ---------------------------------------------------------------------------------------


def plain_ways(
    network: InfluenceNetwork,
    candidates: Matrix,
    targets: Matrix,
    loop_rows: int,
    concatenation_rows: int,
    tile: tuple[int, int],
) -> list[Way]:
    """From embeddings to the matrix, in torch; the slow ones of a corner of the matrix."""
    plain = ConcatenationNetwork(network)
    num_loop = min(loop_rows, len(candidates)) * min(loop_rows, len(targets))
    num_batch = min(concatenation_rows, len(candidates)) * min(concatenation_rows, len(targets))
    few, more = slice(loop_rows), slice(concatenation_rows)
    return [
        Way(
            "per_pair_loop", num_loop,
            lambda: per_pair_loop(plain, candidates[few], targets[few]), "ours",
        ),
        Way(
            "concatenation", num_batch,
            lambda: concatenation(plain, candidates[more], targets[more]), "ours",
        ),
        Way(
            "torch_broadcast", len(candidates) * len(targets),
            lambda: torch_broadcast(network, candidates, targets, tile), "ours",
        ),
    ]  # fmt: skip


def our_ways(
    network: InfluenceNetwork, candidates: Matrix, targets: Matrix, threads: int
) -> list[Way]:
    """Ours to a new matrix, to one that is reused, and to that from units that are ready."""
    form = network.factorise().fixed_point(norm_bound(candidates, targets))
    units = form.of_candidates(candidates), form.of_targets(targets)
    out = np.zeros((len(candidates), len(targets)), dtype=np.float32)

    def in_place() -> Matrix:
        form = network.factorise().fixed_point(norm_bound(candidates, targets))
        of_candidates = form.of_candidates(candidates, threads=threads)
        of_targets = form.of_targets(targets, threads=threads)
        return pairwise_block(of_candidates, of_targets, out=out, threads=threads)

    return [
        Way(
            "ours", out.size,
            lambda: predict_influence(network, candidates, targets, threads=threads), "ours",
        ),
        Way("ours_in_place", out.size, in_place, "ours"),
        Way(
            "ours_kernel", out.size,
            lambda: pairwise_block(*units, out=out, threads=threads), "ours_kernel",
        ),
    ]  # fmt: skip


def compiled_ways(
    loops: CompiledLoops, network: InfluenceNetwork, candidates: Matrix, targets: Matrix
) -> list[Way]:
    """From units to a matrix that is reused, in C; and the peak of the same operations."""
    form = network.factorise()
    fixed = form.fixed_point(norm_bound(candidates, targets))
    floats = float_units(form, candidates, targets)
    ints = fixed.of_candidates(candidates).rows(), fixed.of_targets(targets).rows()
    num_units, num_pairs = floats[0].shape[1], len(candidates) * len(targets)
    positive = form.num_positive
    runs = {
        "compiled_c_float": loops.fill("float", *floats, positive, 1.0),
        "compiled_c_int": loops.fill("int", *ints, positive, fixed.step),
        "peak_float": loops.peak("float", num_units, num_pairs),
        "peak_int": loops.peak("int", num_units, num_pairs),
    }
    return [Way(name, num_pairs, run, "ours_kernel") for name, run in runs.items()]


class Sample:
    """S in float64 at a few random rows and columns of any corner of the matrix."""

    def __init__(
        self, network: InfluenceNetwork, candidates: Matrix, targets: Matrix, seed: int
    ) -> None:
        self._network, self._candidates, self._targets = network, candidates, targets
        self._seed = seed
        self._exact: dict[tuple[int, ...], NDArray[Any]] = {}
        self._scale = float(self._of((len(candidates), len(targets)))[1].std())

    def difference(self, matrix: Matrix) -> float:
        """The largest between the sample and a matrix, in standard deviations of S."""
        places, exact = self._of(matrix.shape)
        return float(np.abs(matrix[places] - exact).max()) / self._scale

    def _of(self, shape: tuple[int, ...]) -> tuple[Any, NDArray[Any]]:
        random = np.random.default_rng(self._seed)
        rows, columns = (random.choice(size, min(size, SAMPLE), replace=False) for size in shape)
        if shape not in self._exact:
            self._exact[shape] = exact_scores(
                self._network, self._candidates[rows], self._targets[columns]
            )
        return np.ix_(rows, columns), self._exact[shape]


@dataclass(slots=True)
class Times:
    """Seconds of the repeats of one way, and what it computed of a sample."""

    cpu: list[float]
    wall: list[float]
    difference: float | None = None

    def facts(self) -> Row:
        return {
            "cpu_s": median(self.cpu),
            "cpu_s_range": [min(self.cpu), max(self.cpu)],
            "wall_s": median(self.wall),
            "wall_s_range": [min(self.wall), max(self.wall)],
        }


def in_turns(ways: Sequence[Way], repeats: int, sample: Sample | None = None) -> dict[str, Times]:
    """Seconds of all ways, run in turns, in opposite order every other time, after one unmeasured
    turn, which compiles what has to be and touches the memory that is reused.
    """
    times = {way.name: Times([], []) for way in ways}
    for repeat in range(-1, repeats):
        for way in ways[:: -1 if repeat % 2 else 1]:
            torch.set_num_threads(1)  # numba's pool raises the count when it starts
            wall, cpu = time.perf_counter(), time.process_time()
            matrix = way.run()
            if repeat >= 0:
                times[way.name].cpu.append(time.process_time() - cpu)
                times[way.name].wall.append(time.perf_counter() - wall)
            elif sample is not None and matrix is not None:
                times[way.name].difference = sample.difference(matrix)
            del matrix  # before the next way asks for memory
    return times


def pairs_table(flags: argparse.Namespace, loops: CompiledLoops | str) -> list[Row]:
    """One thread: all ways in turns. `loops` are missing for a reason where they are a text."""
    network, candidates, targets = problem_of(flags, flags.pair_rows, flags.pair_rows)
    sample = Sample(network, candidates, targets, flags.seed)
    tile = best_broadcast_tile(network, candidates, targets)
    ways = our_ways(network, candidates, targets, threads=1)
    ways += plain_ways(
        network, candidates, targets, flags.loop_rows, flags.concatenation_rows, tile
    )
    if not isinstance(loops, str):
        ways += compiled_ways(loops, network, candidates, targets)
    times = in_turns(ways, flags.repeats, sample)
    per_second = {
        way.name: [way.num_pairs / seconds for seconds in times[way.name].cpu] for way in ways
    }
    compiled = [name for name in per_second if name.startswith("compiled_c")]
    best_c = max(compiled, key=lambda name: median(per_second[name]), default=None)
    peak = "peak_int" if "peak_int" in per_second else None
    notes = {"torch_broadcast": f"tiles of {tile[0]} x {tile[1]}"}
    rows = [
        {
            "table": "pairs",
            "way": way.name,
            "threads": 1,
            "pairs": way.num_pairs,
            **times[way.name].facts(),
            **_median_and_range("pairs_per_s", per_second[way.name]),
            "speedup_of": way.speedup_of,
            **_ratio("speedup", per_second[way.speedup_of], per_second[way.name]),
            "share_of_c": _share(per_second, way.name, best_c),
            "share_of_peak": _share(per_second, way.name, peak),
            "difference": times[way.name].difference,
            "note": notes.get(way.name),
        }
        for way in ways
    ]
    if isinstance(loops, str):
        rows.append({"table": "pairs", "way": "compiled_c", "threads": 1, "note": loops})
    return rows


def threads_table(flags: argparse.Namespace) -> list[Row]:
    """Ours on one thread and on several, in turns, in wall seconds."""
    network, candidates, targets = problem_of(flags, flags.pair_rows, flags.pair_rows)
    one, several = (our_ways(network, candidates, targets, n) for n in (1, flags.threads))
    ways = [Way(f"{way.name} 1", way.num_pairs, way.run, way.name) for way in one]
    times = in_turns([*several, *ways], flags.repeats)
    rows = []
    for way in several:
        alone, together = times[f"{way.name} 1"], times[way.name]
        rows.append(
            {
                "table": "threads",
                "way": way.name,
                "threads": flags.threads,
                "pairs": way.num_pairs,
                **together.facts(),
                "pairs_per_s": way.num_pairs / median(together.wall),
                "one_thread_wall_s": median(alone.wall),
                "one_thread_cpu_s": median(alone.cpu),
                "one_thread_per_s": way.num_pairs / median(alone.wall),
                **_ratio("ratio", alone.wall, together.wall),
            }
        )
    return rows


def _median_and_range(name: str, values: Sequence[float]) -> Row:
    return {name: median(values), f"{name}_range": [min(values), max(values)]}


def _ratio(name: str, ours: Sequence[float], theirs: Sequence[float]) -> Row:
    return _median_and_range(name, [a / b for a, b in zip(ours, theirs, strict=True)])


def _share(per_second: Mapping[str, Sequence[float]], name: str, of: str | None) -> float | None:
    if of is None:
        return None
    return cast(float, _ratio("share", per_second[name], per_second[of])["share"])


# --- sizes, each in a process of its own ---------------------------------------------------------


def measure_means(flags: argparse.Namespace) -> Row:
    """mean_influence of rows x rows; then its two simplest parts alone, and the check."""
    network, candidates, targets = problem_of(flags, flags.rows, flags.rows)
    mean_influence(network, candidates[:200], targets[:200], threads=flags.threads)
    means, facts = _timed(
        lambda: mean_influence(network, candidates, targets, threads=flags.threads), flags.repeats
    )
    start = time.perf_counter()
    for side in (candidates, targets):
        embeddings_of(side, flags.dim, "embeddings")
    form = network.factorise().fixed_point(norm_bound(candidates, targets))
    checks_s = time.perf_counter() - start
    for slab in form.slabs(SLAB_UNITS):
        slab.of_candidates(candidates, threads=flags.threads)
        slab.of_targets(targets, threads=flags.threads)
    units_s = time.perf_counter() - start - checks_s
    some = _some(flags, 16)
    scores = predict_influence(network, candidates[some], targets, threads=flags.threads)
    brute = scores.mean(axis=1, dtype=np.float64)
    difference = float(np.max(np.abs(means[some] - brute) / np.abs(brute)))
    return {**facts, "checks_s": checks_s, "units_s": units_s, "difference": difference}


def measure_top(flags: argparse.Namespace) -> Row:
    """top_candidates of the rows for `targets` targets, k of them."""
    return _measure_top(flags, flags.targets, min(flags.k, flags.rows))


def measure_matrix(flags: argparse.Namespace) -> Row:
    """top_candidates of rows x rows, few of them: every pair is computed, none is kept."""
    return _measure_top(flags, flags.rows, min(flags.matrix_k, flags.rows))


def _measure_top(flags: argparse.Namespace, num_targets: int, k: int) -> Row:
    network, candidates, targets = problem_of(flags, flags.rows, num_targets)
    few = candidates[: max(k, 200)]
    top_candidates(network, few, targets[:200], min(k, len(few)), threads=flags.threads)
    top, facts = _timed(
        lambda: top_candidates(network, candidates, targets, k, threads=flags.threads),
        flags.repeats,
    )
    some = np.random.default_rng(flags.seed).choice(num_targets, min(4, num_targets), replace=False)
    scores = predict_influence(network, candidates, targets[some], threads=flags.threads)
    exact = all(
        np.array_equal(values, np.sort(column)[::-1][:k])
        and np.array_equal(column[ids], values)
        and len(set(ids.tolist())) == k
        for ids, values, column in zip(top.ids[some], top.influence[some], scores.T, strict=True)
    )
    return {
        "targets": num_targets,
        "k": k,
        **facts,
        "pairs_per_s": flags.rows * num_targets / facts["wall_s"],
        "exact": exact,
    }


def _some(flags: argparse.Namespace, num: int) -> NDArray[np.int64]:
    random = np.random.default_rng(flags.seed)
    return random.choice(flags.rows, min(num, flags.rows), replace=False)


def _timed(run: Callable[[], Any], repeats: int) -> tuple[Any, Row]:
    """What the last run returned; seconds of all, and memory before the first and at its peak."""
    before = memory_gib("VmRSS")
    times, result = Times([], []), None
    while len(times.wall) < repeats and sum(times.wall) < PATIENCE_S:
        del result
        wall, cpu = time.perf_counter(), time.process_time()
        result = run()
        times.cpu.append(time.process_time() - cpu)
        times.wall.append(time.perf_counter() - wall)
    memory = {"rss_before_gib": before, "peak_rss_gib": memory_gib("VmHWM")}
    return result, {**times.facts(), "repeats": len(times.wall), **memory}


def memory_gib(field: str) -> float:
    """VmRSS or VmHWM of this process: now resident, and the most so far.

    Not ru_maxrss where it can be helped: a new process starts with that of its parent.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    assert found is not None, f"/proc/self/status without {field}"
    return int(found[1]) / 2**20


MEASURES: dict[str, Callable[[argparse.Namespace], Row]] = {
    "means": measure_means,
    "top": measure_top,
    "matrix": measure_matrix,
}


def in_own_process(table: str, rows: int, flags: argparse.Namespace) -> Row:
    """One size of one table, measured by `--measure` in a new process."""
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", table]
    passed = ("threads", "dim", "hidden", "seed", "repeats", "targets", "k", "matrix_k")
    values = {"rows": rows, **{name: getattr(flags, name) for name in passed}}
    for name, value in values.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    measured = json.loads(done.stdout.splitlines()[-1])
    return {"table": table, "rows": rows, "threads": flags.threads, **measured}


def extrapolated(measured: Sequence[Row], rows: int) -> Row | None:
    """Seconds of a larger matrix as a M^2 + b M through the last two that were measured.

    Heaps cost per row and pairs per pair; where the two sizes do not show both, time goes by pairs.
    """
    if len(measured) < 2:
        return None
    (m1, t1), (m2, t2) = ((row["rows"], row["wall_s"]) for row in measured[-2:])
    a = (t2 / m2 - t1 / m1) / (m2 - m1)
    b = t2 / m2 - a * m2
    note = f"extrapolated from {m1} and {m2}"
    if a <= 0 or b < 0:
        a, b, note = t2 / m2**2, 0.0, f"extrapolated by pairs from {m2}"
    seconds = a * rows**2 + b * rows
    facts = {name: measured[-1][name] for name in ("table", "threads", "k")}
    facts |= {"rows": rows, "targets": rows, "wall_s": seconds, "pairs_per_s": rows**2 / seconds}
    return {**facts, "note": note}


def matrix_table(flags: argparse.Namespace) -> list[Row]:
    """Measured sizes, then what they say of the others."""
    sizes = sorted({*flags.matrix_sizes, *flags.sizes} if flags.full else flags.matrix_sizes)
    measured = []
    for rows in sizes:
        measured.append(in_own_process("matrix", rows, flags))
        print(f"measured the matrix of {rows} rows", file=sys.stderr, flush=True)
    others = (extrapolated(measured, rows) for rows in flags.sizes if rows > sizes[-1])
    return [*measured, *(row for row in others if row is not None)]


# --- the command ---------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the flags ask for; print tables, write JSON."""
    flags = _parser().parse_args(arguments)
    if flags.quick:
        vars(flags).update(QUICK)
    if flags.measure:
        print(json.dumps(MEASURES[flags.measure](flags)))
        return
    rows: list[Row] = []
    compiler: str | None = None
    if "pairs" in flags.tables:
        loops: CompiledLoops | str
        try:
            loops = CompiledLoops()
            compiler = loops.compiler
        except FileNotFoundError:
            loops = "no C compiler"
        except subprocess.CalledProcessError as error:
            loops = "the C compiler failed"
            print(error.stderr, file=sys.stderr)
        rows += pairs_table(flags, loops)
        if flags.threads > 1:
            rows += threads_table(flags)
        print("measured pairs", file=sys.stderr, flush=True)
    for table in ("means", "top"):
        for size in flags.sizes if table in flags.tables else ():
            rows.append(in_own_process(table, size, flags))
            print(f"measured {table} of {size} rows", file=sys.stderr, flush=True)
    if "matrix" in flags.tables:
        rows += matrix_table(flags)
    for table, columns in COLUMNS.items():
        some = [row for row in rows if row["table"] == table]
        if some:
            print(f"\n{table}\n\n{markdown_table(some, columns)}")
    if flags.json:
        facts = {**vars(flags), "json": flags.json.name, "compiler": compiler}
        for name in ("measure", "rows"):  # of a single process
            del facts[name]
        save(flags.json, "pairwise", facts, rows, flags.threads)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--tables", nargs="+", default=["pairs", *MEASURES], choices=["pairs", *MEASURES])
    add("--dim", type=int, default=384, help="D, size of an embedding")
    add("--hidden", type=int, default=100, help="units of the hidden layer")
    add("--seed", type=int, default=0)
    add(
        "--threads",
        type=int,
        default=os.cpu_count() or 1,
        help="of everything but the table `pairs`",
    )
    add("--repeats", type=int, default=5, help=f"fewer for what takes over {PATIENCE_S:.0f} s")
    add("--pair-rows", type=int, default=8064, help="rows of both sides in `pairs`")
    add("--concatenation-rows", type=int, default=512, help="the same for `concatenation`")
    add("--loop-rows", type=int, default=64, help="the same for `per_pair_loop`")
    sizes = [10_000, 30_000, 100_000, 300_000, 1_000_000]
    add("--sizes", type=int, nargs="+", default=sizes, help="rows of `means` and `top`")
    add("--targets", type=int, default=2000, help="of `top`")
    add("--k", type=int, default=1000, help="of `top`; at most the rows")
    add("--matrix-sizes", type=int, nargs="+", default=sizes[:3], help="measured by `matrix`")
    add("--matrix-k", type=int, default=64, help="of `matrix`")
    add("--full", action="store_true", help="measure `matrix` at all --sizes too (an hour)")
    add("--quick", action="store_true", help="everything tiny: that it runs, not how fast")
    add("--measure", choices=list(MEASURES), help="one size in this process; prints JSON")
    add("--rows", type=int, default=10_000, help="the size, for --measure")
    add("--json", type=Path, help="where the result is written")
    return parser


if __name__ == "__main__":
    main()
