"""Columns out of the JSON that rows are carried in: with the types of the file, or inferred.

A column of an Arrow or parquet file gets its type back: bytes from base64, times from ISO 8601,
decimals from their text, durations from seconds, maps from lists of pairs. One of a JSON file gets
the narrowest type that holds every value as it is. What no type holds is `arrow.json`, JSON text
that readers know as such, and only there: a list of turns stays a list. Missing keys of an object
are null in the objects of a list and in a `function`, as Arrow has it; any other object whose keys
differ from row to row (arguments of a call, a JSON schema) is JSON, so that no row gains a key.
"""

from __future__ import annotations

import base64
import decimal
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa

__all__ = ["column_of", "common_types", "source_types", "values_of", "with_source_types"]

_SOURCE_TYPES = b"source_types"
_RECORDS = ("function",)  # objects whose missing keys are null, beside those of a list
_MOST_KEYS = 64  # of such an object; more are names of things, not of fields
_INT64, _UINT64, _EXACT = 2**63, 2**64, 2**53
_PROBLEMS = (pa.ArrowException, ValueError, TypeError, OverflowError, decimal.InvalidOperation)


def column_of(values: Sequence[Any], type: pa.DataType | None = None) -> pa.Array:
    """Values out of JSON as an Arrow array; of `type`, unless one of them does not fit it."""
    if type is not None:
        try:
            return _built(values, type)
        except _PROBLEMS:
            pass
    return _built(values, _inferred(values, may_lack_keys=False))


def common_types(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """The columns of some files with a type that holds the values of all that have them.

    A column without such a type is left out.
    """
    fields: dict[str, pa.Field | None] = {}
    for schema in schemas:
        for field in schema:
            plain = pa.field(field.name, _storage(field.type))
            known = fields.get(field.name, plain)
            fields[field.name] = None if known is None else _common(known, plain)
    return pa.schema([field for field in fields.values() if field is not None])


def values_of(column: pa.ChunkedArray | pa.Array) -> list[Any]:
    """A column as Python values: `arrow.json` as what it holds, objects of a list without nulls.

    Arrow gives each turn, tool or part the keys of all of them; those of others are null, but for
    the content of a turn, whose null says something.
    """
    values: list[Any] = column.to_pylist()
    if _is_json(column.type) or _holds_records(column.type):
        return [_plain(value, column.type) for value in values]
    return values


def with_source_types(schema: pa.Schema, types: pa.Schema | None) -> pa.Schema:
    """The schema of a table of rows, with the types that their further columns had."""
    if types is None:
        return schema.with_metadata(None)
    text = base64.b64encode(types.remove_metadata().serialize().to_pybytes())
    return schema.with_metadata({_SOURCE_TYPES: text})


def source_types(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """The types that tables with these schemas keep, in common."""
    kept = (schema.metadata.get(_SOURCE_TYPES) for schema in schemas if schema.metadata)
    return common_types(
        pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text))) for text in kept if text
    )


def _holds_records(type: pa.DataType) -> bool:
    """Whether values have objects in lists, or JSON, somewhere inside."""
    if pa.types.is_list(type) or pa.types.is_large_list(type):
        inner = type.value_type
        return pa.types.is_struct(inner) or _is_json(inner) or _holds_records(inner)
    if pa.types.is_struct(type):
        fields = (type.field(i).type for i in range(type.num_fields))
        return any(_is_json(inner) or _holds_records(inner) for inner in fields)
    return False


def _plain(value: Any, type: pa.DataType, in_list: bool = False) -> Any:
    if value is None:
        return None
    if _is_json(type):
        return json.loads(value)
    if pa.types.is_list(type) or pa.types.is_large_list(type):
        return [_plain(inner, type.value_type, in_list=True) for inner in value]
    if pa.types.is_struct(type):
        fields = (type.field(name) for name in value)
        found = {f.name: _plain(value[f.name], f.type, in_list) for f in fields}
        if in_list:
            kept = "content" if found.get("role") is not None else None
            found = {k: v for k, v in found.items() if v is not None or k == kept}
        return found
    return value


def _common(one: pa.Field, other: pa.Field) -> pa.Field | None:
    if one.type == other.type:
        return one
    try:
        fields = (pa.schema([_undictionaried(field)]) for field in (one, other))
        return pa.unify_schemas(list(fields), promote_options="permissive").field(0)
    except pa.ArrowException:
        return None


def _undictionaried(field: pa.Field) -> pa.Field:
    is_dictionary = pa.types.is_dictionary(field.type)
    return field.with_type(field.type.value_type) if is_dictionary else field


def _storage(type: pa.DataType) -> pa.DataType:
    """The type without the wrapping of a library, such as the images of `datasets`."""
    is_wrapped = isinstance(type, pa.BaseExtensionType) and not _is_json(type)
    return type.storage_type if is_wrapped else type


