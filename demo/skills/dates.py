"""Date, weekday and clock reasoning, computed with the standard calendar."""

from __future__ import annotations

import calendar
from collections.abc import Callable
from datetime import date, datetime, timedelta
from random import Random

from .item import Item, split_prompt
from .words import NAMES, counted, two_names

NUM_ROUNDS = 10
LEADS = (
    "", "", "", "", "", "", "Answer the question about dates and times.", "Think about the calendar and answer.",
    "Please work this out for me.", "Give the answer and one sentence of explanation.",
)
ERRANDS = ("the dentist", "the tax office", "the vet", "the garage", "the optician", "the bank", "the housing office")
NUMBER_WORDS = {1: "first", 2: "second", 3: "third", 4: "fourth"}


def day_text(day: date) -> str:
    """`Tuesday, 5 March 2024`."""
    return f"{day:%A}, {day.day} {day:%B %Y}"


def short_day(day: date) -> str:
    """`5 March 2024`."""
    return f"{day.day} {day:%B %Y}"


def some_day(rng: Random) -> date:
    """A day between 2019 and 2027."""
    return date(2019, 1, 1) + timedelta(days=rng.randrange(365 * 8))


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `4th`, `11th`, ... for the days of a month."""
    suffix = "th" if 10 < number < 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def item(rng: Random, question: str, render: Callable[[str], str], answer: str, wrong: str) -> Item:
    """An item whose output is `render(answer)` and whose wrong twin is `render(wrong)`."""
    instruction, text = split_prompt(rng, question, LEADS)
    return Item(question, instruction, text, render(answer), render(wrong), answer)


def add_days(rng: Random) -> Item:
    """The date some days after another."""
    start, days, name = some_day(rng), rng.randint(9, 75), rng.choice(NAMES)
    end = start + timedelta(days=days)
    event = rng.choice(("{n} orders a passport on {d}. It takes {k} days.", "{n} puts cider into barrels on {d}. It has to stand for {k} days.",
                        "A fine dated {d} must be paid within {k} days.", "{n} starts a diet on {d} and wants to keep it up for {k} days."))
    question = f"{event.format(n=name, d=short_day(start), k=days)} Which date is {days} days later?"
    left = calendar.monthrange(start.year, start.month)[1] - start.day

    def render(answer: str) -> str:
        if days <= left:
            return f"{days} days still fit into {start:%B}: {start.day} + {days} = {start.day + days}. The date is {answer}."
        return f"{start:%B} has {counted(left, 'day')} left after the {ordinal(start.day)}, so {days - left} days of the {days} go beyond it. The date is {answer}."

    return item(rng, question, render, day_text(end), day_text(end + timedelta(days=rng.choice((-1, 1, 2)))))


def weekday_later(rng: Random) -> Item:
    """The weekday some days after a weekday."""
    start, days, name = some_day(rng), rng.randint(10, 120), rng.choice(NAMES)
    weeks, rest = divmod(days, 7)
    end = start + timedelta(days=days)
    question = rng.choice((
        f"Today is a {start:%A}. {name}'s exam is in {days} days. On which weekday is it?",
        f"If today is {start:%A}, what weekday will it be {days} days from now, when {name}'s lease ends?",
        f"{name} waters the cactus every {days} days and did so on a {start:%A}. Which weekday is next?",
    ))

    def render(answer: str) -> str:
        return (f"{days} days are {counted(weeks, 'full week')} and {counted(rest, 'day')}. Full weeks do not change the weekday, "
                f"so we count {counted(rest, 'day')} on from {start:%A} and get to {answer}.")

    return item(rng, question, render, f"{end:%A}", f"{end + timedelta(days=rng.choice((1, 6))):%A}")


def days_between(rng: Random) -> Item:
    """The number of nights or days between two dates in one year."""
    start = some_day(rng)
    end = start + timedelta(days=rng.randint(12, 58))
    days, name = (end - start).days, rng.choice(NAMES)
    question = rng.choice((
        f"{name} moves into a hotel on {short_day(start)} and leaves on {short_day(end)}. How many nights is that?",
        f"How many days pass from {short_day(start)} to {short_day(end)}?",
        f"A construction site was set up on {short_day(start)} and cleared on {short_day(end)}. How many days later was that?",
    ))
    left = calendar.monthrange(start.year, start.month)[1] - start.day

    def render(answer: str) -> str:
        if start.month == end.month:
            return f"Both dates are in {start:%B}, so subtract the days: {end.day} - {start.day} = {answer}."
        return f"From {start.day} {start:%B} to the end of that month it is {counted(left, 'day')}. Counting on to {end.day} {end:%B} gives {answer} in total."

    return item(rng, question, render, f"{days}", f"{days + rng.choice((-1, 1, 3))}")


def leap_year(rng: Random) -> Item:
    """Whether a year is a leap year."""
    year = rng.choice((rng.randrange(1700, 2401, 100), rng.randrange(1804, 2400, 4), rng.randrange(1801, 2400)))
    leap = calendar.isleap(year)
    if year % 100 == 0:
        reason = f"{year} is a full century, and only centuries that 400 divides are leap years"
    else:
        reason = f"{year} ÷ 4 leaves a remainder of {year % 4}" if year % 4 else f"4 divides {year} and it is not a full century"
    question = rng.choice((
        f"Is {year} a leap year?", f"Does February {year} have a 29th day?", f"How many days does the year {year} have?",
    ))

    def render(answer: str) -> str:
        return f"{year} has {answer}: {reason}. So it is {'a' if answer == '366 days' else 'not a'} leap year."

    return item(rng, question, render, "366 days" if leap else "365 days", "365 days" if leap else "366 days")


def shift_length(rng: Random) -> Item:
    """The time between two clock times, with a break."""
    start = datetime(2024, 1, 1, rng.randint(5, 12), rng.choice((0, 10, 15, 20, 30, 45, 50)))
    worked, pause = rng.randrange(200, 560, 5), rng.choice((15, 20, 30, 45))
    end, name = start + timedelta(minutes=worked + pause), rng.choice(NAMES)
    question = (f"{name} begins work at {start:%H:%M} and stops at {end:%H:%M}, with a break of {pause} minutes. "
                f"How long is the working time?")

    def render(answer: str) -> str:
        return (f"From {start:%H:%M} to {end:%H:%M} it is {duration(worked + pause)}. "
                f"Minus the break of {pause} minutes, {answer} remain.")

    return item(rng, question, render, duration(worked), duration(worked + rng.choice((pause, -10, 60))))


def duration(minutes: int) -> str:
    """`2 h 5 min`."""
    return f"{minutes // 60} h {minutes % 60} min"


def arrival(rng: Random) -> Item:
    """Departure, travel time and delay."""
    start = datetime(2024, 1, 1, rng.randint(5, 21), rng.randrange(0, 60, 2))
    travel, delay = rng.randint(35, 400), rng.randint(3, 40)
    vehicle = rng.choice(("train", "coach", "flight", "ferry"))
    due, real = start + timedelta(minutes=travel), start + timedelta(minutes=travel + delay)
    next_day = " the next day" if real.day != start.day else ""
    due_next = " the next day" if due.day != start.day else ""
    question = (f"A {vehicle} leaves at {start:%H:%M} and normally takes {duration(travel)}. Today it arrives {delay} minutes late. "
                f"At what time does it arrive?")

    def render(answer: str) -> str:
        return f"It would normally arrive at {due:%H:%M}{due_next}. With the delay of {delay} minutes it arrives at {answer}{next_day}."

    wrong = real + timedelta(minutes=rng.choice((-10, 10, -delay)))
    return item(rng, question, render, f"{real:%H:%M}", f"{wrong:%H:%M}")


def nth_weekday(rng: Random) -> Item:
    """The date of the n-th weekday of a month."""
    year, month = rng.randint(2020, 2027), rng.randint(1, 12)
    weekday, n = rng.randrange(7), rng.randint(2, 4)
    first = date(year, month, 1)
    opening = first + timedelta(days=(weekday - first.weekday()) % 7)
    found, club = opening + timedelta(weeks=n - 1), rng.choice(("chess club", "choir", "book club", "residents' meeting", "flea market"))
    question = (f"The {club} meets on the {NUMBER_WORDS[n]} {found:%A} of every month. "
                f"1 {first:%B %Y} is a {first:%A}. On which date does it meet in that month?")

    def render(answer: str) -> str:
        return f"The first {found:%A} of the month is the {ordinal(opening.day)}. Adding {n - 1} × 7 days leads to {answer}."

    return item(rng, question, render, short_day(found), short_day(opening + timedelta(weeks=n % 4)))


def meeting_slot(rng: Random) -> Item:
    """The time two people share."""
    first, second = two_names(rng)
    a, c = rng.randint(8, 12), rng.randint(9, 14)
    b, d = a + rng.randint(3, 6), c + rng.randint(3, 6)
    start, end = max(a, c), min(b, d)
    question = (f"{first} is free from {a}:00 to {b}:00 and {second} from {c}:00 to {d}:00. "
                f"During which hours can they meet for {rng.choice(('a rehearsal', 'a call', 'lunch', 'a walk', 'a review'))}, if at all?")
    answer = f"from {start}:00 to {end}:00" if start < end else "at no time"
    wrong = f"from {min(a, c)}:00 to {max(b, d)}:00"

    def render(text: str) -> str:
        return (f"They can meet {text}: both are free only after the later start, {start}:00, "
                f"and before the earlier end, {end}:00.")

    return item(rng, question, render, answer, wrong)


def every_weeks(rng: Random) -> Item:
    """A date in a rhythm of some weeks."""
    start, weeks, times, name = some_day(rng), rng.randint(2, 6), rng.randint(2, 4), rng.choice(NAMES)
    end = start + timedelta(weeks=weeks * times)
    question = (f"{name} goes to {rng.choice(ERRANDS)} every {weeks} weeks, the first time on {day_text(start)}. "
                f"When is the {NUMBER_WORDS.get(times + 1, 'fifth')} appointment?")

    def render(answer: str) -> str:
        return (f"Between the first and that appointment lie {times} intervals, {times} × {weeks} = {times * weeks} weeks. "
                f"The weekday stays the same, so it is on {answer}.")

    return item(rng, question, render, day_text(end), day_text(end + timedelta(weeks=rng.choice((-1, weeks)))))


def age_on_date(rng: Random) -> Item:
    """Somebody's age on a given day."""
    name = rng.choice(NAMES)
    born = date(1940, 1, 1) + timedelta(days=rng.randrange(365 * 75))
    today = date(rng.randint(2021, 2026), rng.randint(1, 12), rng.randint(1, 28))
    had = (today.month, today.day) >= (born.month, born.day)
    age = today.year - born.year - (not had)
    question = f"{name} was born on {short_day(born)}. How old is {name} on {short_day(today)}?"

    def render(answer: str) -> str:
        state = "has already passed" if had else "is still to come"
        return f"From {born.year} to {today.year} it is {today.year - born.year} years, and the birthday {state} that year, so {name} is {answer}."

    return item(rng, question, render, f"{age} years old", f"{age - 1 if had else age + 1} years old")


