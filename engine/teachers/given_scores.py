"""The user's own scores, as a file has them, matched with the rows of a corpus.

The file (`teacher.given`) scores rows or pairs. Lines of one row, and several score columns, are
averaged; empty scores and ids that the corpus has not are left out and counted. What of them is
held out for the audit is the sample's business (sample.py), unless the file says so itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine import storage
from engine.artifacts.files import file_sha256
from engine.artifacts.rows import TableParts, target_side
from engine.artifacts.run_directory import Artifact
from engine.config import GivenConfig, TeacherConfig
from engine.errors import SettingsError
from engine.score_files import column_names, is_there, read_columns
from engine.spelling import meant

__all__ = ["GivenScores", "content_of", "given_scores", "located"]

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

_EMPTY = ("", "nan", "na", "n/a", "null", "none")
_TRUTH = {"true": "1", "false": "0"}


@dataclass(frozen=True)
class GivenScores:
    """Scores of rows or pairs of a corpus, sorted by candidate, then target, each once.

    Attributes:
        pairs: row numbers [candidate, target], (n, 2) int64; targets are 0 for scores of rows.
        scores: higher is better, (n,) float32.
        audit: what the file itself wants held out, (n,); None where it does not say.
        counts: what was read and left out.
        remarks: the same in sentences.
    """

    pairs: Rows
    scores: NDArray[np.float32]
    audit: Mask | None
    counts: dict[str, int]
    remarks: list[str]


def located(teacher: TeacherConfig) -> GivenConfig:
    """The settings with a path that holds in any working directory."""
    path = teacher.own(GivenConfig).path
    if not storage.is_remote(path):
        path = str(Path(path).expanduser().absolute())
    return teacher.own(GivenConfig).model_copy(update={"path": path})


def content_of(teacher: TeacherConfig) -> dict[str, Any]:
    """The scores by their content, and how they are read; SettingsError for a missing file."""
    path = located(teacher).path
    if not is_there(path):
        raise SettingsError(f"teacher.given.path: no such file: {path}")
    content = storage.sha256(path) if storage.is_remote(path) else file_sha256(Path(path))
    return {
        "content": content,
        **teacher.own(GivenConfig).model_dump(mode="json", exclude={"path"}),
    }


def given_scores(given: GivenConfig, pairwise: bool, corpus: Artifact) -> GivenScores:
    """Read the file and match it with the corpus.

    Raises SettingsError for a file of no use: columns that are not there, text for a score, no id
    of this corpus, one value only. Memory: the columns of the file, and the ids of the corpus.
    """
    table = _read(given, pairwise)
    scores = _mean_of_columns(table, given)
    scored = ~np.isnan(scores)
    groups = {given.id_column: "candidates"}
    if pairwise:
        groups = {given.candidate_column: "candidates", given.target_column: target_side(corpus)}
    known, sides, unknown = scored.copy(), [], list[str]()
    for column, group in groups.items():
        rows, ids = _rows_of(table[column], TableParts(corpus, group))
        missing = scored & (rows < 0)
        unknown += pc.unique(ids.filter(pa.array(missing))).to_pylist()
        known &= ~missing
        sides.append(rows)
    if not known.any():
        such = f" (it has ids such as {unknown[0]!r})" if unknown else ""
        raise SettingsError(
            f"teacher.given.path: {given.path} scores nothing that is in the corpus{such}: ids are "
            "compared as text with those of the corpus"
        )
    if not pairwise:
        sides.append(np.zeros_like(sides[0]))
    pairs, inverse = np.unique(np.stack(sides, axis=1)[known], axis=0, return_inverse=True)
    sums = np.bincount(inverse, weights=scores[known])
    means = (sums / np.bincount(inverse)).astype(np.float32)
    if (means == means[0]).all():
        raise SettingsError(
            f"teacher.given.path: {given.path} gives everything the same score, {means[0]:g}: "
            "there is nothing to learn from it"
        )
    audit = None
    if given.split_column is not None:
        audit = np.zeros(len(pairs), dtype=bool)
        audit[inverse[_is_audit(table[given.split_column], given)[known]]] = True
    counts = {
        "given_lines": len(scores),
        "given_averaged_lines": int(known.sum()) - len(pairs),
        "given_empty_lines": int((~scored).sum()),
        "given_unknown_lines": int((scored & ~known).sum()),
        "given_unknown_ids": len(unknown),
    }
    remarks = list(_remarks(counts, len(pairs), unknown, given, pairwise))
    return GivenScores(pairs, means if given.higher_is_better else -means, audit, counts, remarks)


def _remarks(
    counts: Mapping[str, int], num: int, unknown: list[str], given: GivenConfig, pairwise: bool
) -> Iterator[str]:
    what, name = "pairs" if pairwise else "rows", Path(str(given.path)).name
    averaged = counts["given_averaged_lines"]
    means = f", as means of {num + averaged:,} lines" if averaged else ""
    yield f"{name} gives the scores of {num:,} {what}{means}."
    if unknown:
        yield (
            f"{len(unknown):,} of its ids are not in the corpus, such as {unknown[0]!r}; lines "
            f"left out for that: {counts['given_unknown_lines']:,}."
        )
    if empty := counts["given_empty_lines"]:
        yield f"Lines left out because they have no score: {empty:,}."


# --- the file ------------------------------------------------------------------------------------


def _read(given: GivenConfig, pairwise: bool) -> pa.Table:
    """The columns that are named, once it is clear that the file has them."""
    ids = [given.candidate_column, given.target_column] if pairwise else [given.id_column]
    wanted = [*ids, *given.columns, *([given.split_column] if given.split_column else [])]
    path = str(given.path)
    table = read_columns(path, wanted)
    for name in wanted:
        if name not in table.column_names:
            names = column_names(path)
            listed = ", ".join(names) or "none"
            raise SettingsError(
                f"teacher.given: {path} has no column {name!r}; it has: {listed}"
                f"{meant(name, names)}"
            )
    if not len(table):
        raise SettingsError(f"teacher.given.path: {path} holds no scores")
    return table


def _mean_of_columns(table: pa.Table, given: GivenConfig) -> NDArray[np.float64]:
    """The mean of the score columns of each line, (n,); NaN where none has a score."""
    columns = np.stack([_numbers(table[name], name, given) for name in given.columns])
    there = ~np.isnan(columns)
    sums = np.where(there, columns, 0).sum(axis=0)
    count = there.sum(axis=0)
    means: NDArray[np.float64] = np.full(len(sums), np.nan)
    np.divide(sums, count, out=means, where=count > 0)
    return means


def _numbers(column: pa.ChunkedArray, name: str, given: GivenConfig) -> NDArray[np.float64]:
    """A column of scores as float64, NaN for none; SettingsError names the row of what is none."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        values = [_number(text) for text in column.to_pylist()]
    else:
        try:
            column = column.cast(pa.float64())
        except pa.ArrowException:
            raise SettingsError(
                f"teacher.given.columns: {name!r} of {given.path} is of type {column.type}, and "
                "scores are numbers"
            ) from None
        values = column.to_numpy(zero_copy_only=False)
    for number, value in enumerate(values):
        if value is None or np.isinf(value):
            raise SettingsError(
                f"teacher.given: row {number + 1} of {given.path} has {column[number].as_py()!r} "
                f"in column {name!r}: scores are numbers, and empty where there is none"
            )
    return np.asarray(values, dtype=np.float64)


