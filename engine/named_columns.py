"""Columns of the corpus that later stages need by name, looked for before anything is paid for."""

from __future__ import annotations

import json
from collections.abc import Iterator

from engine.artifact_rows import TableParts, target_side
from engine.cluster import run_task
from engine.config import Config
from engine.errors import SettingsError
from engine.run_directory import Artifact
from engine.spelling import meant

__all__ = ["refuse_unknown_columns"]


def refuse_unknown_columns(config: Config, corpus: Artifact) -> None:
    """Raise SettingsError for a setting that names a column which no row of its side has.

    Reads rows until one has the column, all of them only where none has.
    """
    for setting, group, column in _named(config, corpus):
        problem = run_task(_problem, corpus, group, column)
        if problem is not None:
            raise SettingsError(f"{setting}: {problem}")


def _named(config: Config, corpus: Artifact) -> Iterator[tuple[str, str, str]]:
    """Setting, group of rows, column."""
    quotas, report = config.selection.quotas, config.report
    by_setting = {
        "influence.subtask_column": (target_side(corpus), config.influence.subtask_column),
        "selection.quotas.column": ("candidates", None if quotas is None else quotas.column),
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
            known.update(json.loads(text))
            if column in known:
                return None
    listed = ", ".join(sorted(known)[:20]) or "no further columns"
    return f"the {group} have no column {column!r}; they have: {listed}{meant(column, known)}"