def time_zone(rng: Random) -> Item:
    """A call between two cities with a given difference in time."""
    first, second = two_names(rng)
    west, east, hours = rng.choice((("Lisbon", "Berlin", 1), ("New York", "Rome", 6), ("Denver", "Montreal", 2), ("Lima", "Nairobi", 8),
                                    ("Berlin", "Mumbai", 4), ("London", "Tokyo", 9), ("Accra", "Dubai", 4)))
    minutes = 30 if east == "Mumbai" else 0
    start = datetime(2024, 1, 10, rng.randint(6, 20), rng.choice((0, 15, 30, 45)))
    there = start + timedelta(hours=hours, minutes=minutes)
    gap = f"{hours} hours" + (f" and {minutes} minutes" if minutes else "")
    gap = gap.replace("1 hours", "one hour")
    suffix = " on the next day" if there.day != start.day else ""
    question = (f"In winter, clocks in {east} are {gap} ahead of {west}. {first} calls {second} in {east} from {west} at {start:%H:%M}. "
                f"What time is it for {second}?")

    def render(answer: str) -> str:
        return f"{east} is ahead, so add {gap} to {start:%H:%M}. It is {answer} for {second}."

    wrong = start - timedelta(hours=hours, minutes=minutes)
    return item(rng, question, render, f"{there:%H:%M}{suffix}", f"{wrong:%H:%M}")


