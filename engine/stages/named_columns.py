"""Columns of the corpus that later stages need by name, looked for before anything is paid for."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from engine.artifacts.rows import TableParts, read_extra, target_side
from engine.artifacts.run_directory import Artifact
from engine.config import Config
from engine.errors import SettingsError
from engine.runtime.executor import Executor
from engine.spelling import meant

__all__ = ["refuse_unknown_columns", "subtasks_of"]


def refuse_unknown_columns(config: Config, corpus: Artifact, executor: Executor) -> None:
    """Raise SettingsError for a setting that names a column which no row of its side has.

    Reads rows until one has the column, all of them only where none has.
    """
    for setting, group, column in _named(config, corpus):
        problem = executor.call(_problem, corpus, group, column)
        if problem is not None:
            raise SettingsError(f"{setting}: {problem}")


def _named(config: Config, corpus: Artifact) -> Iterator[tuple[str, str, str]]:
    """Setting, group of rows, column."""
    quotas, report = config.selection.quotas, config.report
    evaluation = config.evaluation
    by_setting = {
        "influence.subtask_column": (target_side(corpus), config.influence.subtask_column),
        "selection.quotas.column": ("candidates", None if quotas is None else quotas.column),
        "evaluation.source_column": (
            "candidates",
            None if evaluation is None else evaluation.source_column,
        ),
        "report.known_bad_column": ("candidates", report.known_bad_column),
        "report.composition_column": ("candidates", report.composition_column),
    }
    for setting, (group, column) in by_setting.items():
        if column is not None:
            yield setting, group, column


def _problem(corpus: Artifact, group: str, column: str) -> str | None:
    known: set[str] = set()
    for table in TableParts(corpus, group).iter_parts(["extra"]):
        for text in table["extra"].to_pylist():
            known.update(read_extra(text))
            if column in known:
                return None
    listed = ", ".join(sorted(known)[:20]) or "no further columns"
    return f"the {group} have no column {column!r}; they have: {listed}{meant(column, known)}"


def subtasks_of(corpus: Artifact, column: str | None, num_targets: int) -> NDArray[np.int64]:
    """The sub-task of each target, (N,), by the order of their names; without a column all 0."""
    if column is None or num_targets == 1:
        return np.zeros(num_targets, dtype=np.int64)
    rows = TableParts(corpus, target_side(corpus))
    tables = rows.iter_parts(["extra"])
    extras = [read_extra(text) for table in tables for text in table["extra"].to_pylist()]
    if not any(column in extra for extra in extras):
        known = sorted({name for extra in extras for name in extra})
        raise SettingsError(
            f"influence.subtask_column: the targets have no column {column!r}; "
            f"they have: {', '.join(known) or 'no further columns'}{meant(column, known)}"
        )
    names = np.array([json.dumps(extra.get(column)) for extra in extras])
    return np.unique(names, return_inverse=True)[1].astype(np.int64)
