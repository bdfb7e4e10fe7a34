"""Arms compared: means over seeds, paired bootstrap against Random, students against teachers.

Pure functions over the table of graded answers, one line per arm, method, seed and test row. A
measure of a row that is NaN (a grade that could not be read, a row that could not be asked) is left
out, of both sides of a comparison.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.evaluation.text_metrics import TEXT_METRICS
from engine.kernels.arrays import FloatArray

__all__ = [
    "METRICS",
    "MIN_SEEDS",
    "Difference",
    "against",
    "difference",
    "holm",
    "markdown",
    "relative_differences",
    "summarise",
]

MIN_SEEDS = 3  # of both sides, before a difference is called one
LEVEL = 0.05

METRICS = (*TEXT_METRICS, "similarity", "judge", "log_likelihood")
_FLOOR = "similarity_floor"
_NAMES = {
    **{name: metric.label for name, metric in TEXT_METRICS.items()},
    "similarity": "similarity",
    "judge": "judge",
    "log_likelihood": "log-likelihood",
}
_METHODS = {"icl": "in context", "qlora": "QLoRA"}
_RELATIVE = ("rouge1", "similarity", "judge")  # the published ones; log-probabilities have no ratio
_DECIMALS = {"log_likelihood": 3}  # others: 2

Grid = dict[tuple[str, str], dict[str, FloatArray]]
Row = dict[str, Any]


def _grid(table: pa.Table) -> Grid:
    """For each (method, arm) each measure as (seeds, rows), rows in one order for all."""
    ids = {name: place for place, name in enumerate(dict.fromkeys(table["id"].to_pylist()))}
    columns = {name: table[name].to_numpy() for name in (*METRICS, _FLOOR)}
    keys = zip(*(table[name].to_pylist() for name in ("method", "arm", "seed")), strict=True)
    places: dict[tuple[str, str], dict[int, list[int]]] = {}
    for line, (method, arm, seed) in enumerate(keys):
        places.setdefault((method, arm), {}).setdefault(seed, []).append(line)
    row_of = np.array([ids[name] for name in table["id"].to_pylist()])
    grid: Grid = {}
    for cell, seeds in places.items():
        grid[cell] = {name: np.full((len(seeds), len(ids)), np.nan) for name in columns}
        for number, lines in enumerate(seeds.values()):
            for name, values in columns.items():
                grid[cell][name][number, row_of[lines]] = values[lines]
    return grid


def _mean(values: FloatArray, axis: int | None = None) -> Any:
    """Mean without NaN; NaN where there is nothing else."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def summarise(table: pa.Table) -> list[Row]:
    """A line for each method and arm: seeds, rows, and of each measure mean and spread.

    The mean is over rows, then seeds; the spread is the standard deviation of the seeds' means,
    None for one seed. A measure that no row has is left out.
    """
    rows = []
    for (method, arm), measures in _grid(table).items():
        row: Row = {"method": method, "arm": arm}
        row["seeds"], row["test_rows"] = measures["rouge1"].shape
        for name, values in measures.items():
            if np.isnan(values).all():
                continue
            by_seed = _mean(values, axis=1)
            by_seed = by_seed[~np.isnan(by_seed)]  # of a seed no grade of which could be read
            spread = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None
            row[name] = {"mean": float(_mean(by_seed)), "spread": spread}
        rows.append(row)
    return rows


def against(table: pa.Table, baseline: str, draws: int = 10_000, seed: int = 0) -> list[Row]:
    """Differences to a baseline, with what `difference` says of them.

    `p` is corrected by Holm over all arms of a method and measure; `differs` says that it is below
    5 % and that at least MIN_SEEDS seeds stand behind both sides. A row counts that both sides
    have a value of.
    """
    grid = _grid(table)
    rows: list[Row] = []
    for (method, arm), measures in grid.items():
        other = grid.get((method, baseline))
        if arm == baseline or other is None:
            continue
        for name in METRICS:
            pair = _both_known(measures[name], other[name])
            if pair is None:
                continue
            found = difference(*pair, draws=draws, seed=seed)
            row: Row = {"method": method, "arm": arm, "measure": name, "difference": found.value}
            row |= {"interval": list(found.interval), "p": found.p, "rows": pair[0].shape[1]}
            rows.append(row | {"seeds": [len(side) for side in pair]})
    for method, name in dict.fromkeys((row["method"], row["measure"]) for row in rows):
        family = [row for row in rows if (row["method"], row["measure"]) == (method, name)]
        for row, p in zip(family, holm([row["p"] for row in family]), strict=True):
            row["p"] = p
            row["differs"] = p < LEVEL and min(row["seeds"]) >= MIN_SEEDS
    return rows


