"""Target recovery of LESS, on a part of the pool that two hours of its gradients pay for.

    python benchmarks/target_recovery_less.py ask --work DIR --answers DIR2    # resumes
    python benchmarks/target_recovery_less.py table --work DIR --answers DIR2 --json FILE
    python benchmarks/target_recovery_less.py baselines --work DIR --answers DIR2 --json FILE

As benchmarks/target_recovery.py, whose `ask` has filled DIR and whose words and columns these are,
on the first CHUNKS chunks of the pool, which are a random part of it, and on three target sets.
LESS (rank 16, one epoch, 2,048 dimensions, bfloat16, rows cut to 256 tokens) is asked about every
row, and learned from 5 % of them. Rows whose response does not fit have no gradient and are left
out for every method. `baselines` are those of engine/selection/baselines.py on that part, those of
perplexity among them, for which the language model reads every row once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import target_recovery as recovery
from benchmarks.provenance import markdown_table, save
from benchmarks.students import SETTINGS
from benchmarks.target_recovery import CHUNK, DEFAULT, MIXED, OBJECTIVES, SEEDS, SHARES, Pool, Row
from engine.artifacts.files import atomic_path
from engine.config import TeacherConfig
from engine.example import Example, order_hash
from engine.teachers.less import LessTeacher
from engine.terminal.progress import say

CHUNKS, PIECE = 3, 128
SETS = ("gsm8k", "general", MIXED)
ASKED = 0.05

Array = NDArray[Any]


def part_of_pool(answers: Path, work: Path) -> Path:
    """A folder with the first chunks of the pool alone, and all targets."""
    folder = work / "pool"
    folder.mkdir(parents=True, exist_ok=True)
    names = ["targets.npz", *(f"rows-{number:03d}.npz" for number in range(CHUNKS))]
    for name in names:
        if not (folder / name).exists():
            (folder / name).symlink_to((answers / name).resolve())
    return folder


def write_answers(work: Path) -> None:
    """Gradients of all rows, a file per PIECE rows; files that are there are kept."""
    settings = TeacherConfig.model_validate(SETTINGS["less"])
    pool = [recovery.example_of(row) for row in recovery.pool_rows()[: CHUNKS * CHUNK]]
    prepared = work / "less.prepared"
    if not prepared.exists():
        order = sorted(pool, key=lambda row: order_hash(0, "prepare", row.id))
        share = LessTeacher.preparation_share(settings)
        LessTeacher.prepare(settings, 0, order[: round(share * len(order))], prepared)
    teacher = LessTeacher.load(settings, 0, prepared)
    wanted = [row for row in recovery.target_rows() if row["set"] in SETS]
    targets = [recovery.example_of(row) for row in wanted]
    sides: list[tuple[str, list[Example]]] = [("target", targets), ("candidate", pool)]
    for side, rows in sides:
        for start in range(0, len(rows), PIECE):
            path = work / f"{side}-{start:05d}.npz"
            if path.exists():
                continue
            some = rows[start : start + PIECE]
            found = teacher.features("target" if side == "target" else "candidate", some)
            with atomic_path(path) as partial, partial.open("wb") as file:
                np.savez(file, values=found.values)
            say(f"{path.stem}: {found.usage.tokens} tokens")


def gradients(work: Path, side: str) -> Array:
    """(rows, 2048) float32; NaN where there is none."""
    files = sorted(work.glob(f"{side}-*.npz"))
    return np.concatenate([np.load(file)["values"] for file in files]).astype(np.float32)


def pools(work: Path, answers: Path) -> Iterator[tuple[Pool, Array]]:
    """Every set's pool with what LESS says of it, (M, N), without what it cannot score."""
    of_candidates, of_targets = (gradients(work, side) for side in ("candidate", "target"))
    names = [row["set"] for row in recovery.target_rows() if row["set"] in SETS]
    for name in SETS:
        pool = Pool(part_of_pool(answers, work), name)
        columns = of_targets[[i for i, other in enumerate(names) if other == name]]
        rows = np.flatnonzero(np.isfinite(of_candidates).all(axis=1))
        some = np.flatnonzero(np.isfinite(columns).all(axis=1))
        pool.keep(rows, some)
        yield pool, of_candidates[rows] @ columns[some].T