def _is_json(type: pa.DataType) -> bool:
    return isinstance(type, pa.JsonType)


# --- the type of JSON values --------------------------------------------------------------------


def _inferred(values: Sequence[Any], may_lack_keys: bool) -> pa.DataType:
    there = [value for value in values if value is not None]
    kinds = {type(value) for value in there}
    if not kinds:
        return pa.null()
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {str}:
        return pa.string()
    if kinds == {int}:
        low, high = min(there), max(there)
        if low >= -_INT64 and high < _INT64:
            return pa.int64()
        return pa.uint64() if low >= 0 and high < _UINT64 else pa.json_()
    if kinds <= {int, float}:
        is_exact = all(isinstance(v, float) or abs(v) <= _EXACT for v in there)
        return pa.float64() if is_exact else pa.json_()
    if kinds == {list}:
        return pa.list_(_inferred([v for value in there for v in value], may_lack_keys=True))
    return _inferred_object(there, may_lack_keys) if kinds == {dict} else pa.json_()


def _inferred_object(objects: Sequence[dict[str, Any]], may_lack_keys: bool) -> pa.DataType:
    names = list(dict.fromkeys(name for value in objects for name in value))
    lacks = any(len(value) < len(names) for value in objects)
    if not names or (lacks and not (may_lack_keys and len(names) <= _MOST_KEYS)):
        return pa.json_()
    types = [
        _inferred([value.get(name) for value in objects], may_lack_keys=name in _RECORDS)
        for name in names
    ]
    return pa.struct([pa.field(n, t) for n, t in zip(names, types, strict=True)])


# --- arrays of a type ---------------------------------------------------------------------------


def _built(values: Sequence[Any], type: pa.DataType) -> pa.Array:
    if _is_json(type):
        texts = [None if v is None else json.dumps(v, ensure_ascii=False) for v in values]
        return pa.ExtensionArray.from_storage(type, pa.array(texts, type.storage_type))
    if pa.types.is_dictionary(type):
        return _built(values, type.value_type).dictionary_encode().cast(type)
    if pa.types.is_struct(type):
        return _struct(values, type)
    if pa.types.is_map(type):
        return _map(values, type)
    if pa.types.is_list(type) or pa.types.is_large_list(type):
        return _list(values, type)
    if pa.types.is_temporal(type) and not pa.types.is_duration(type):
        return pa.array(values, pa.string()).cast(type)
    convert = _converter(type)
    if convert is not None:
        values = [None if value is None else convert(value) for value in values]
    return pa.array(values, type)


def _converter(type: pa.DataType) -> Callable[[Any], Any] | None:
    if pa.types.is_decimal(type):
        return decimal.Decimal
    if pa.types.is_duration(type):
        per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[type.unit]
        return lambda seconds: round(seconds * per_second)
    is_bytes = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    if any(check(type) for check in is_bytes) or type == pa.binary_view():
        return lambda text: base64.b64decode(text, validate=True)
    return None


def _struct(values: Sequence[Any], type: pa.StructType) -> pa.Array:
    fields = [type.field(i) for i in range(type.num_fields)]
    known = {field.name for field in fields}
    if any(value is not None and not value.keys() <= known for value in values):
        raise ValueError("an object has keys that its type lacks")
    columns = [
        _built([None if v is None else v.get(field.name) for v in values], field.type)
        for field in fields
    ]
    mask = pa.array([value is None for value in values], pa.bool_())
    return pa.StructArray.from_arrays(columns, fields=fields, mask=mask)


def _list(values: Sequence[Any], type: pa.ListType) -> pa.Array:
    inner = _built([v for value in values if value is not None for v in value], type.value_type)
    build = pa.LargeListArray if pa.types.is_large_list(type) else pa.ListArray
    return build.from_arrays(_offsets(values, type), inner, type=type, mask=_is_null(values))


def _map(values: Sequence[Any], type: pa.MapType) -> pa.Array:
    pairs = [pair for value in values if value is not None for pair in value]
    keys = _built([key for key, _ in pairs], type.key_type)
    items = _built([item for _, item in pairs], type.item_type)
    return pa.MapArray.from_arrays(
        _offsets(values, type), keys, items, type=type, mask=_is_null(values)
    )


def _offsets(values: Sequence[Any], type: pa.DataType) -> pa.Array:
    offsets = [0]
    for value in values:
        offsets.append(offsets[-1] + (0 if value is None else len(value)))
    return pa.array(offsets, pa.int64() if pa.types.is_large_list(type) else pa.int32())


def _is_null(values: Sequence[Any]) -> pa.Array:
    return pa.array([value is None for value in values], pa.bool_())
