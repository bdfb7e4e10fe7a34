"""Short summaries of passages: a sentence, a title with a sentence, key points, or a digest."""

from __future__ import annotations

from random import Random

from .content import Record, pick, read_records
from .item import Item


def make_summaries(rng: Random) -> list[Item]:
    """For every passage its first kind of summary, then the other three."""
    kinds = (sentence_item, title_item, points_item, digest_item)
    records = read_records("passages")
    return [
        kinds[(position + turn) % 4](rng, record)
        for turn in range(4)
        for position, record in enumerate(records)
    ]


def placed(rng: Random, lead: str, record: Record) -> tuple[str, str]:
    """The passage in the input, or now and then below the request in the instruction."""
    text = record.one("text")
    return (f"{lead}\n\n{text}", "") if rng.random() < 0.15 else (lead, text)


def sentence_item(rng: Random, record: Record) -> Item:
    """One sentence."""
    instruction, text = placed(rng, pick(rng, "summary_sentence"), record)
    sentence = record.one("sentence")
    return Item(record.key, instruction, text, sentence, record.spoiled(sentence))


def title_item(rng: Random, record: Record) -> Item:
    """A title and a sentence."""
    instruction, text = placed(rng, pick(rng, "summary_title"), record)
    title, sentence = record.one("title"), record.one("sentence")
    wrong = record.spoiled(sentence)
    spoiled = f"{title}\n{wrong}" if wrong else ""
    return Item(record.key, instruction, text, f"{title}\n{sentence}", spoiled)


def points_item(rng: Random, record: Record) -> Item:
    """Bullet points."""
    instruction, text = placed(rng, pick(rng, "summary_points"), record)
    return Item(record.key, instruction, text, bullets(rng, record))


def digest_item(rng: Random, record: Record) -> Item:
    """A title, bullet points and the gist."""
    instruction, text = placed(rng, pick(rng, "summary_digest"), record)
    points, sentence = bullets(rng, record), record.one("sentence")
    wrong = record.spoiled(sentence)

    def render(gist: str) -> str:
        return f"{record.one('title')}\n{points}\nIn short: {gist}"

    return Item(record.key, instruction, text, render(sentence), render(wrong) if wrong else "")


def bullets(rng: Random, record: Record) -> str:
    """The points of a passage, one per line."""
    mark = rng.choice(("-", "-", "*"))
    return "\n".join(f"{mark} {point}" for point in record.one("points").split("\n") if point)
