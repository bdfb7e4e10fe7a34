"""Sentiment of reviews that are put together from hand-written openers, aspects and closing lines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random

from .content import Record, read_records
from .item import Item
from .words import joined

NUM_ROUNDS = 13
LABELS = ("positive", "negative", "mixed")
LEADS = (
    "Is the sentiment of this review positive, negative or mixed? Give a short reason.",
    "Classify the review as positive, negative or mixed and say why.",
    "What is the overall tone of the following review (positive, negative, mixed)?",
    "Decide whether the customer is satisfied. Label: positive, negative or mixed.",
    "Read the customer's opinion and determine its sentiment. Explain briefly.",
    "Sentiment analysis: positive, negative or mixed?",
    "How does the writer feel about it? Choose positive, negative or mixed and name the reasons.",
)
JSON_LEADS = (
    'Return the sentiment of the review as JSON: {"sentiment": ..., "praised": [...], "criticised": [...]}.',
    "Give JSON with the keys sentiment (positive, negative or mixed), praised and criticised (lists of aspects).",
)


@dataclass(frozen=True)
class Review:
    """A review with its truth: what it praises, what it criticises, and a sentence that shows it."""

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
        link = rng.choice(("On the other hand:", "Sadly, there is more to say.", "But:", "That was the good part."))
        sentences[good] = f"{link} {sentences[good]}"
    elif label == "mixed":
        link = rng.choice(("To be fair:", "There is a bright side, too.", "Still:", "Now for the good news."))
        sentences = [*sentences[good:], f"{link} {sentences[0]}", *sentences[1:good]]
    closing = {"positive": record.all("good"), "negative": record.all("bad"), "mixed": ["Not sure what to think.", "Three stars.", "So it is a bit of both."]}
    parts = [rng.choice(record.all("opener")), *sentences]
    if rng.random() < 0.75:
        parts.append(rng.choice(closing[label]))
    return Review(" ".join(parts), label, [a[0] for a in chosen[:good]], [a[0] for a in chosen[good:]], evidence)


def review_item(rng: Random, drawn: Review) -> Item:
    """A review as an item; its wrong twin carries the opposite label."""
    wrong = {"positive": "negative", "negative": "positive", "mixed": rng.choice(("positive", "negative"))}[drawn.label]
    if rng.random() < 0.2:
        lead, output, spoiled = rng.choice(JSON_LEADS), as_json(drawn, drawn.label), as_json(drawn, wrong)
    else:
        lead, seed = rng.choice(LEADS), rng.random()
        output, spoiled = as_text(Random(seed), drawn, drawn.label), as_text(Random(seed), drawn, wrong)
    instruction, text = (f"{lead}\n\n{drawn.text}", "") if rng.random() < 0.2 else (lead, drawn.text)
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
    return json.dumps({"sentiment": label, "praised": [bare(a) for a in praised], "criticised": [bare(a) for a in criticised]})


def as_text(rng: Random, drawn: Review, label: str) -> str:
    """The label and a sentence about the aspects."""
    praised, criticised = sides(drawn, label)
    likes, dislikes = joined(praised) if praised else "", joined(criticised) if criticised else ""
    start = rng.choice((f"{label.capitalize()}.", f"Sentiment: {label}.", f"The review is {label}."))
    who = rng.choice(("The writer", "The customer", "The reviewer"))
    if likes and dislikes:
        reason = rng.choice((f"{who} likes {likes} but complains about {dislikes}.", f"{who} praises {likes}, yet {dislikes} fell short."))
    elif likes:
        reason = rng.choice((f"{who} is happy with {likes}.", f"{who} praises {likes} and has no complaints.", f"{who} clearly enjoyed it, above all {likes}."))
    else:
        reason = rng.choice((f"{who} complains about {dislikes}.", f"{who} is disappointed by {dislikes}.", f"{who} finds fault with {dislikes} and says nothing good."))
    shown = rng.choice(("", "", f" One sentence that shows it: \"{drawn.evidence}\"", f" This is clear from \"{drawn.evidence}\""))
    return f"{start} {reason}{shown}"


def bare(aspect: str) -> str:
    """An aspect without its article."""
    return aspect.removeprefix("the ")
