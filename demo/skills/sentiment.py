"""Sentiment of reviews, put together from hand-written openers, aspects and closing lines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random

from .content import Record, phrases, pick, read_records
from .item import Item
from .words import capitalised, joined

NUM_ROUNDS = 13
LABELS = ("positive", "negative", "mixed")


@dataclass(frozen=True)
class Review:
    """A review with its truth: what it praises and criticises, and a sentence that shows it."""

    text: str
    label: str
    praised: list[str]
    criticised: list[str]
    evidence: str


def make_sentiment(rng: Random) -> list[Item]:
    """`NUM_ROUNDS` reviews for every kind of product, with labels in turn."""
    records = read_records("reviews")
    items: list[Item] = []
    for turn in range(NUM_ROUNDS):
        for position, record in enumerate(records):
            items.append(review_item(rng, review(rng, record, LABELS[(turn + position) % 3])))
    return items


def review(rng: Random, record: Record, label: str) -> Review:
    """A review of three to six sentences with the given label."""
    aspects = [[part.strip() for part in line.split("|")] for line in record.all("aspect")]
    chosen = rng.sample(aspects, rng.choice((2, 3, 3, 4)))
    good = {"positive": len(chosen), "negative": 0, "mixed": len(chosen) // 2}[label]
    sentences = [aspect[1] for aspect in chosen[:good]] + [aspect[2] for aspect in chosen[good:]]
    evidence = rng.choice(sentences)
    if label == "mixed" and rng.random() < 0.6:
        sentences[good] = f"{pick(rng, 'turn_to_bad')} {sentences[good]}"
    elif label == "mixed":
        praise = f"{pick(rng, 'turn_to_good')} {sentences[0]}"
        sentences = [*sentences[good:], praise, *sentences[1:good]]
    closing = {
        "positive": record.all("good"),
        "negative": record.all("bad"),
        "mixed": phrases("mixed_closing"),
    }
    parts = [rng.choice(record.all("opener")), *sentences]
    if rng.random() < 0.75:
        parts.append(rng.choice(closing[label]))
    praised, criticised = [a[0] for a in chosen[:good]], [a[0] for a in chosen[good:]]
    return Review(" ".join(parts), label, praised, criticised, evidence)


def review_item(rng: Random, drawn: Review) -> Item:
    """A review as an item; its wrong twin carries the opposite label."""
    wrong = {
        "positive": "negative",
        "negative": "positive",
        "mixed": rng.choice(("positive", "negative")),
    }[drawn.label]
    if rng.random() < 0.2:
        lead, output, spoiled = (
            pick(rng, "sentiment_json"),
            as_json(drawn, drawn.label),
            as_json(drawn, wrong),
        )
    else:
        lead, seed = pick(rng, "sentiment"), rng.random()
        output, spoiled = (
            as_text(Random(seed), drawn, drawn.label),
            as_text(Random(seed), drawn, wrong),
        )
    instruction, text = (
        (f"{lead}\n\n{drawn.text}", "") if rng.random() < 0.2 else (lead, drawn.text)
    )
    return Item(drawn.text, instruction, text, output, spoiled, answer=drawn.label)


def sides(drawn: Review, label: str) -> tuple[list[str], list[str]]:
    """What is praised and criticised; swapped or merged when the label is not the true one."""
    if label == drawn.label:
        return drawn.praised, drawn.criticised
    everything = drawn.praised + drawn.criticised
    return (everything, []) if label == "positive" else ([], everything)


def as_json(drawn: Review, label: str) -> str:
    """A JSON object with label and aspects."""
    praised, criticised = sides(drawn, label)
    return json.dumps(
        {
            "sentiment": label,
            "praised": [bare(a) for a in praised],
            "criticised": [bare(a) for a in criticised],
        }
    )


def as_text(rng: Random, drawn: Review, label: str) -> str:
    """The label, a sentence about the aspects and, now and then, a quotation."""
    praised, criticised = sides(drawn, label)
    start = pick(rng, "verdict", label=label)
    reason = pick(
        rng,
        f"verdict_{label}",
        who=pick(rng, "voices"),
        praised=joined(praised),
        criticised=joined(criticised),
    )
    shown = pick(rng, "verdict_shown", evidence=drawn.evidence)
    return " ".join(part for part in (capitalised(start), reason, shown) if part)


def bare(aspect: str) -> str:
    """An aspect without its article."""
    return aspect.removeprefix("the ")
