"""How the picks were made, in sentences: what they cover, how good they are at least, in parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.report.wording import count, percent

__all__ = ["selection_remarks"]


def selection_remarks(counts: dict[str, Any], own_targets: bool) -> Iterator[str]:
    """Sentences from the counts of the select stage; `own_targets`: whether a target set exists."""
    cover = counts.get("cover")
    if cover == "target":
        yield "The picks cover the targets, by the predicted influence."
    elif cover == "self":
        by = "the cosine of the embeddings" if own_targets else "the predicted influence"
        yield f"The picks cover the candidates themselves, by {by}."
    if counts.get("tokens_selected"):
        yield f"Together they have {count(counts['tokens_selected'])} tokens."
    at_least = counts.get("at_least")
    if at_least is not None:
        yield (
            f"They reach at least {percent(at_least)} of the best value that any as large subset "
            "could have for this objective."
        )
    asked = counts.get("asked")
    if asked and asked < counts["candidates"] and counts["selected"]:
        chance = counts["selected"] * asked / counts["candidates"]
        yield (
            f"Of the picks {count(counts['asked_selected'])} are rows that the teacher was asked "
            f"about, where chance has {count(round(chance))}: all compete by what is predicted."
        )
    if counts.get("partitions"):
        how = "greedily" if counts["second_round"] == "greedy" else "by their gains"
        said = (
            f"The candidates were selected from in {count(counts['partitions'])} partitions, whose "
            f"picks were then selected from {how}"
        )
        ratio = counts.get("partition_ratio")
        measured = "." if ratio is None else f": {ratio:.3f} of selecting at once, on a sample."
        yield said + measured
