"""Why one row was kept or dropped, in words, from a finished run's explanations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute as pc

from engine.artifacts.files import read_table
from engine.artifacts.rows import TableParts
from engine.artifacts.run_directory import Artifact
from engine.errors import InputError

__all__ = ["explain"]

SHOWN_CHARACTERS = 200


def explain(corpus: Artifact, selection: Artifact, row_id: str) -> dict[str, Any]:
    """The row's line of `explanations.parquet`, ids in place of row numbers, and `why` in words,
    which are safe to show on a terminal.

    Reads one file of some 100 bytes a row and the texts of at most three rows. Raises InputError
    for an id that no candidate has; the message says when the quarantine holds it.
    """
    table = read_table(selection.path("explanations"))
    found = table.filter(pc.equal(table["id"], row_id))
    if not len(found):
        raise InputError(_unknown(corpus, row_id))
    told: dict[str, Any] = found.to_pylist()[0]
    rows = {told["row"], told["nearest"], told["covered_by"]} - {None}
    numbers = np.array(sorted(rows), dtype=np.int64)
    texts = TableParts(corpus, "candidates").take(numbers, ["id", "instruction"]).to_pylist()
    by_row = dict(zip(numbers.tolist(), texts, strict=True))
    ranks = dict(zip(table["row"].to_pylist(), table["rank"].to_pylist(), strict=True))
    selected = table["rank"].null_count < len(table)
    counts = selection.counts
    why = list(_why(told, counts, by_row, ranks)) if selected else ["nothing was selected"]
    for name in ("nearest", "covered_by"):
        if told[name] is not None:
            told[name] = by_row[told[name]]["id"]
    why.insert(0, f"{_shown(row_id)}: {_shown(by_row[told['row']]['instruction'])}")
    return {**told, "instruction": _shown(by_row[told["row"]]["instruction"]), "why": why}


def _why(
    told: dict[str, Any],
    counts: dict[str, Any],
    by_row: dict[int, dict[str, str]],
    ranks: dict[int, int | None],
) -> Any:
    objective, num = counts["objective"].replace("_", " "), counts["selected"]
    tail = counts["selected"] - counts["zero_gain_picks"]
    if told["row"] in counts.get("crashing_rows", ()):
        yield "dropped: its text crashes the encoder, so it has no embedding (2-embeddings)"
        return
    if told.get("dropped_by_quality"):
        yield f"dropped by quality: {_quality(told, counts)}"
        return
    if told["rank"] is None:
        yield f"dropped: {num} of {counts['candidates']} rows were selected by {objective}"
        if told["gain_left"] is not None:
            yield f"it would still add {told['gain_left']:.4g} to {_what(counts)}"
    else:
        yield f"kept: rank {told['rank']} of {num} by {objective}"
        if told["rank"] > tail:
            yield (
                "it added nothing to the objective any more: its place is that of the policy "
                "zero_gain_tail"
            )
        elif counts["objective"] == "round_robin":
            yield (
                f"it was the best that was left for the target that took it in turn "
                f"{told['round']} of {counts['rounds']}: {told['gain']:.4g}"
            )
        else:
            again = f", in round {told['round']} of coverage" if counts.get("rounds", 1) > 1 else ""
            yield f"it added {told['gain']:.4g} to the objective when it was picked{again}"
        if told["num_covered"] is not None:
            covered = "rows" if counts["cover"] == "self" else "targets"
            yield f"it covers {told['num_covered']} {covered} better than any other selected row"
        yield f"it is the nearest selected row of {told['num_nearest']} dropped ones"
    if told["coverage"] is not None and told["covered_by"] not in (None, told["row"]):
        named = _named(told["covered_by"], by_row, ranks)
        yield f"the selected row that covers it best is {named}, by {told['coverage']:.3f}"
    if told["nearest"] is not None:
        what = "the nearest other" if told["rank"] is not None else "the nearest"
        named = _named(told["nearest"], by_row, ranks)
        yield f"{what} selected row is {named}, cosine {told['similarity']:.3f}"
    if told.get("quality") is not None:
        yield f"its quality: {_quality(told, counts)}"
    yield f"its mean influence is {told['mean_influence']:.4g}"
    if counts.get("asked") == counts["candidates"]:
        yield "the teacher itself says so: it was asked about every row"
    elif told["known_by"] == "second look":
        yield "the teacher was asked about it in the second look: it competed by that answer"
    elif counts.get("second_look") is not None:
        yield "it was not among the best by what is predicted, of which the second look asked"
    elif told["known_by"] == "asked":
        yield "the teacher was asked about it; it competed by what is predicted without that answer"
    else:
        yield "the teacher was not asked about it: that is predicted"


def _quality(told: dict[str, Any], counts: dict[str, Any]) -> str:
    """The gate's value of a row, and whether it is an answer."""
    how = "asked" if told["quality_asked"] else "predicted"
    return f"{counts['quality_teacher']} {told['quality']:.4g} ({how})"


def _what(counts: dict[str, Any]) -> str:
    """What a row that was left out would still add to."""
    return (
        f"round {counts['rounds']} of coverage" if counts.get("rounds", 1) > 1 else "the objective"
    )


def _named(row: int, by_row: dict[int, dict[str, str]], ranks: dict[int, int | None]) -> str:
    return f"{_shown(by_row[row]['id'])} (rank {ranks[row]}): {_shown(by_row[row]['instruction'])}"


def _shown(text: str) -> str:
    """One line of a text, without control characters: it goes to a terminal."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= SHOWN_CHARACTERS else line[:SHOWN_CHARACTERS] + " ..."


def _unknown(corpus: Artifact, row_id: str) -> str:
    for part in corpus.parts("quarantine"):
        table = read_table(corpus.directory / part.path)
        for row in table.filter(pc.equal(table["id"], row_id)).to_pylist():
            return (
                f"row {row_id!r} was not a candidate: {row['file']}, line {row['line']} is in the "
                f"quarantine of {row['side']}, {row['reason']}"
            )
    first = TableParts(corpus, "candidates").take(np.arange(1), ["id"])["id"][0].as_py()
    return f"no candidate has the id {row_id!r}; ids look like {first!r}"
