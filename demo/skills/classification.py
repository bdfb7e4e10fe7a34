"""Classification: topics of headlines, matters of customer messages, groups of words."""

from __future__ import annotations

from random import Random

from .content import Record, filled, pick, read_records
from .item import Item, in_turn
from .words import capitalised, full_name, joined

NUM_WORD_ITEMS = 15


def make_classification(rng: Random) -> list[Item]:
    """Headlines, messages, odd words and sorted lists in turn."""
    headlines = [
        item for record in read_records("headlines") for item in headline_items(rng, record)
    ]
    messages = [item for record in read_records("messages") for item in message_items(rng, record)]
    rng.shuffle(headlines)
    rng.shuffle(messages)
    words = [make(rng) for _ in range(NUM_WORD_ITEMS) for make in (odd_one_out, two_groups)]
    return in_turn(headlines, messages, words)


def headline_items(rng: Random, record: Record) -> list[Item]:
    """All headlines of a topic with fresh names."""
    return [
        labelled_item(
            rng,
            "headlines",
            filled(text, {"city": pick(rng, "cities"), "person": full_name(rng)}),
            record,
        )
        for text in record.all("headline")
    ]


def message_items(rng: Random, record: Record) -> list[Item]:
    """All messages of a category with fresh devices and order numbers."""
    items = []
    for text in record.all("message"):
        numbers = {"number": rng.randint(20000, 99999), "digit": rng.randint(2, 9)}
        message = filled(text, {"object": pick(rng, "devices"), **numbers})
        items.append(labelled_item(rng, "messages", message, record))
    return items


def labelled_item(rng: Random, kind: str, text: str, record: Record) -> Item:
    """A text to label; the wrong twin takes label and reason from another record."""
    records = read_records(kind)
    names = [r.key for r in rng.sample(records, len(records))]
    other = rng.choice([r for r in records if r.key != record.key])
    style = pick(rng, "label_styles")

    def render(r: Record) -> str:
        values = {"label": r.key, "reason": r.one("reason"), "next": r.one("next")}
        return capitalised(filled(style, values))

    lead = pick(rng, kind, labels=joined(names))
    return Item(text, lead, text, render(record), render(other), answer=record.key)


def odd_one_out(rng: Random) -> Item:
    """Three words of a group and one of another."""
    group, other = rng.sample(read_records("groups"), 2)
    members = rng.sample(group.one("member").split(", "), 3)
    odd = rng.choice(other.one("member").split(", "))
    words = rng.sample([*members, odd], 4)
    text, style = rng.choice((", ", " / ")).join(words), pick(rng, "odd_styles")

    def render(word: str) -> str:
        rest = joined([w for w in words if w != word])
        return capitalised(filled(style, {"odd": word, "rest": rest, "group": group.key}))

    lead = pick(rng, "odd_one_out")
    return Item(text, lead, text, render(odd), render(members[0]), answer=odd)


def two_groups(rng: Random) -> Item:
    """Six to eight words of two groups, mixed."""
    first, second = rng.sample(read_records("groups"), 2)
    a = rng.sample(first.one("member").split(", "), rng.randint(3, 4))
    b = rng.sample(second.one("member").split(", "), rng.randint(3, 4))
    text = ", ".join(rng.sample([*a, *b], len(a) + len(b)))
    lead = pick(rng, "two_groups", first=first.key, second=second.key)

    def render(one: list[str], two: list[str]) -> str:
        pairs = ((first.key, one), (second.key, two))
        return "\n".join(f"{capitalised(name)}: {', '.join(words)}" for name, words in pairs)

    wrong = render([*a[1:], b[0]], [a[0], *b[1:]])
    return Item(text, lead, text, render(a, b), wrong)