@dataclass(frozen=True)
class Difference:
    """Of two arms: the mean difference, its 95 % interval, and p of there being none."""

    value: float
    interval: tuple[float, float]
    p: float


def difference(
    mine: FloatArray, theirs: FloatArray, draws: int = 10_000, seed: int = 0
) -> Difference:
    """Mean of (seeds, rows) less that of (other seeds, the same rows), by a two-level bootstrap.

    A draw takes test rows with replacement, the same for both sides, and of each side as many of
    its seeds with replacement: so both the rows that happened to be asked and the seeds that
    happened to be used are uncertain. What seeds add is scaled by sqrt(n / (n - 1)), since n seeds
    drawn from n spread less than n fresh ones do. One seed is taken as it is, and the interval then
    says nothing about others. p is two-sided, the share of draws on the other side of 0 twice.
    Memory: draws x rows numbers.
    """
    chooser = np.random.default_rng(seed)
    num_rows = mine.shape[1]
    # how often each row is drawn: (draws, rows), the same for both sides
    counts = chooser.multinomial(num_rows, np.full(num_rows, 1 / num_rows), size=draws) / num_rows
    sides = []
    for values in (mine, theirs):
        num_seeds = len(values)
        weights = chooser.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=draws)
        by_seed = counts @ values.T
        centre = by_seed.mean(axis=1)
        deviation = (by_seed * weights / num_seeds).sum(axis=1) - centre
        sides.append(centre + deviation * math.sqrt(num_seeds / max(1, num_seeds - 1)))
    drawn = sides[0] - sides[1]
    low, high = np.quantile(drawn, [0.025, 0.975])
    beyond = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p = min(1.0, 2 * (beyond + 1) / (draws + 1))
    return Difference(float(mine.mean() - theirs.mean()), (float(low), float(high)), p)


def holm(ps: Sequence[float]) -> list[float]:
    """p of each of several tests, corrected for there being several (Holm 1979)."""
    corrected, most = [0.0] * len(ps), 0.0
    for place, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        most = max(most, min(1.0, (len(ps) - place) * ps[i]))
        corrected[i] = most
    return corrected


