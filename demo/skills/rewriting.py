"""Rewriting a sentence: another register, plainer words, fewer words, or the active voice."""

from __future__ import annotations

from random import Random

from .content import Record, pick, read_records
from .item import Item, in_turn
from .words import capitalised


def make_rewriting(rng: Random) -> list[Item]:
    """Hand-written pairs and changes of voice in turn."""
    pairs = [pair_item(rng, record) for record in read_records("rewriting")]
    rng.shuffle(pairs)
    voices = [
        voice_item(rng, record, deed)
        for record in read_records("passive")
        for deed in record.all("deed")
    ]
    rng.shuffle(voices)
    again = [pair_item(rng, record) for record in read_records("rewriting")]
    return in_turn(pairs, voices) + again


def styled(rng: Random, kind: str) -> str:
    """A frame for the new sentence, half of the time with a note on what was changed."""
    style = pick(rng, "rewrite_frames")
    return f"{style}\n{pick(rng, f'note_{kind}')}" if rng.random() < 0.5 else style


def pair_item(rng: Random, record: Record) -> Item:
    """A hand-written sentence before and after."""
    style = styled(rng, record.one("kind"))
    after = record.one("after")
    wrong = record.spoiled(after)
    lead = pick(rng, f"rewrite_{record.one('kind')}")
    before = record.one("before")
    instruction, text = (f'{lead} "{before}"', "") if rng.random() < 0.2 else (lead, before)
    return Item(
        record.key,
        instruction,
        text,
        style.format(after),
        style.format(wrong) if wrong else "",
        answer=after,
    )


def voice_item(rng: Random, record: Record, deed: str) -> Item:
    """A change between active and passive; in the wrong twin the thing acts on the person."""
    parts = dict(part.split(": ", 1) for part in deed.split(" | "))
    agent, thing, time = record.one("agent"), parts["object"], pick(rng, "times")
    verb = f"{'was' if parts['number'] == 'one' else 'were'} {parts['by']}"
    active = capitalised(f"{agent} {parts['past']} {thing} {time}.")
    passive = capitalised(f"{thing} {verb} by {agent} {time}.")
    if rng.random() < 0.6:
        kind, before, after = "active", passive, active
        swapped = capitalised(f"{thing} {parts['past']} {agent} {time}.")
    else:
        kind, before, after = "passive", active, passive
        swapped = capitalised(f"{agent} {verb} by {thing} {time}.")
    lead = pick(rng, f"rewrite_{kind}")
    style = styled(rng, kind)
    return Item(
        f"{record.key}-{thing}",
        lead,
        before,
        style.format(after),
        style.format(swapped),
        answer=after,
    )
