"""From the settings and artifacts of a run to the problem that `select` is asked to solve.

What covers what depends on the objective. Rows to cover are the targets, by the predicted
influence; or the candidates themselves: by influence where the corpus is its own target, else by
the cosine of the embeddings, whose `influence.neighbours` nearest are found here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.artifacts.files import load_array, read_table, save_array
from engine.artifacts.parts import Part, finish_part
from engine.artifacts.rows import VectorParts
from engine.artifacts.run_directory import Artifact
from engine.components import component
from engine.config import Config, SelectionConfig
from engine.config.facts import OBJECTIVES
from engine.config.selection import OBJECTIVE_SETTINGS
from engine.errors import SettingsError
from engine.kernels.arrays import FloatArray, IndexArray
from engine.runtime.stage import StageContext
from engine.selection.kernel_files import KernelFiles, scaled
from engine.selection.nearest import NearestRows, find_nearest, read_nearest
from engine.selection.problem import Problem
from engine.selection.row_limits import count_tokens, tokens_of, write_groups

__all__ = [
    "DEFAULT_BUDGET",
    "Prepared",
    "asked_rows",
    "num_to_select",
    "prepare",
    "refuse_too_few",
]

DEFAULT_BUDGET = 0.3
_NUM_QUANTILES = 101  # levels of the labels that `selection.scaling: quantile` keeps


@dataclass
class Prepared:
    """A problem, the parts that were written for it, and what the manifest says of them.

    `whole` is the problem of all candidates, where a second look leaves a shortlist of them.
    """

    problem: Problem
    whole: Problem = field(init=False)
    parts: dict[str, list[Part]] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)


def num_to_select(settings: SelectionConfig, num_candidates: int) -> int:
    """Rows that a budget means: a share is rounded and is at least one row."""
    budget = settings.budget
    if budget is None:
        budget = num_candidates if settings.max_tokens else DEFAULT_BUDGET
    count = budget if isinstance(budget, int) else max(1, round(budget * num_candidates))
    if count > num_candidates:
        raise SettingsError(
            f"selection.budget asks for {count} rows, the corpus has {num_candidates} usable ones"
        )
    return count


def prepare(context: StageContext) -> Prepared:
    """The problem of the settings; finds neighbours and counts tokens where it needs them."""
    config, settings = context.config, context.config.selection
    influence, answered = context.inputs["predict"], context.inputs.get("second_look")
    named = {name: getattr(settings, name) for name in OBJECTIVE_SETTINGS}
    own = component(OBJECTIVES, config.objective).Settings
    if own is not None:
        named |= settings.own(own, config.objective).model_dump()
    prepared = Prepared(
        Problem(
            objective=config.objective,
            budget=num_to_select(settings, influence.counts["candidates"]),
            means=(answered or influence).path("means"),
            kernel=None,
            settings={name: value for name, value in named.items() if value is not None},
            seed=config.seed,
            zero_gain_tail=settings.zero_gain_tail,
            optimizer=settings.optimizer,
            epsilon=settings.epsilon,
        )
    )
    if component(OBJECTIVES, config.objective).reads_kernel:
        _add_kernel(prepared, context)
    if "quality" in context.inputs and context.inputs["quality"].counts["weighs"]:
        _add_penalty(prepared, context)
    _add_limits(prepared, context)
    return prepared


# --- the kernel ----------------------------------------------------------------------------------


def _add_kernel(prepared: Prepared, context: StageContext) -> None:
    config, influence = context.config, context.inputs["predict"]
    settings = component(OBJECTIVES, config.objective).settings()
    scaling = context.executor.call(_scaling, config, context.inputs["score"])
    by_influence = _influence_kernel(influence, scaling, fills_diagonal=config.target is None)
    if "second_look" in context.inputs:
        by_influence = _answers_kernel(by_influence, context.inputs["second_look"])
    by_cosine = config.cover == "self" and config.target is not None
    kernel = by_influence
    if by_cosine:
        nearest = NearestRows(
            context.inputs["embed"], "candidates", None, config.influence.neighbours
        )
        kernel = _cosine_kernel(prepared, context, nearest)
    problem = replace(prepared.problem, kernel=kernel)
    if config.owned is not None and "owned" in settings:
        path = context.directory / "owned.npy"
        if by_cosine:
            _write_owned_similarity(prepared, context, path)
        else:
            files = _paths(influence.directory, influence.parts("owned"))
            context.executor.call(_write_scaled, files, scaling, path)
        prepared.parts["owned"] = [finish_part(context.directory, path, kernel.num_rows)]
        problem = replace(problem, owned=path)
    if config.selection.form == 1:
        path = context.directory / "relevance.npy"
        context.executor.call(_write_relevance, by_influence, config.selection.relevant_share, path)
        prepared.parts["relevance"] = [finish_part(context.directory, path, kernel.num_rows)]
        problem = replace(problem, relevance=path)
    prepared.problem = problem


def _scaling(config: Config, score: Artifact) -> tuple[float, ...]:
    """What `scaled` is told: fitted on the training labels, so it is frozen with them."""
    if config.selection.scaling == "none":
        return 0.0, 1.0
    labels = read_table(score.path("labels"), columns=["score", "quadrant"])
    scores = labels["score"].to_numpy()[labels["quadrant"].to_numpy() == 0]
    scores = scores[np.isfinite(scores)]
    if config.selection.scaling == "quantile" and len(scores):
        levels = np.quantile(scores.astype(np.float64), np.linspace(0, 1, _NUM_QUANTILES))
        return tuple(levels.tolist())
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)
    if config.selection.scaling == "clip0":
        low = 0.0
    return low, high if high > low else low + 1.0


def _influence_kernel(
    influence: Artifact, scaling: tuple[float, ...], fills_diagonal: bool
) -> KernelFiles:
    dense, counts = influence.counts["kernel"] == "dense", influence.counts
    return KernelFiles(
        kind="dense" if dense else "lists",
        paths=_paths(influence.directory, influence.parts(counts["kernel"])),
        num_rows=counts["targets"],
        num_candidates=counts["candidates"],
        per_row=counts["candidates"] if dense else counts["neighbours"],
        scaling=scaling,
        fills_diagonal=fills_diagonal,
    )


def _answers_kernel(predicted: KernelFiles, answered: Artifact) -> KernelFiles:
    """The teacher's answers about a shortlist, in the place of all predictions."""
    paths = _paths(answered.directory, answered.parts("answers"))
    return replace(predicted, kind="lists", paths=paths, per_row=answered.counts["shortlist"])


