"""Words for what is wrong with a row, shared by the readers and the schema."""

from __future__ import annotations

from typing import Any

__all__ = ["RowError", "kind_of"]


class RowError(ValueError):
    """A row cannot be used; its text is the reason that the quarantine shows."""


def kind_of(value: Any) -> str:
    """What a JSON-like value is, in the words of a reason: `a number`, `a list`, `null`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    return "text" if isinstance(value, str) else f"a value of type {type(value).__name__}"
