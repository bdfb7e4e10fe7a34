"""Select: greedy over the predicted influence, why each row was kept or dropped, and the subset."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from engine.artifacts.files import load_array, read_table, save_array
from engine.artifacts.parts import Part, finish_part
from engine.artifacts.run_directory import Artifact
from engine.config import Config
from engine.kernels.arrays import FloatArray, IndexArray
from engine.models.resolve import model_identity
from engine.runtime.stage import Stage, StageContext, StageResult
from engine.selection import explanations, partitioned, subset_files
from engine.selection.alternative import FREE, write_free_alternative
from engine.selection.explanations import Coverage
from engine.selection.nearest import NearestRows, find_nearest
from engine.selection.prepare import asked_rows, prepare, refuse_too_few
from engine.selection.problem import Problem
from engine.selection.row_limits import counting_model
from engine.selection.select import Selection
from engine.selection.spread import spread
from engine.terminal.progress import say

__all__ = ["PICKS", "SELECTED", "STAGE", "identity", "rank", "run"]

PICKS, SELECTED = "picks.parquet", "selected.npy"  # between the steps of the stage


def identity(config: Config) -> dict[str, str]:
    """What other sections make of the objective, and whose tokens are counted."""
    found = {"objective": config.objective, "cover": config.cover}
    if config.selection.max_tokens is not None:
        found["tokenizer"] = model_identity(counting_model(config))
    return found


def run(context: StageContext) -> StageResult:
    """Rank in a worker, or in partitions, and write the subset and the explanations.

    The same bytes for any number of workers, and after a kill.
    """
    config, root = context.config, context.directory
    settings = config.selection
    refuse_too_few(context)
    prepared = prepare(context)
    problem, parts, counts = prepared.problem, prepared.parts, prepared.counts
    max_bytes = int(settings.max_kernel_gib * 2**30)
    solved = rank(context, problem)
    predicted = context.inputs["predict"]
    if predicted.counts["targets"] > 1:
        covers_targets = problem.kernel is not None and config.cover == "target"
        counts |= context.executor.call(_spread, predicted, covers_targets)
    if _has_free_alternative(context):
        free = context.executor.call(
            write_free_alternative,
            prepared.whole,
            context.inputs["embed"],
            root / SELECTED,
            max_bytes,
            root / FREE,
        )
        counts |= free
        if free["free_alternative"] is not None:
            parts["free_alternative"] = [
                finish_part(root, root / FREE, free["free_alternative"]["selected"])
            ]
    nearest = NearestRows(
        context.inputs["embed"], "candidates", root / SELECTED, count=1, others=True
    )
    near: list[Part] = []
    recall = 1.0
    if solved["picks"]:
        folder = root / "near-selected"
        near, recall = find_nearest(
            context.executor, nearest, folder, "nearest selected row", settings.execution
        )
    told = context.executor.call(
        _write, problem, dict(context.inputs), config.cover == "self", [p.path for p in near], root
    )
    if solved.get("second_round") == "merged by gain":  # gains of partitions that did not meet
        solved["objective_value"] = told["covered_value"]
    del solved["picks"]
    names = {"ranking": "ranking.parquet", "subset": "subset.parquet", "jsonl": "subset.jsonl"}
    files_of = {group: (name, told["selected"]) for group, name in names.items()}
    files_of["explanations"] = ("explanations.parquet", told["candidates"])
    for group, (name, rows) in files_of.items():
        parts[group] = [finish_part(root, root / name, rows)]
    parts["near_selected"] = near
    return StageResult(
        parts=parts,
        counts={
            **told,
            "objective": config.objective,
            "cover": None if problem.kernel is None else config.cover,
            **solved,
            **counts,
            "nearest_recall": recall,
        },
        columns={
            "ranking.parquet": subset_files.RANKING_COLUMNS,
            "subset.*": "every column of the input rows, and rank, gain, mean_influence",
            "explanations.parquet": explanations.COLUMNS,
            "similar/*.arrow, near-*/*.arrow": "per candidate its nearest rows by the cosine of "
            "the embeddings: ids int64[K], similarity float32[K], best first",
            "owned.npy, relevance.npy": "float32 (R,): what owned rows do for each row to cover, "
            "and its relevance to the targets, scaled",
            "cosine_round_robin.npy": "int64 (B,), rows that the cosine of the texts and round "
            "robin pick, for nothing",
            "tokens/*.npy": "int64 (rows,): tokens of each candidate, prompt and answer",
        },
    )


def rank(context: StageContext, problem: Problem) -> dict[str, Any]:
    """Write the picks, and their rows in corpus order; returns what the manifest says of them.

    `picks` is how many.
    """
    settings, root = context.config.selection, context.directory
    number = partitioned.num_partitions(problem, settings)
    files = partitioned.first_round(context, problem, number) if number > 1 else None
    max_bytes = int(settings.max_kernel_gib * 2**30)
    solved = context.executor.call(_solve, problem, files, max_bytes, root)
    if files is not None:
        most = max_bytes if solved["second_round"] == "greedy" else 0
        ratio = context.executor.call(partitioned.measured_ratio, problem, root, number, most)
        solved |= {"partitions": number, "partition_ratio": ratio}
        if ratio is not None:
            say(
                f"  select: {number} partitions reach {ratio:.4f} of selecting at once, on a sample"
            )
    return solved


def _has_free_alternative(context: StageContext) -> bool:
    """Where targets are not the candidates themselves, and rows are not additions to a run."""
    return context.config.target is not None and "run-score" not in context.inputs


def _spread(predicted: Artifact, covers_targets: bool) -> dict[str, Any]:
    """Whether the predicted influence tells targets apart, which is said where it matters."""
    kind = predicted.counts["kernel"]
    paths = [predicted.directory / part.path for part in predicted.parts(kind)]
    found = spread(kind, paths, predicted.counts["targets"])
    if covers_targets:
        say(f"  select: {found.sentence()}")
    return {"spread": {**asdict(found), "tells_targets_apart": found.tells_targets_apart}}


def _solve(
    problem: Problem, files: list[Path] | None, max_bytes: int, root: Path
) -> dict[str, Any]:
    """Write the picks and their gains; returns what the manifest says of them."""
    told: dict[str, Any] = {}
    if files is None:
        selection = problem.solve()
    else:
        picks = partitioned.read_picks(files)
        selection, greedy_again = partitioned.second_round(problem, picks, max_bytes)
        told["second_round"] = "greedy" if greedy_again else "merged by gain"
    table = pa.table({"row": selection.ranking, "gain": selection.gains, "round": selection.rounds})
    subset_files.write_parquet(table, root / PICKS)
    save_array(root / SELECTED, np.sort(selection.ranking))
    tail_from, count = selection.zero_gain_from, len(selection.ranking)
    told["picks"] = count
    told["objective_value"] = float(selection.objective_value)
    told["zero_gain_picks"] = 0 if tail_from is None else count - tail_from
    told["rounds"] = int(selection.rounds.max(initial=0))
    return told


def _write(
    problem: Problem,
    inputs: dict[str, Artifact],
    covers_candidates: bool,
    near: list[str],
    root: Path,
) -> dict[str, Any]:
    means: FloatArray = load_array(problem.means)
    picks = read_table(root / PICKS)
    ranking, gains, rounds = (picks[name].to_numpy() for name in ("row", "gain", "round"))
    selection = Selection(ranking, gains, None, 0.0, rounds)
    coverage = Coverage.of(problem, selection)
    corpus, asked = inputs["ingest"], asked_rows(inputs)
    looked_at: IndexArray = np.empty(0, np.int64)
    if "second_look" in inputs:
        looked_at = load_array(inputs["second_look"].path("shortlist"))
    explanations.write_explanations(
        root / "explanations.parquet",
        corpus,
        means,
        selection,
        coverage,
        covers_candidates,
        [root / path for path in near],
        asked,
        looked_at,
        inputs.get("quality"),
    )
    rows = subset_files.write_ranking(selection, means, corpus, root)
    subset_files.write_subset(rows, read_table(root / "ranking.parquet"), root, "subset")
    told: dict[str, Any] = {
        "selected": len(ranking),
        "candidates": len(means),
        "asked": len(asked),
        "asked_selected": int(np.isin(ranking, asked).sum()),
        "mean_influence_selected": float(means[ranking].mean()) if len(ranking) else None,
        "mean_influence_all": float(means.mean()),
        "covered_value": None if coverage is None else coverage.objective_value,
        "at_least": None if coverage is None else coverage.at_least,
    }
    if "second_look" in inputs:
        first = read_table(inputs["shortlist"].path("picks"))["row"].to_numpy()[: len(ranking)]
        told["second_look"] = {
            "shortlist": len(looked_at),
            "kept": len(np.intersect1d(first, ranking)),
            "mean_before": float(means[first].mean()) if len(first) else None,
            "mean_after": told["mean_influence_selected"],
        }
    if "quality" in inputs:
        told["quality_teacher"] = inputs["quality"].counts["teacher"]
    if problem.costs is not None:
        tokens = load_array(problem.costs)
        told["tokens_selected"] = int(tokens[ranking].sum())
    return told


STAGE = Stage(
    name="select",
    directory="7-selection",
    run=run,
    settings=("seed", "selection", "influence.neighbours"),
    reads=("ingest", "embed", "score", "predict"),
    version=3,
    identity=identity,
)