def _number(text: str | None) -> float | None:
    """NaN for no score, None for what is no number."""
    word = (text or "").strip().lower()
    if word in _EMPTY:
        return np.nan
    try:
        return float(_TRUTH.get(word, word))
    except ValueError:
        return None


def _is_audit(column: pa.ChunkedArray, given: GivenConfig) -> Mask:
    words = column.cast(pa.string()).to_pylist()
    for number, word in enumerate(words):
        if word not in ("train", "audit"):
            raise SettingsError(
                f"teacher.given.split_column: row {number + 1} of {given.path} has {word!r} in "
                f"column {given.split_column!r}: it says train or audit"
            )
    return np.array([word == "audit" for word in words])


def _rows_of(column: pa.ChunkedArray, corpus: TableParts) -> tuple[Rows, pa.Array]:
    """Row number in the corpus of each id, (n,), -1 for none; and the ids as text, (n,).

    A whole number is the text of its digits, also where a column of floats made 7.0 of it.
    """
    if pa.types.is_floating(column.type):
        whole = [v if v is None or v % 1 else int(v) for v in column.to_pylist()]
        text = pa.array([None if v is None else str(v) for v in whole], pa.string())
    else:
        text = column.cast(pa.string()).combine_chunks()
    text = pc.fill_null(text, "")
    names = pa.concat_arrays(
        [table["id"].combine_chunks().cast(pa.string()) for table in corpus.iter_parts(["id"])]
    )
    found = pc.index_in(text, names)
    digits = pc.replace_substring_regex(text, r"^(-?\d+)\.0+$", r"\1")
    found = pc.fill_null(pc.coalesce(found, pc.index_in(digits, names)), -1)
    return found.to_numpy(zero_copy_only=False).astype(np.int64), text
