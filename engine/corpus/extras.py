"""The columns that the engine only carries along, as JSON text."""

from __future__ import annotations

import base64
import datetime
import json
from typing import Any

__all__ = ["extra_as_json"]


def extra_as_json(extra: dict[str, Any]) -> str:
    """The extra columns of a row as one JSON object, in their own order, for ingest.

    What JSON has no form for: NaN and infinities are the words NaN and Infinity, as Python reads
    them; dates, times and datetimes their ISO 8601 text; durations their seconds; bytes base64;
    numpy scalars and arrays the number or list they hold; anything else (Decimal, UUID) its str().
    Keys become text. Never raises.
    """
    try:
        return _ENCODER.encode(extra)
    except (ValueError, TypeError):  # a key that is no text: rare, so looked for late
        return _ENCODER.encode(_plain(extra))


def _without_json_form(value: Any) -> Any:
    if isinstance(value, (datetime.date, datetime.time)):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return value.tolist()
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    return _plain(_without_json_form(value))


_ENCODER = json.JSONEncoder(ensure_ascii=False, default=_without_json_form)