def rows_of_set(pool: Pool, whole: Array) -> Iterator[Row]:
    """All rows of one target set."""
    for method, objective, rankings in recovery.without_teacher(pool):
        if objective != "mutual information 1":
            yield from recovery.table_rows(pool, method, objective, rankings)
    bounds = float(whole.min()), float(whole.max())
    objectives = [name for name in OBJECTIVES if name != "mutual information 1"]
    best = {name: recovery.ranked(pool, whole, bounds, name) for name in objectives}
    for objective, ranking in best.items():
        yield from recovery.table_rows(pool, "less, everything", objective, [ranking])
    draws, chosen = [], "auto"
    for seed in range(SEEDS):
        asked = np.random.default_rng([seed, 1]).permutation(pool.size)[: round(ASKED * pool.size)]
        draw = recovery.learned(pool, asked, len(asked) // 3, whole[asked], seed, chosen)
        draws.append(draw)
        chosen = draw.student  # comparing contenders takes most of the time: once
    say(f"{pool.name}: {pool.size} rows, {chosen}, {[draw.audit for draw in draws]}")
    for objective, ranking in best.items():
        picked = [
            recovery.ranked(pool, draw.influence[DEFAULT], draw.bounds, objective) for draw in draws
        ]
        truth = recovery.Truth(whole, ranking)
        method = f"less, {ASKED:.0%} asked, {chosen}"
        yield from recovery.table_rows(pool, method, objective, picked, truth, draws)
        if objective == "round robin":
            for seed, draw in enumerate(draws):
                yield recovery.verdict_row(pool, "less", seed, draw, picked[seed], truth)


def baseline_rows(work: Path, answers: Path, to: Path | None) -> None:
    """What needs no teacher, on the same rows."""
    part = recovery.pool_rows()[: CHUNKS * CHUNK]
    recovery.write_losses(work, part)
    losses = recovery.read_losses(work, len(part))
    found: list[Row] = []
    for name in SETS:
        pool = Pool(part_of_pool(answers, work), name)
        sources = [row["source"] for row in part]
        found += recovery.rows_of_baselines(pool, list(recovery.BASELINES), sources, losses)
    names = ("target", "method", "objective", "picks", *recovery.MEASURES)
    print(markdown_table(found, names))
    if to:
        save(to, "target_recovery_less", {"rows": len(part), "sets": SETS}, found, threads=1)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("ask", "table", "baselines"))
    parser.add_argument("--work", type=Path, required=True, help="where gradients are kept")
    parser.add_argument("--answers", type=Path, required=True, help="--work of target_recovery.py")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.what == "ask":
        write_answers(arguments.work)
        return
    if arguments.what == "baselines":
        baseline_rows(arguments.work, arguments.answers, arguments.json)
        return
    rows = [
        row
        for pool, whole in pools(arguments.work, arguments.answers)
        for row in rows_of_set(pool, whole)
    ]
    found = [row for row in rows if row["table"] == "recovery"]
    names = ("target", "method", "objective", "picks", *recovery.MEASURES, "overlap", "worth")
    print(markdown_table(found, names), "\n")
    print(markdown_table(recovery.verdicts(rows), tuple(recovery.verdicts(rows)[0])))
    if arguments.json:
        said: dict[str, Any] = {"shares": SHARES, "asked": ASKED, "sets": SETS}
        said["rows"] = CHUNKS * CHUNK
        save(
            arguments.json,
            "target_recovery_less",
            {**said, "teacher": SETTINGS["less"]},
            rows,
            threads=1,
        )


if __name__ == "__main__":
    main()
