"""Arrow files, as feather, IPC files and IPC streams (the shards of `datasets`) have them."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from engine.corpus.text_files import open_file

__all__ = ["PARQUET_MAGIC", "arrow_batches", "outline", "schema_of"]

PARQUET_MAGIC = b"PAR1"
_ARROW_MAGIC = b"ARROW1"


def arrow_batches(path: str, start: int, stop: int | None) -> Iterator[pa.RecordBatch]:
    """Some record batches of an Arrow file, or all of a stream; raises pa.ArrowException."""
    with open_file(path) as raw:
        reader = _reader(raw)
        if isinstance(reader, pa.RecordBatchFileReader):
            numbers = range(reader.num_record_batches)[start:stop]
            yield from (reader.get_batch(i) for i in numbers)
        else:
            yield from reader


def outline(path: str) -> tuple[list[str], int | None, bool]:
    """Columns, record batches (None of a stream) and whether there is a row."""
    with open_file(path) as raw:
        reader = _reader(raw)
        is_file = isinstance(reader, pa.RecordBatchFileReader)
        number = reader.num_record_batches if is_file else None
        has_rows = any(batch.num_rows for batch in arrow_batches(path, 0, None))
        return reader.schema.names, number, has_rows


def schema_of(path: str) -> pa.Schema:
    """The columns of a parquet or Arrow file with their types; raises pa.ArrowException."""
    with open_file(path) as raw:
        is_parquet = raw.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC
        raw.seek(0)
        return pq.read_schema(raw) if is_parquet else _reader(raw).schema


def _reader(raw: object) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
    source = pa.PythonFile(raw, mode="r")
    is_file = source.read(len(_ARROW_MAGIC)) == _ARROW_MAGIC
    source.seek(0)
    return pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
