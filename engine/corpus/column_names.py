"""Names of columns: common ones that are taken for ours, and sentences about missing ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from engine.corpus.problems import RowError
from engine.spelling import closest

__all__ = ["ANSWERS", "QUESTIONS", "explain", "only", "quoted"]

QUESTIONS = ("prompt", "question", "query")
ANSWERS = ("completion", "response", "answer")
_LIKELY_NAMES = {
    "instruction": (*QUESTIONS, "instructions", "input"),
    "output": (*ANSWERS, "outputs", "target", "chosen", "label"),
    "messages": ("conversation", "chat", "dialogue", "dialog", "turns"),
}
_MAX_NAMES = 20


def only(names: Collection[str], values: Mapping[str, Any], ours: str) -> str | None:
    """Which of some names a row has a value under; None for none, RowError for more than one."""
    there = [name for name in names if values.get(name) is not None]
    if len(there) > 1:
        raise RowError(
            f"missing column {ours}; {' and '.join(there)} may both be it: say which one with the "
            f"option columns: {{{ours}: {there[0]}}}"
        )
    return there[0] if there else None


def explain(missing: list[str], found: Collection[str], columns: Mapping[str, str]) -> str:
    """Which columns are missing, which there are, and how to map them."""
    ours = {theirs: name for name, theirs in columns.items()}
    lacking = [ours.get(name, name) for name in missing]
    names = list(found)
    listed = ", ".join(map(quoted, names[:_MAX_NAMES])) + (
        ", ..." if len(names) > _MAX_NAMES else ""
    )
    problem = (
        f"missing column{'s' * (len(missing) > 1)} {', '.join(missing)}; found {listed or 'none'}"
    )
    if "text" in names and not columns:
        return (
            f"{problem}; text alone does not say where the answer starts: split it into "
            "instruction and output"
        )
    mark = next((mark for mark in (";", "\t", "|") if len(names) == 1 and mark in names[0]), None)
    if mark is not None:
        name = {"\t": "a tab"}.get(mark, mark)
        return f"{problem}: looks separated by {name}: separate the columns by commas"
    free = [column for column in names if column not in columns.values()]
    guess = ", ".join(
        f"{name}: {_likely(name, column, free)}"
        for name, column in zip(lacking, missing, strict=True)
    )
    return f"{problem}; name the right ones with the option columns: {{{guess}}}"


def quoted(name: str) -> str:
    """A name as it must be written in YAML: quoted, if blanks round it would be lost else."""
    return name if name.strip() == name and name else f"'{name}'"


def _likely(name: str, column: str, found: list[str]) -> str:
    """Which of the columns may be the missing one, by spelling or by what it is often called."""
    close = closest(column, found, likeness=0.75)
    likely = (close, *_LIKELY_NAMES.get(name, ()))
    return quoted(next((column for column in likely if column in found), "NAME"))
