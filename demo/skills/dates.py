"""Date, weekday and clock reasoning, computed with the standard calendar.

Each function draws one question in a wording from demo/content/dates.txt.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable
from datetime import date, datetime, timedelta
from random import Random

from .content import Record, filled, phrases, pick, read_records
from .item import Item, split_prompt
from .words import counted, two_names

NUM_ROUNDS = 10
ORDINALS = ("zeroth", "first", "second", "third", "fourth", "fifth")

Render = Callable[[str], str]


def make_dates(rng: Random) -> list[Item]:
    """Every kind of question `NUM_ROUNDS` times with fresh dates."""
    return [make(rng) for _ in range(NUM_ROUNDS) for make in KINDS]


def wording(kind: Callable[[Random], Item]) -> Record:
    """The record of demo/content/dates.txt that belongs to a kind of question."""
    return next(record for record in read_records("dates") if record.key == kind.__name__)


def ask(
    rng: Random,
    kind: Callable[[Random], Item],
    values: dict[str, object],
    render: Render,
    right: str,
    wrong: str,
) -> Item:
    """An item whose output is `render(right)` and whose wrong twin is `render(wrong)`."""
    asked = rng.choice(wording(kind).all("ask"))
    question = filled(asked, {"name": pick(rng, "names"), **values})
    instruction, text = split_prompt(rng, question, phrases("dates"))
    return Item(question, instruction, text, render(right), render(wrong), right)


def long_day(day: date) -> str:
    """`Tuesday, 5 March 2024`."""
    return f"{day:%A}, {short_day(day)}"


def short_day(day: date) -> str:
    """`5 March 2024`."""
    return f"{day.day} {day:%B %Y}"


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `4th`, `11th`, ... for the days of a month."""
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if 10 < number < 20 else endings.get(number % 10, 'th')}"


def duration(minutes: int) -> str:
    """`2 h 5 min`."""
    return f"{minutes // 60} h {minutes % 60} min"


def some_day(rng: Random) -> date:
    """A day between 2019 and 2026."""
    return date(2019, 1, 1) + timedelta(days=rng.randrange(365 * 8))


def days_left(day: date) -> int:
    """The days from a date to the end of its month."""
    return calendar.monthrange(day.year, day.month)[1] - day.day


def add_days(rng: Random) -> Item:
    """The date some days after another."""
    start, days = some_day(rng), rng.randint(9, 75)
    end, left = start + timedelta(days=days), days_left(start)

    def render(answer: str) -> str:
        if days <= left:
            within = f"{days} days still fit into {start:%B}: {start.day} + {days} = {end.day}."
            return f"{within} The date is {answer}."
        rest = f"so {days - left} days of the {days} go beyond it"
        month = f"{start:%B} has {counted(left, 'day')} left after the {ordinal(start.day)}"
        return f"{month}, {rest}. The date is {answer}."

    wrong = long_day(end + timedelta(days=rng.choice((-1, 1, 2))))
    return ask(
        rng, add_days, {"start": short_day(start), "days": days}, render, long_day(end), wrong
    )


def weekday_later(rng: Random) -> Item:
    """The weekday some days after a weekday."""
    start, days = some_day(rng), rng.randint(10, 120)
    weeks, rest = divmod(days, 7)
    end = start + timedelta(days=days)

    def render(answer: str) -> str:
        parts = f"{days} days are {counted(weeks, 'full week')} and {counted(rest, 'day')}."
        count = f"so we count {counted(rest, 'day')} on from {start:%A} and get to {answer}."
        return f"{parts} Full weeks do not change the weekday, {count}"

    values: dict[str, object] = {"weekday": f"{start:%A}", "days": days}
    wrong = end + timedelta(days=rng.choice((1, 6)))
    return ask(rng, weekday_later, values, render, f"{end:%A}", f"{wrong:%A}")


def days_between(rng: Random) -> Item:
    """The number of nights or days between two dates."""
    start = some_day(rng)
    end = start + timedelta(days=rng.randint(12, 58))
    days, left = (end - start).days, days_left(start)

    def render(answer: str) -> str:
        if start.month == end.month:
            reason = f"Both dates are in {start:%B}, so subtract the days"
            return f"{reason}: {end.day} - {start.day} = {answer}."
        first = f"From {start.day} {start:%B} to the end of that month it is {counted(left, 'day')}"
        return f"{first}. Counting on to {end.day} {end:%B} gives {answer} in total."

    values: dict[str, object] = {"start": short_day(start), "end": short_day(end)}
    wrong = f"{days + rng.choice((-1, 1, 3))}"
    return ask(rng, days_between, values, render, f"{days}", wrong)


