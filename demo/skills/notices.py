"""Everyday notices with known facts: what the extraction skill reads its answers from.

The wordings and the lists to draw from are in demo/content/notices.txt. Each function adds the
facts that are drawn from elsewhere: names, dates, prices. What phrases.txt lists as `unasked` fills
the text but is not asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from .content import filled, phrases, pick, read_records
from .words import CITIES, NAMES, counted, full_name, joined

Facts = dict[str, str]


def make_notice(rng: Random, kind: Callable[[Random, Facts], Facts]) -> tuple[str, Facts]:
    """A notice of a kind as a text, and the facts that one may ask for."""
    record = next(record for record in read_records("notices") if record.key == kind.__name__)
    lists = dict(line.split(": ", 1) for line in record.all("draw"))
    drawn = {name: rng.choice(options.split("; ")) for name, options in lists.items()}
    facts = {**drawn, **kind(rng, drawn)}
    asked = {name: value for name, value in facts.items() if name not in phrases("unasked")}
    return filled(rng.choice(record.all("text")), facts), asked


def day(rng: Random) -> str:
    """`14 May`."""
    return f"{rng.randint(1, 28)} {pick(rng, 'months')}"


def clock(rng: Random, low: int = 7, high: int = 20) -> str:
    """`18:30`."""
    return f"{rng.randint(low, high)}:{rng.choice(('00', '15', '30', '45'))}"


def phone(rng: Random) -> str:
    """A telephone number of the form 555-0142, which nobody owns."""
    return f"555-{rng.randint(100, 199):04d}"


def euros(rng: Random, low: int, high: int) -> str:
    """`37.90 euros`."""
    return f"{rng.randint(low, high)}.{rng.choice((20, 50, 90, 95))} euros"


def event(rng: Random, drawn: Facts) -> Facts:
    """An invitation to a public event."""
    host, price = full_name(rng), f"{rng.randint(3, 18)} euros"
    place = {"city": pick(rng, "cities"), "date": day(rng), "start": clock(rng, 10, 20)}
    return {**place, "host": host, "price": price}


def order(rng: Random, drawn: Facts) -> Facts:
    """An order confirmation."""
    return {
        "customer": full_name(rng),
        "order number": f"{rng.choice('ABKMR')}{rng.randint(10000, 99999)}",
        "quantity": str(rng.randint(1, 6)),
        "total": euros(rng, 12, 240),
        "address": f"{rng.randint(1, 90)} {pick(rng, 'streets')}",
        "delivery date": day(rng),
    }


def job(rng: Random, drawn: Facts) -> Facts:
    """A job advertisement."""
    return {
        "company": f"{pick(rng, 'surnames')} & {rng.choice(('Sons', 'Partners', 'Daughters'))}",
        "city": pick(rng, "cities"),
        "weekly hours": f"{rng.randint(20, 40)} hours",
        "salary": f"{rng.randint(24, 58)},000 euros a year",
        "deadline": day(rng),
        "contact": full_name(rng),
    }


def flat(rng: Random, drawn: Facts) -> Facts:
    """A flat to let."""
    rooms = rng.randint(1, 5)
    return {
        "address": f"{rng.randint(2, 80)} {pick(rng, 'streets')}",
        "rooms": str(rooms),
        "room count": counted(rooms, "room"),
        "size": f"{rng.randint(24, 30) + 18 * rooms} square metres",
        "rent": f"{rng.randrange(400, 600, 10) + 180 * rooms} euros",
        "move-in date": f"1 {pick(rng, 'months')}",
        "phone": phone(rng),
    }


def journey(rng: Random, drawn: Facts) -> Facts:
    """A travel booking."""
    origin, destination = rng.sample(CITIES, 2)
    return {
        "passenger": full_name(rng),
        "train": f"{rng.choice(('IC', 'EC', 'RE'))} {rng.randint(100, 999)}",
        "origin": origin,
        "destination": destination,
        "date": day(rng),
        "departure": clock(rng, 5, 15),
        "coach": str(rng.randint(1, 9)),
        "seat": f"{rng.randint(11, 98)}{rng.choice('AB')}",
        "price": euros(rng, 19, 140),
    }


def lost(rng: Random, drawn: Facts) -> Facts:
    """A lost-and-found notice."""
    reward = f"{rng.randrange(10, 110, 10)} euros"
    contact = {"contact": full_name(rng), "phone": phone(rng)}
    return {"day": pick(rng, "weekdays"), "reward": reward, **contact}


def voicemail(rng: Random, drawn: Facts) -> Facts:
    """A message left on the phone."""
    institution, subject, bring = drawn["matter"].split(", ")
    caller = {"caller": full_name(rng), "phone": phone(rng)}
    appointment = {"day": pick(rng, "weekdays"), "time": clock(rng, 8, 17)}
    return {**caller, **appointment} | {
        "institution": institution,
        "subject": subject,
        "item to bring": bring,
    }


def match(rng: Random, drawn: Facts) -> Facts:
    """A short match report."""
    home, away = rng.sample(CITIES, 2)
    scorer, coach = (f"{name} {pick(rng, 'surnames')}" for name in rng.sample(NAMES, 2))
    return {
        "home team": home,
        "away team": away,
        "score": f"{rng.randint(1, 5)}:{rng.randint(0, 4)}",
        "first scorer": scorer,
        "first goal": f"minute {rng.randint(2, 89)}",
        "spectators": f"{rng.randint(2, 38)},{rng.randint(100, 999)}",
        "coach": coach,
    }


def minutes(rng: Random, drawn: Facts) -> Facts:
    """Notes of a meeting."""
    people = [f"{name} {pick(rng, 'surnames')}" for name in rng.sample(NAMES, 3)]
    record = next(record for record in read_records("notices") if record.key == "minutes")
    tasks = rng.sample(record.one("draw").removeprefix("task: ").split("; "), 3)
    facts = {"date": day(rng), "next meeting": f"{day(rng)}, {clock(rng, 9, 17)}"}
    for place, person, task in zip(("first", "second", "third"), people, tasks, strict=True):
        facts[place], facts[f"{place} task"] = person, task
        facts[f"task of {person.split()[0]}"] = task
    return {**facts, "participants": joined(people)}


def product(rng: Random, drawn: Facts) -> Facts:
    """A product description."""
    record = next(record for record in read_records("notices") if record.key == "product")
    lists = dict(line.split(": ", 1) for line in record.all("draw"))
    colours = rng.sample(lists["colour"].split("; "), 2)
    return {
        "model": f"{drawn['brand']} {rng.choice('SXT')}{rng.randint(2, 90)}",
        "weight": f"{rng.randint(150, 990)} g",
        "warranty": counted(rng.randint(1, 5), "year"),
        "price": f"{rng.randint(19, 299)} euros",
        "colours": ", ".join(colours),
        "both colours": joined(colours),
    }


def biography(rng: Random, drawn: Facts) -> Facts:
    """A short life story of an invented person."""
    profession, achievement = drawn["life"].split(", ")
    born = rng.randint(1840, 1950)
    year = born + rng.randint(24, 50)
    return {
        "name": full_name(rng),
        "profession": profession,
        "achievement": achievement,
        "year of birth": str(born),
        "place of birth": pick(rng, "cities"),
        "year": str(year),
        "year of death": str(year + rng.randint(3, 30)),
    }


def enquiry(rng: Random, drawn: Facts) -> Facts:
    """A mail from a possible guest."""
    name, adults, children = full_name(rng), rng.randint(1, 4), rng.randint(1, 3)
    domain = rng.choice(("example.org", "example.com", "example.net"))
    return {
        "name": name,
        "arrival": day(rng),
        "nights": str(rng.randint(2, 14)),
        "adults": str(adults),
        "children": str(children),
        "party": f"{counted(adults, 'adult')} and {counted(children, 'child')}",
        "e-mail": f"{name.lower().replace(' ', '.')}@{domain}",
        "phone": phone(rng),
    }


NOTICES: tuple[Callable[[Random, Facts], Facts], ...] = (
    event,
    order,
    job,
    flat,
    journey,
    lost,
    voicemail,
    match,
    minutes,
    product,
    biography,
    enquiry,
)