def _both_known(mine: FloatArray, theirs: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """The rows that every seed of both sides has a value of; None when there is none."""
    known = ~(np.isnan(mine).any(axis=0) | np.isnan(theirs).any(axis=0))
    return (mine[:, known], theirs[:, known]) if known.any() else None


def relative_differences(table: pa.Table, pairs: Mapping[str, str], noise: str) -> Row:
    """Mean of |network - teacher| / |teacher| over methods and measures, in all and by pair.

    Args:
        table: the graded answers.
        pairs: teacher of each network, by arms.
        noise: an arm whose seeds are compared in the same way: what chance alone gives.

    Log-likelihoods, whose ratio says little, stand apart as mean absolute differences in nats.
    """
    means = {
        (row["method"], row["arm"]): {n: row[n]["mean"] for n in METRICS if n in row}
        for row in summarise(table)
    }
    by_pair: dict[str, list[float]] = {}
    by_measure: dict[str, list[float]] = {}
    nats: list[float] = []
    for (method, arm), mine in means.items():
        theirs = means.get((method, pairs.get(arm, "")))
        if theirs is None:
            continue
        both = [name for name in _RELATIVE if name in mine and theirs.get(name)]
        for name in both:
            difference = abs(mine[name] - theirs[name]) / abs(theirs[name])
            by_pair.setdefault(arm, []).append(difference)
            by_measure.setdefault(name, []).append(difference)
        nats.append(abs(mine["log_likelihood"] - theirs["log_likelihood"]))
    cells = [value for values in by_pair.values() for value in values]
    chance = list(_between_seeds(table, noise))
    return {
        "mean": float(np.mean(cells)) if cells else None,
        "cells": len(cells),
        "by_pair": {arm: float(np.mean(values)) for arm, values in by_pair.items()},
        "by_measure": {name: float(np.mean(values)) for name, values in by_measure.items()},
        "between_seeds": float(np.mean(chance)) if chance else None,
        "log_likelihood": float(np.mean(nats)) if nats else None,
        "published": 0.0140,
    }


def _between_seeds(table: pa.Table, arm: str) -> Iterator[float]:
    """Relative differences of all pairs of seeds of one arm."""
    for (_, name), measures in _grid(table).items():
        if name != arm:
            continue
        for measure in _RELATIVE:
            by_seed = _mean(measures[measure], axis=1)
            known: NDArray[Any] = by_seed[~np.isnan(by_seed)]
            for i, first in enumerate(known):
                yield from (abs(second - first) / abs(first) for second in known[i + 1 :] if first)


# --- for people ----------------------------------------------------------------------------------


def markdown(
    summary: Sequence[Row], differences: Sequence[Row], relative: Row, arms: Sequence[str]
) -> str:
    """The quality table, the differences to Random, and networks against their teachers.

    Arms stand in the order of `arms`.
    """
    methods = [m for m in _METHODS if any(row["method"] == m for row in summary)]
    shown = [m for m in (*METRICS, _FLOOR) if any(m in row for row in summary)]
    cells = {(row["method"], row["arm"]): row for row in summary}
    heads = [f"{_METHODS[m]}: {_NAMES.get(n, 'floor')}" for m in methods for n in shown]
    lines = [_line(["arm", "seeds", *heads]), _line(["---"] * (len(heads) + 2))]
    for arm in arms:
        mine = [cells.get((m, arm)) for m in methods]
        seeds = "/".join(str(row["seeds"]) if row else "-" for row in mine)
        values = [_value(row, name) for row in mine for name in shown]
        lines.append(_line([arm, seeds, *values]))
    text = ["Mean over test rows and seeds ± standard deviation over seeds.", "", *lines]
    if differences:
        text += ["", *_differences(differences, methods, arms)]
    if relative["mean"] is not None:
        text += ["", _relative_sentence(relative)]
    return "\n".join(text)


def _differences(rows: Sequence[Row], methods: Sequence[str], arms: Sequence[str]) -> list[str]:
    cells = {(row["method"], row["arm"], row["measure"]): row for row in rows}
    shown = [(m, n) for m in methods for n in METRICS if any(key[0::2] == (m, n) for key in cells)]
    heads = [f"{_METHODS[m]}: {_NAMES[n]}" for m, n in shown]
    lines = [
        "Difference to Random with 95 % intervals (bootstrap over test rows, which are paired, and "
        f"seeds); * marks those with p < {LEVEL:g} after Holm's correction over the arms of a "
        f"column, where both arms have at least {MIN_SEEDS} seeds.",
        "",
        _line(["arm", *heads]),
        _line(["---"] * (len(heads) + 1)),
    ]
    for arm in arms:
        mine = [cells.get((method, arm, name)) for method, name in shown]
        if any(mine):
            lines.append(_line([arm, *map(_difference, mine)]))
    return lines


def _relative_sentence(relative: Row) -> str:
    chance = relative["between_seeds"]
    noise = "" if chance is None else f"; two seeds of Random differ by {100 * chance:.2f} %"
    parts = {**relative["by_pair"], **{_NAMES[k]: v for k, v in relative["by_measure"].items()}}
    by_part = ", ".join(f"{name} {100 * value:.2f} %" for name, value in parts.items())
    return (
        f"Networks against their teachers: mean absolute relative difference "
        f"{100 * relative['mean']:.2f} % over {relative['cells']} cells ({by_part}), published "
        f"{100 * relative['published']:.2f} %{noise}. Log-likelihoods differ by "
        f"{relative['log_likelihood']:.3f} nats on average."
    )


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _value(row: Row | None, name: str) -> str:
    found = None if row is None else row.get(name)
    if found is None:
        return ""
    decimals = _DECIMALS.get(name, 2)
    spread = "" if found["spread"] is None else f" ± {found['spread']:.{decimals}f}"
    return f"{found['mean']:.{decimals}f}{spread}"


def _difference(row: Row | None) -> str:
    if row is None:
        return ""
    d, (low, high) = _DECIMALS.get(row["measure"], 2), row["interval"]
    mark = "*" if row["differs"] else ""
    return f"{row['difference']:+.{d}f}{mark} ({low:+.{d}f} to {high:+.{d}f})"
