"""Classification: the topic of a headline, the matter of a customer's message, the odd one out of four words."""

from __future__ import annotations

from random import Random

from .content import Record, read_records
from .item import Item, in_turn
from .words import CITIES, capitalised, full_name, joined

NUM_WORD_ITEMS = 15
HEADLINE_LEADS = (
    "Which section of a newspaper does this headline belong to? Choose from: {labels}.",
    "Classify the topic of the headline ({labels}).", "Assign the headline to one of these topics: {labels}. Give a reason.",
    "What is the headline about? Topics: {labels}.",
)
MESSAGE_LEADS = (
    "Sort this customer message into one category: {labels}.", "What does the customer want? Pick from: {labels}.",
    "Our inbox has the folders {labels}. Where does this message go?", "Label the message with one of {labels} and explain your choice in a sentence.",
)
ODD_LEADS = (
    "Which word does not belong with the others, and why?", "Find the odd one out.", "One of these words is not like the rest. Which one?",
    "Name the word that does not fit and give the reason.",
)
SORT_LEADS = (
    "Sort the words into {labels}.", "Divide this list into two groups: {labels}.", "Which of these are {first} and which are {second}?",
)
OBJECTS = (
    "smart watch", "printer", "baby monitor", "drone", "e-reader", "video doorbell", "wireless speaker", "projector",
    "robot vacuum", "smart thermostat", "tablet", "game console", "weather station", "digital photo frame",
)


def make_classification(rng: Random) -> list[Item]:
    """Headlines, messages, odd words and sorted lists in turn."""
    headlines = [item for record in read_records("headlines") for item in headline_items(rng, record)]
    messages = [item for record in read_records("messages") for item in message_items(rng, record)]
    rng.shuffle(headlines)
    rng.shuffle(messages)
    words = [make(rng) for _ in range(NUM_WORD_ITEMS) for make in (odd_one_out, two_groups)]
    return in_turn(headlines, messages, words)


def labels(name: str, rng: Random) -> list[str]:
    """The labels of a content file in random order."""
    return rng.sample([record.key for record in read_records(name)], len(read_records(name)))


def headline_items(rng: Random, record: Record) -> list[Item]:
    """All headlines of a topic with fresh names."""
    items = []
    for pattern in record.all("headline"):
        headline = pattern.format(city=rng.choice(CITIES), person=full_name(rng))
        items.append(labelled(rng, "headlines", HEADLINE_LEADS, headline, record))
    return items


def message_items(rng: Random, record: Record) -> list[Item]:
    """All messages of a category with fresh objects and numbers."""
    items = []
    for pattern in record.all("message"):
        message = pattern.format(object=rng.choice(OBJECTS), number=rng.randint(20000, 99999), digit=rng.randint(2, 9))
        items.append(labelled(rng, "messages", MESSAGE_LEADS, message, record))
    return items


def labelled(rng: Random, kind: str, leads: tuple[str, ...], text: str, record: Record) -> Item:
    """A text with its label and reason; the wrong twin takes label and reason from another record."""
    names = labels(kind, rng)
    other = rng.choice([r for r in read_records(kind) if r.key != record.key])
    style = rng.choice(("{label}: {reason}.", "This belongs under \"{label}\", because {reason}.", "Category: {label}. In short, {reason}.", "{label} ({reason})."))

    tail = rng.choice(("", " {next}."))

    def render(source: Record) -> str:
        filled = f"{style}{tail}".format(label=source.key, reason=source.one("reason"), next=source.one("next"))
        return capitalised(filled)

    return Item(text, rng.choice(leads).format(labels=joined(names)), text, render(record), render(other), answer=record.key)


def odd_one_out(rng: Random) -> Item:
    """Three words of a group and one of another."""
    group, other = rng.sample(read_records("groups"), 2)
    members, odd = rng.sample(group.one("member").split(", "), 3), rng.choice(other.one("member").split(", "))
    words = rng.sample([*members, odd], 4)
    text = rng.choice((", ", " / ")).join(words)
    style = rng.choice(("\"{odd}\" does not fit: {rest} are {group}.", "The odd one out is {odd}. {rest} all belong to the group \"{group}\".",
                        "{odd}. The other three, {rest}, are {group}."))

    def render(word: str) -> str:
        rest = joined([w for w in words if w != word])
        return capitalised(style.format(odd=word, rest=rest, group=group.key)).replace(f". {rest} all", f". {capitalised(rest)} all")

    return Item(text, rng.choice(ODD_LEADS), text, render(odd), render(members[0]), answer=odd)


def two_groups(rng: Random) -> Item:
    """Six to eight words of two groups, mixed."""
    first, second = rng.sample(read_records("groups"), 2)
    a = rng.sample(first.one("member").split(", "), rng.randint(3, 4))
    b = rng.sample(second.one("member").split(", "), rng.randint(3, 4))
    text = ", ".join(rng.sample([*a, *b], len(a) + len(b)))
    lead = rng.choice(SORT_LEADS).format(labels=f"{first.key} and {second.key}", first=first.key, second=second.key)

    def render(one: list[str], two: list[str]) -> str:
        return f"{capitalised(first.key)}: {', '.join(one)}\n{capitalised(second.key)}: {', '.join(two)}"

    wrong = render([*a[1:], b[0]], [a[0], *b[1:]])
    return Item(text, lead, text, render(a, b), wrong)
