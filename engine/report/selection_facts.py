"""How the picks were made, in sentences: what they cover, how good they are at least, in parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.artifacts.files import load_array
from engine.artifacts.run_directory import Artifact
from engine.report.wording import count, decimal, percent

__all__ = [
    "FreeAlternative",
    "asked_selected",
    "free_alternative",
    "read_free",
    "selection_remarks",
]


@dataclass(frozen=True)
class FreeAlternative:
    """What the cosine and round robin pick for nothing: how many, and how many of them are both's.

    `chance`: how many of two random selections of these sizes would be.
    """

    num_picks: int
    in_both: int
    chance: float


def free_alternative(counts: dict[str, Any]) -> FreeAlternative | None:
    """From the counts of the select stage; None where it was not computed."""
    told = counts.get("free_alternative")
    if told is None:
        return None
    chance = told["selected"] * counts["selected"] / counts["candidates"]
    return FreeAlternative(told["selected"], told["in_both"], chance)


def asked_selected(counts: dict[str, Any]) -> dict[str, float] | None:
    """Picks that the teacher was asked about, beside chance; None where that says nothing."""
    asked, second_look = counts.get("asked"), counts.get("second_look")
    if second_look is not None or not asked or not counts["selected"]:
        return None
    if asked >= counts["candidates"]:
        return None
    chance = counts["selected"] * asked / counts["candidates"]
    return {"selected": counts["asked_selected"], "expected_by_chance": chance}


def read_free(select: Artifact) -> NDArray[np.int64] | None:
    """Rows that it picks, (B,)."""
    if "free_alternative" not in select.manifest["parts"]:
        return None
    rows: NDArray[np.int64] = load_array(select.path("free_alternative"))
    return rows


def selection_remarks(counts: dict[str, Any], own_targets: bool) -> Iterator[str]:
    """Sentences from the counts of the select stage; `own_targets`: whether a target set exists."""
    cover = counts.get("cover")
    if cover == "target":
        yield "The picks cover the targets, by the predicted influence."
    elif cover == "self":
        by = "the cosine of the embeddings" if own_targets else "the predicted influence"
        yield f"The picks cover the candidates themselves, by {by}."
    rounds = counts.get("rounds", 1)
    if counts.get("objective") == "round_robin":
        yield f"Each target took the best candidate that was left for it, in {count(rounds)} turns."
    elif rounds > 1:
        yield (
            f"The targets are covered {count(rounds)} times over: whenever no candidate added "
            "anything more, the next round began among those that were left."
            if cover == "target"
            else f"The candidates are covered {count(rounds)} times over."
        )
    spread = counts.get("spread")
    if spread is not None and cover == "target":
        share = spread["additive_share"]
        effects = (
            "" if share is None else f"{percent(share)} of its variance is row and column effects, "
        )
        yield (
            f"Of the influence that was predicted: {effects}"
            f"{count(spread['distinct_best'])} candidates are the best for one of "
            f"{count(spread['num_targets'])} targets."
        )
        if not spread["tells_targets_apart"]:
            yield (
                "So it hardly tells targets apart, and covering them is little more than taking "
                "the best by mean influence."
            )
    if counts.get("tokens_selected"):
        yield f"Together they have {count(counts['tokens_selected'])} tokens."
    at_least = counts.get("at_least")
    if at_least is not None:
        yield (
            f"They reach at least {percent(at_least)} of the best value that any as large subset "
            "could have for this objective."
        )
    look = counts.get("second_look")
    if look is not None and look["mean_before"] is not None:
        yield (
            f"Second look: the teacher was asked about the {count(look['shortlist'])} best rows, "
            f"and they were selected from by its answers. {count(look['kept'])} of the picks are "
            "those of the prediction alone; the teacher's mean influence of the picks is "
            f"{decimal(look['mean_after'], 4)}, and {decimal(look['mean_before'], 4)} without it."
        )
    asked = asked_selected(counts)
    if asked is not None:
        yield (
            f"Of the picks {count(int(asked['selected']))} are rows that the teacher was asked "
            f"about, where chance has {count(round(asked['expected_by_chance']))}: all compete by "
            "what is predicted."
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