def leap_year(rng: Random) -> Item:
    """Whether a year is a leap year."""
    centuries, fourths = range(1700, 2401, 100), range(1804, 2400, 4)
    year = rng.choice(rng.choice((centuries, fourths, range(1801, 2400))))
    if year % 100 == 0:
        reason = f"{year} is a full century, and only centuries that 400 divides are leap years"
    elif year % 4:
        reason = f"{year} ÷ 4 leaves a remainder of {year % 4}"
    else:
        reason = f"4 divides {year} and it is not a full century"

    def render(answer: str) -> str:
        verdict = "a" if answer == "366 days" else "not a"
        return f"{year} has {answer}: {reason}. So it is {verdict} leap year."

    right, wrong = ("366 days", "365 days") if calendar.isleap(year) else ("365 days", "366 days")
    return ask(rng, leap_year, {"year": year}, render, right, wrong)


def shift_length(rng: Random) -> Item:
    """The time between two clock times, less a break."""
    start = datetime(2024, 1, 1, rng.randint(5, 12), rng.choice((0, 10, 15, 20, 30, 45, 50)))
    worked, pause = rng.randrange(200, 560, 5), rng.choice((15, 20, 30, 45))
    end = start + timedelta(minutes=worked + pause)

    def render(answer: str) -> str:
        whole = f"From {start:%H:%M} to {end:%H:%M} it is {duration(worked + pause)}."
        return f"{whole} Minus the break of {pause} minutes, {answer} remain."

    values: dict[str, object] = {"start": f"{start:%H:%M}", "end": f"{end:%H:%M}", "pause": pause}
    wrong = duration(worked + rng.choice((pause, -10, 60)))
    return ask(rng, shift_length, values, render, duration(worked), wrong)


def arrival(rng: Random) -> Item:
    """Departure, travel time and delay."""
    start = datetime(2024, 1, 1, rng.randint(5, 21), rng.randrange(0, 60, 2))
    travel, delay = rng.randint(35, 400), rng.randint(3, 40)
    due = start + timedelta(minutes=travel)
    real = due + timedelta(minutes=delay)

    def render(answer: str) -> str:
        due_day, real_day = (" the next day" if t.day != start.day else "" for t in (due, real))
        return (
            f"Without the delay the arrival would be at {due:%H:%M}{due_day}. "
            f"With {delay} minutes more it is at {answer}{real_day}."
        )

    values = {"start": f"{start:%H:%M}", "travel": duration(travel), "delay": delay}
    vehicle = rng.choice(("train", "coach", "flight", "ferry"))
    wrong = real + timedelta(minutes=rng.choice((-10, 10, -delay)))
    return ask(
        rng, arrival, {"vehicle": vehicle, **values}, render, f"{real:%H:%M}", f"{wrong:%H:%M}"
    )


def nth_weekday(rng: Random) -> Item:
    """The date of the n-th weekday of a month."""
    first = date(rng.randint(2020, 2027), rng.randint(1, 12), 1)
    opening, n = first + timedelta(days=rng.randrange(7)), rng.randint(2, 4)
    found = opening + timedelta(weeks=n - 1)

    def render(answer: str) -> str:
        start = f"The first {found:%A} of the month is the {ordinal(opening.day)}."
        return f"{start} Adding {n - 1} × 7 days leads to {answer}."

    values: dict[str, object] = {
        "club": pick(rng, "meetings"),
        "nth": ORDINALS[n],
        "weekday": f"{found:%A}",
        "month": f"{first:%B %Y}",
        "first": f"{first:%A}",
    }
    wrong = short_day(opening + timedelta(weeks=n % 4))
    return ask(rng, nth_weekday, values, render, short_day(found), wrong)


