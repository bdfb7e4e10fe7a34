"""Short summaries of hand-written passages: a sentence, a title with a sentence, key points, or a digest."""

from __future__ import annotations

from random import Random

from .content import Record, read_records
from .item import Item

SENTENCE_LEADS = (
    "Summarise the text in one sentence.", "What is the main point of this passage? One sentence, please.",
    "Write a one-sentence summary.", "Sum up the following news item in a single sentence.",
    "Give me the gist of this text.", "Condense the paragraph into one sentence.",
)
TITLE_LEADS = (
    "Write a headline for the text and, below it, a sentence that sums it up.",
    "Give this article a title and a short lead.", "Suggest a title and a one-line summary for the passage.",
)
POINTS_LEADS = (
    "List the key points of the text.", "Summarise the passage in a few bullet points.",
    "What should I remember from this text? Use bullet points.", "Turn the article into two or three short notes.",
)
DIGEST_LEADS = (
    "Prepare a digest of the article: a headline and the key points.", "I have no time to read this. Give me a title and the main facts.",
    "Make a short briefing out of this text, with a title and bullet points.",
)


def make_summaries(rng: Random) -> list[Item]:
    """For every passage its first kind of summary, then the other three."""
    kinds = (sentence_item, title_item, points_item, digest_item)
    records = read_records("passages")
    return [kinds[(position + turn) % 4](rng, record) for turn in range(4) for position, record in enumerate(records)]


def placed(rng: Random, lead: str, record: Record) -> tuple[str, str]:
    """The passage in the input, or now and then below the request in the instruction."""
    text = record.one("text")
    return (f"{lead}\n\n{text}", "") if rng.random() < 0.15 else (lead, text)


def sentence_item(rng: Random, record: Record) -> Item:
    """One sentence."""
    instruction, text = placed(rng, rng.choice(SENTENCE_LEADS), record)
    sentence = record.one("sentence")
    return Item(record.key, instruction, text, sentence, record.spoiled(sentence))


def title_item(rng: Random, record: Record) -> Item:
    """A title and a sentence."""
    instruction, text = placed(rng, rng.choice(TITLE_LEADS), record)
    title, sentence = record.one("title"), record.one("sentence")
    wrong = record.spoiled(sentence)
    return Item(record.key, instruction, text, f"{title}\n{sentence}", f"{title}\n{wrong}" if wrong else "")


def points_item(rng: Random, record: Record) -> Item:
    """Bullet points."""
    instruction, text = placed(rng, rng.choice(POINTS_LEADS), record)
    return Item(record.key, instruction, text, bullets(rng, record))


def digest_item(rng: Random, record: Record) -> Item:
    """A title, bullet points and the gist."""
    instruction, text = placed(rng, rng.choice(DIGEST_LEADS), record)
    points, sentence = bullets(rng, record), record.one("sentence")
    wrong = record.spoiled(sentence)

    def render(gist: str) -> str:
        return f"{record.one('title')}\n{points}\nIn short: {gist}"

    return Item(record.key, instruction, text, render(sentence), render(wrong) if wrong else "")


def bullets(rng: Random, record: Record) -> str:
    """The points of a passage, one per line."""
    mark = rng.choice(("-", "-", "*"))
    return "\n".join(f"{mark} {point}" for point in record.one("points").split("\n") if point)