def sort_dates(rng: Random) -> Item:
    """Dates in chronological order."""
    events = rng.sample(("the wedding", "the driving test", "the move", "the trip to Porto", "the flu", "the job interview", "the flood",
                         "the school play", "the new bike", "the garden party"), 4)
    base = some_day(rng)
    days = {event: base + timedelta(days=rng.randrange(1, 500)) for event in events}
    listed = "; ".join(f"{event}: {short_day(day)}" for event, day in days.items())
    question = f"{rng.choice(NAMES)} keeps a diary. Put these events in order, the earliest first: {listed}."
    right = sorted(events, key=lambda event: days[event])
    swapped = [right[1], right[0], *right[2:]]

    def render(answer: str) -> str:
        return f"In order of time: {answer}. The first of them took place in {days[right[0]]:%B %Y}, the last in {days[right[-1]]:%B %Y}."

    return item(rng, question, render, ", ".join(right), ", ".join(swapped))


KINDS: tuple[Callable[[Random], Item], ...] = (
    add_days, weekday_later, days_between, leap_year, shift_length, arrival, nth_weekday, meeting_slot, every_weeks,
    age_on_date, time_zone, sort_dates,
)


def make_dates(rng: Random) -> list[Item]:
    """Every kind of question `NUM_ROUNDS` times with fresh dates."""
    return [make(rng) for _ in range(NUM_ROUNDS) for make in KINDS]