def _cosine_kernel(prepared: Prepared, context: StageContext, nearest: NearestRows) -> KernelFiles:
    parts, recall = find_nearest(
        context.executor,
        nearest,
        context.directory / "similar",
        "similar rows",
        context.config.selection.execution,
    )
    prepared.parts["similar"] = parts
    prepared.counts["similar_recall"] = recall
    count = len(VectorParts(nearest.embeddings, "candidates"))
    return KernelFiles(
        kind="lists",
        paths=_paths(context.directory, parts),
        num_rows=count,
        num_candidates=count,
        per_row=min(nearest.count, count),
        scaling=(context.config.selection.floor, 1.0),
        fills_diagonal=False,  # each row is in its own list
    )


def _paths(directory: Path, parts: list[Part]) -> tuple[Path, ...]:
    return tuple(directory / part.path for part in parts)


def _write_scaled(files: tuple[Path, ...], scaling: tuple[float, ...], path: Path) -> None:
    save_array(path, scaled(np.concatenate([load_array(file) for file in files]), scaling))


def _write_owned_similarity(prepared: Prepared, context: StageContext, path: Path) -> None:
    nearest = NearestRows(context.inputs["embed"], "owned", None, 1)
    parts, _ = find_nearest(
        context.executor,
        nearest,
        context.directory / "near-owned",
        "owned rows",
        context.config.selection.execution,
    )
    prepared.parts["near_owned"] = parts
    files = _paths(context.directory, parts)
    context.executor.call(_join_similarities, files, context.config.selection.floor, path)


def _join_similarities(files: tuple[Path, ...], floor: float, path: Path) -> None:
    best: FloatArray = np.concatenate([read_nearest(file)[1][:, 0] for file in files])
    save_array(path, scaled(best, (floor, 1.0)))


def _write_relevance(by_influence: KernelFiles, share: float, path: Path) -> None:
    relevance = by_influence.maxima()
    if share < 1:
        low, high = np.quantile(relevance, 1 - share), relevance.max()
        relevance = scaled(relevance, (float(low), float(max(high, low + 1e-9))))
    save_array(path, relevance)


# --- limits --------------------------------------------------------------------------------------


def _add_limits(prepared: Prepared, context: StageContext) -> None:
    settings, inputs = context.config.selection, context.inputs
    barred = crashing = _crashing(inputs["embed"])
    if crashing:
        prepared.counts["crashing_rows"] = crashing
    if settings.pool == "exclude_labelled":
        asked = context.executor.call(asked_rows, dict(inputs), True).tolist()
        barred = sorted({*crashing, *asked})
    if len(barred) == inputs["predict"].counts["candidates"]:
        raise SettingsError(
            "selection.pool exclude_labelled leaves no row to select from: the teacher was asked "
            "about all of them; use pool: all"
        )
    if settings.max_tokens is not None:
        parts = count_tokens(context.executor, inputs["ingest"], context.config, context.directory)
        prepared.parts["tokens"] = parts
        path = context.directory / "tokens.npy"
        context.executor.call(_join_tokens, context.directory, parts, path)
        prepared.problem = replace(prepared.problem, costs=path, max_cost=settings.max_tokens)
    problem = prepared.problem
    prepared.problem = prepared.whole = _barring(problem, context, barred, "groups.npy")
    others = set(barred)
    if "quality" in inputs:
        others |= set(context.executor.call(_dropped, inputs["quality"]).tolist())
    if "second_look" in inputs:
        others |= set(context.executor.call(_not_listed, inputs["second_look"]).tolist())
    if len(others) > len(barred):
        prepared.problem = _barring(problem, context, sorted(others), "groups-listed.npy")


