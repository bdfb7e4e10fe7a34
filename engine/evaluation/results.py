"""Results: all graded answers in one table, the arms compared, and the table that people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.artifacts.files import atomic_path, read_json, read_table, write_json
from engine.artifacts.parts import finish_part
from engine.artifacts.run_directory import Artifact
from engine.evaluation import compare
from engine.evaluation.cells import Cell
from engine.runtime.stage import StageContext, StageResult

__all__ = ["run"]

BASELINE = "Random"


def run(
    context: StageContext,
    cells: Sequence[Cell],
    trusted: Mapping[str, Sequence[bool]],
    order: Sequence[str],
) -> StageResult:
    """Write `answers.parquet`, `results.json` and `results.md`.

    Args:
        context: with the graded answers of all cells.
        cells: of the evaluation.
        trusted: of each arm with a network, for each seed, whether its audit trusts it.
        order: the arms as the table has them.
    """
    root = context.directory
    count = context.executor.call(
        _join, dict(context.inputs), list(cells), root / "answers.parquet"
    )
    counts = context.executor.call(_compare, context, list(cells), dict(trusted), list(order), root)
    files = {"answers": ("answers.parquet", count)}
    files |= {"results": ("results.json", 1), "markdown": ("results.md", 1)}
    return StageResult(
        parts={
            group: [finish_part(root, root / name, rows)] for group, (name, rows) in files.items()
        },
        counts=counts,
        columns={"answers.parquet": "one line per arm, method, seed and test row, with all grades"},
    )


def _join(inputs: Mapping[str, Artifact], cells: Sequence[Cell], path: Path) -> int:
    graded = inputs["grade"]
    files = read_json(graded.path("cells"))
    tables = []
    for cell in cells:
        table = read_table(graded.directory / files[cell.name])
        for name, value in (("seed", cell.seed), ("method", cell.method), ("arm", cell.arm)):
            table = table.add_column(0, name, pa.array([value] * len(table)))
        tables.append(table)
    joined = pa.concat_tables(tables)
    with atomic_path(path) as temporary:
        pq.write_table(joined, temporary)
    return len(joined)


def _compare(
    context: StageContext,
    cells: Sequence[Cell],
    trusted: Mapping[str, Sequence[bool]],
    order: Sequence[str],
    root: Path,
) -> dict[str, Any]:
    table = read_table(root / "answers.parquet")
    arms = dict.fromkeys(cell.arm for cell in cells)
    pairs = {arm: arm.removeprefix("NN+") for arm in arms if arm.removeprefix("NN+") in arms}
    pairs = {arm: teacher for arm, teacher in pairs.items() if arm != teacher}
    subsets = {cell.arm: cell.subset for cell in cells if cell.subset is not None}
    rows = {arm: context.inputs[subset].counts["selected"] for arm, subset in subsets.items()}
    summary = compare.summarise(table)
    differences = compare.against(table, BASELINE) if BASELINE in arms else []
    relative = compare.relative_differences(table, pairs, BASELINE)
    test, graded = context.inputs["test"].counts, context.inputs["grade"]
    settings = context.config.evaluation
    assert settings is not None
    found = {
        "name": "evaluation",
        "settings": settings.model_dump(mode="json", exclude={"execution"}),
        "models": {**context.inputs["answer"].manifest["models"], **graded.manifest["models"]},
        "test_rows": test["candidates"],
        "rows_of": rows,
        "trusted": {arm: list(verdicts) for arm, verdicts in trusted.items()},
        "unparsed_grades": graded.counts["unparsed_grades"],
        "judged": graded.counts["judged"],
        "rows": summary,
        "against_random": differences,
        "relative_difference": relative,
    }
    write_json(root / "results.json", found)
    text = compare.markdown(summary, differences, relative, list(order))
    lines = [text, "", _remarks(found)]
    with atomic_path(root / "results.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"arms": len(arms), "cells": len(cells), "test_rows": test["candidates"]}


def _remarks(found: Mapping[str, Any]) -> str:
    """What a reader must know to read the table."""
    lines = [f"{found['test_rows']} test rows. Rows of the subsets: "]
    lines[0] += ", ".join(f"{arm} {rows}" for arm, rows in found["rows_of"].items()) + "."
    for arm, verdicts in found["trusted"].items():
        if not all(verdicts):
            lines.append(
                f"The audit trusted {sum(verdicts)} of the {len(verdicts)} networks of {arm}."
            )
    if found["judged"]:
        lines.append(
            f"The judge's grade could not be read in {found['unparsed_grades']} of "
            f"{found['judged']} answers."
        )
    return "\n".join(lines)