def meeting_slot(rng: Random) -> Item:
    """The time that two people share."""
    first, second = two_names(rng)
    a, c = rng.randint(8, 12), rng.randint(9, 14)
    b, d = a + rng.randint(3, 6), c + rng.randint(3, 6)
    start, end = max(a, c), min(b, d)

    def render(answer: str) -> str:
        return (
            f"They can meet {answer}: both are free only after the later start, {start}:00, "
            f"and before the earlier end, {end}:00."
        )

    values: dict[str, object] = {"first": first, "second": second, "a": a, "b": b, "c": c, "d": d}
    values["what"] = pick(rng, "appointments")
    right = f"from {start}:00 to {end}:00" if start < end else "at no time"
    wrong = f"from {min(a, c)}:00 to {max(b, d)}:00"
    return ask(rng, meeting_slot, values, render, right, wrong)


def every_weeks(rng: Random) -> Item:
    """A date in a rhythm of some weeks."""
    start, weeks, times = some_day(rng), rng.randint(2, 6), rng.randint(2, 4)
    end = start + timedelta(weeks=weeks * times)

    def render(answer: str) -> str:
        return (
            f"Between the first and that appointment lie {times} intervals, "
            f"{times} × {weeks} = {times * weeks} weeks. "
            f"The weekday stays the same, so it is on {answer}."
        )

    values: dict[str, object] = {"start": long_day(start), "weeks": weeks}
    values |= {"place": pick(rng, "errands"), "nth": ORDINALS[times + 1]}
    wrong = long_day(end + timedelta(weeks=rng.choice((-1, weeks))))
    return ask(rng, every_weeks, values, render, long_day(end), wrong)


def age_on_date(rng: Random) -> Item:
    """Somebody's age on a given day."""
    born = date(1940, 1, 1) + timedelta(days=rng.randrange(365 * 75))
    today = date(rng.randint(2021, 2026), rng.randint(1, 12), rng.randint(1, 28))
    passed = (today.month, today.day) >= (born.month, born.day)
    years = today.year - born.year
    age = years if passed else years - 1

    def render(answer: str) -> str:
        state = "has already passed" if passed else "is still to come"
        span = f"From {born.year} to {today.year} it is {years} years"
        return f"{span}, and the birthday {state} that year. The answer is {answer}."

    values: dict[str, object] = {"born": short_day(born), "today": short_day(today)}
    wrong = f"{age - 1 if passed else age + 1} years"
    return ask(rng, age_on_date, values, render, f"{age} years", wrong)


def time_zone(rng: Random) -> Item:
    """A call between two cities with a given difference in time."""
    first, second = two_names(rng)
    west, east, hours = pick(rng, "time_zones").split(", ")
    minutes = int(float(hours) * 60)
    start = datetime(2024, 1, 10, rng.randint(6, 20), rng.choice((0, 15, 30, 45)))
    there, wrong = start + timedelta(minutes=minutes), start - timedelta(minutes=minutes)
    gap = counted(minutes // 60, "hour") + (" and 30 minutes" if minutes % 60 else "")
    suffix = " on the next day" if there.day != start.day else ""

    def render(answer: str) -> str:
        return (
            f"{east} is ahead, so add {gap} to {start:%H:%M}. "
            f"For {second} in {east} it is {answer}."
        )

    values: dict[str, object] = {"first": first, "second": second, "west": west, "east": east}
    values |= {"gap": gap, "start": f"{start:%H:%M}"}
    return ask(rng, time_zone, values, render, f"{there:%H:%M}{suffix}", f"{wrong:%H:%M}")


def sort_dates(rng: Random) -> Item:
    """Dates in chronological order."""
    events = rng.sample(wording(sort_dates).one("words").split("; "), 4)
    base = some_day(rng)
    offsets = rng.sample(range(1, 500), 4)
    days = {e: base + timedelta(days=offset) for e, offset in zip(events, offsets, strict=True)}
    right = sorted(events, key=lambda event: days[event])
    first, last = days[right[0]], days[right[-1]]

    def render(answer: str) -> str:
        span = f"The first of them was in {first:%B %Y}, the last in {last:%B %Y}."
        return f"In order of time: {answer}. {span}"

    listed = "; ".join(f"{event}: {short_day(day)}" for event, day in days.items())
    swapped = ", ".join([right[1], right[0], *right[2:]])
    return ask(rng, sort_dates, {"listed": listed}, render, ", ".join(right), swapped)


KINDS: tuple[Callable[[Random], Item], ...] = (
    add_days,
    weekday_later,
    days_between,
    leap_year,
    shift_length,
    arrival,
    nth_weekday,
    meeting_slot,
    every_weeks,
    age_on_date,
    time_zone,
    sort_dates,
)