def refuse_too_few(context: StageContext) -> None:
    """Raise SettingsError where the quality gate leaves fewer rows than the budget has."""
    settings, gate = context.config.selection, context.inputs.get("quality")
    if gate is None or (settings.budget is None and settings.max_tokens is not None):
        return
    dropped, rows = gate.counts["dropped"], gate.counts["rows"]
    wanted = num_to_select(settings, rows)
    if rows - dropped < wanted:
        raise SettingsError(
            f"quality drops {dropped:,} of {rows:,} rows and leaves {rows - dropped:,}, fewer than "
            f"the {wanted:,} of selection.budget: let it drop fewer, or lower the budget"
        )


def _dropped(gate: Artifact) -> IndexArray:
    """Rows that the quality gate drops, ascending."""
    return np.flatnonzero(read_table(gate.path("judgement"), columns=["dropped"])["dropped"])


def _add_penalty(prepared: Prepared, context: StageContext) -> None:
    """Influence that the gate lowers: of the kernel's candidates, and of their means."""
    means, penalty = (context.directory / name for name in ("means.npy", "penalty.npy"))
    context.executor.call(
        _write_penalty, context.inputs["quality"], prepared.problem.means, means, penalty
    )
    kernel = prepared.problem.kernel
    if kernel is not None:
        kernel = replace(kernel, penalty=penalty)
    prepared.problem = replace(prepared.problem, means=means, kernel=kernel)
    for name, path in (("penalty", penalty), ("weighed_means", means)):
        rows = context.inputs["quality"].counts["rows"]
        prepared.parts[name] = [finish_part(context.directory, path, rows)]


def _write_penalty(gate: Artifact, means: Path, lowered: Path, penalty: Path) -> None:
    values = load_array(means)
    steps = read_table(gate.path("judgement"), columns=["penalty"])["penalty"].to_numpy()
    scaled_steps = np.asarray(steps * values.std(dtype=np.float64), np.float32)
    save_array(penalty, scaled_steps)
    save_array(lowered, (values - scaled_steps).astype(values.dtype))


def _barring(problem: Problem, context: StageContext, barred: list[int], name: str) -> Problem:
    """The problem in which some rows are not for selection, with the quotas of the settings."""
    settings, path = context.config.selection, context.directory / name
    if barred and settings.quotas is None:
        context.executor.call(_write_barred, barred, problem.means, path)
        return replace(problem, groups=path, quotas={1: 0})
    if settings.quotas is None:
        return problem
    names = context.executor.call(
        write_groups, context.inputs["ingest"], settings.quotas.column, path, barred
    )
    most: int | dict[Any, int] = settings.quotas.most
    if not isinstance(most, int):
        unknown = sorted(most.keys() - set(names))
        if unknown:
            raise SettingsError(
                f"selection.quotas names the group {unknown[0]!r}, which no candidate has in "
                f"column {settings.quotas.column!r}; they have: {', '.join(names[:20])}"
            )
        most = {names.index(name): quota for name, quota in most.items()}
    if barred:
        most = dict.fromkeys(range(len(names)), most) if isinstance(most, int) else most
        most |= {len(names): 0}
    return replace(problem, groups=path, quotas=most)


def _not_listed(answered: Artifact) -> IndexArray:
    """Rows that the second look did not ask about."""
    others = np.ones(answered.counts["candidates"], dtype=bool)
    others[load_array(answered.path("shortlist"))] = False
    return np.flatnonzero(others)


def _crashing(embeddings: Artifact) -> list[int]:
    """Candidates without an embedding: nothing is known of them, so they are not for selection."""
    found, start = [], 0
    for part in embeddings.parts("candidates"):
        found += [start + position for position in part.left_out]
        start += part.rows
    return found


def asked_rows(inputs: Mapping[str, Artifact], in_training: bool = False) -> IndexArray:
    """Candidates that the teacher was asked about, for training or also for the audit, ascending.

    None of new rows for a finished run: its teacher was asked about others.
    """
    if "run-score" in inputs:
        return np.empty(0, np.int64)
    labels = read_table(inputs["score"].path("labels"), columns=["candidate", "quadrant"])
    rows = labels["candidate"].to_numpy()
    if in_training:
        rows = rows[labels["quadrant"].to_numpy() == 0]
    return np.unique(rows).astype(np.int64)


def _write_barred(barred: list[int], means: Path, path: Path) -> None:
    groups = np.zeros(len(load_array(means)), dtype=np.int64)
    groups[barred] = 1
    save_array(path, groups)


def _join_tokens(root: Path, parts: list[Part], path: Path) -> None:
    save_array(path, tokens_of(root, parts))
