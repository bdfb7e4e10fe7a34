"""Rewriting a sentence: another register, plainer words, fewer words, or the active voice."""

from __future__ import annotations

from random import Random

from .content import Record, read_records
from .item import Item, in_turn
from .words import capitalised

LEADS = {
    "formal": (
        "Rewrite this message in formal English.", "Make the following text sound professional.",
        "I want to send this to an office. Please phrase it formally.", "Turn the informal note into a formal one.",
    ),
    "casual": (
        "Rewrite this in a casual tone, as to a friend.", "Make this sound less stiff.", "How would I say this to a friend?",
        "Put the sentence into relaxed, everyday English.",
    ),
    "simple": (
        "Rewrite the sentence in plain language.", "Explain this sentence in simple words.", "Say the same so that everybody understands it.",
        "Simplify the following sentence.",
    ),
    "polite": (
        "Make this request more polite.", "Rephrase this in a friendly and polite way.", "This sounds rude. How can I say it more kindly?",
    ),
    "short": (
        "Shorten this sentence without losing its meaning.", "Cut the unnecessary words.", "Say this in as few words as you can.",
        "Edit the sentence to be concise.",
    ),
    "positive": (
        "Rewrite this in a positive way, without \"not\".", "Phrase the sentence positively.", "Say what is possible instead of what is not.",
    ),
}
NOTES = {
    "formal": (
        "I replaced colloquial words and wrote out the short forms.", "The tone is now polite and matter-of-fact, and the content is unchanged.",
        "Full sentences and a neutral tone make it suitable for a business letter.",
    ),
    "casual": (
        "Short forms and everyday words make it sound like speech.", "I dropped the set phrases that nobody uses among friends.",
    ),
    "simple": (
        "The long nouns became verbs, and the technical terms are gone.", "Short, common words carry the same meaning here.",
    ),
    "polite": (
        "A question sounds softer than an order.", "Naming your own need first, instead of the other person's fault, keeps it friendly.",
    ),
    "short": (
        "Everything that is left out was implied anyway.", "The facts are all there; only filler such as \"the fact that\" is gone.",
    ),
    "positive": (
        "It now says what is possible, which readers grasp faster.", "The meaning is the same without the negation.",
    ),
    "active": (
        "The one who acts is now the subject.", "The active voice names the doer first and needs fewer words.",
    ),
    "passive": (
        "The object of the action has become the subject, and the doer follows \"by\".", "The verb now consists of a form of \"be\" and the past participle.",
    ),
}
ACTIVE_LEADS = (
    "Put the sentence into the active voice.", "Rewrite this passive sentence in the active voice.", "Make it active: who did what?",
    "Change the following from passive to active.",
)
PASSIVE_LEADS = ("Put the sentence into the passive voice.", "Rewrite this in the passive.", "Turn the active sentence into a passive one.")
TIMES = (
    "on Tuesday", "last week", "in the afternoon", "yesterday", "in March", "this morning", "at the weekend", "two days ago",
    "around noon", "in the first week of May", "on Sunday evening", "shortly before six",
)
STYLES = ("{}", "{}", "{}", "Here is a version: {}", "You could write: \"{}\"", "Suggestion: {}")


def make_rewriting(rng: Random) -> list[Item]:
    """Hand-written pairs and changes of voice in turn."""
    pairs = [pair_item(rng, record) for record in read_records("rewriting")]
    rng.shuffle(pairs)
    voices = [voice_item(rng, record, deed) for record in read_records("passive") for deed in record.all("deed")]
    rng.shuffle(voices)
    again = [pair_item(rng, record) for record in read_records("rewriting")]
    return in_turn(pairs, voices) + again


def styled(rng: Random, kind: str) -> str:
    """A frame for the new sentence, half of the time with a note on what was changed."""
    style = rng.choice(STYLES)
    return f"{style}\n{rng.choice(NOTES[kind])}" if rng.random() < 0.5 else style


def pair_item(rng: Random, record: Record) -> Item:
    """A hand-written sentence before and after."""
    style = styled(rng, record.one("kind"))
    after = record.one("after")
    wrong = record.spoiled(after)
    lead = rng.choice(LEADS[record.one("kind")])
    before = record.one("before")
    instruction, text = (f"{lead} \"{before}\"", "") if rng.random() < 0.2 else (lead, before)
    return Item(record.key, instruction, text, style.format(after), style.format(wrong) if wrong else "", answer=after)


def voice_item(rng: Random, record: Record, deed: str) -> Item:
    """A change between active and passive; the wrong twin swaps who did it to whom, or drops the verb's form."""
    parts = dict(part.split(": ", 1) for part in deed.split(" | "))
    agent, time = record.one("agent"), rng.choice(TIMES)
    verb = "was" if parts["number"] == "one" else "were"
    passive = capitalised(f"{parts['object']} {verb} {parts['by']} by {agent} {time}.")
    active = capitalised(f"{agent} {parts['past']} {parts['object']} {time}.")
    swapped = capitalised(f"{parts['object']} {parts['past']} {agent} {time}.")
    if rng.random() < 0.6:
        kind, lead, before, after = "active", rng.choice(ACTIVE_LEADS), passive, active
    else:
        kind, lead, before, after = "passive", rng.choice(PASSIVE_LEADS), active, passive
        swapped = capitalised(f"{agent} {verb} {parts['by']} by {parts['object']} {time}.")
    style = styled(rng, kind)
    return Item(f"{record.key}-{parts['object']}", lead, before, style.format(after), style.format(swapped), answer=after)
