"""The numbers of word problems about travel, cooking, school, work and space.

Each function draws the values that the record of the same name in demo/content/problems.txt is
filled with; `result` is the answer as it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from .content import pick
from .words import counted, two_names

Values = Mapping[str, object]


def trays(rng: Random) -> Values:
    """Made, sold, left over."""
    count, per_tray = rng.randint(4, 14), rng.randint(8, 24)
    made = count * per_tray
    sold = rng.randint(made // 2, made - 3)
    return (
        {"name": pick(rng, "names"), "thing": pick(rng, "baked")}
        | {"trays": count, "per_tray": per_tray, "made": made, "sold": sold}
        | {"result": made - sold}
    )


def bus_stops(rng: Random) -> Values:
    """Passengers getting on and off."""
    start, off, on = rng.randint(15, 40), rng.randint(3, 12), rng.randint(2, 15)
    off_later, middle = rng.randint(2, 5), start - off + on
    return (
        {"vehicle": pick(rng, "public_transport"), "city": pick(rng, "cities")}
        | {"start": start, "off": off, "on": on, "off_later": off_later, "middle": middle}
        | {"result": middle - off_later}
    )


def two_legs(rng: Random) -> Values:
    """Distance travelled at two speeds."""
    how, low, high = rng.choice(
        (("cycles", 12, 24), ("drives", 50, 110), ("walks", 4, 6), ("paddles", 3, 8))
    )
    first, second = rng.randint(low, high), rng.randint(low, high)
    m, n = rng.randint(2, 4), rng.randint(1, 3)
    return (
        {"name": pick(rng, "names"), "how": how, "first": first, "second": second}
        | {"m": m, "n": counted(n, "hour"), "n_hours": n, "a": m * first, "b": n * second}
        | {"result": f"{m * first + n * second} km"}
    )


def recipe(rng: Random) -> Values:
    """Scaling a recipe to another number of people."""
    dish, stuff = pick(rng, "dishes").split(" of ")
    served, guests = rng.choice((2, 4, 5, 6)), rng.randint(7, 15)
    per_head = rng.randrange(60, 180, 10)
    return (
        {"name": pick(rng, "names"), "dish": dish, "stuff": stuff}
        | {"served": served, "guests": guests, "per_head": per_head}
        | {"amount": served * per_head, "result": f"{guests * per_head} g"}
    )


def ages(rng: Random) -> Values:
    """Ages now and in some years."""
    young, old = two_names(rng)
    age, years = rng.randint(4, 14), rng.randint(3, 12)
    factor, word = rng.choice(((2, "twice"), (3, "three times"), (4, "four times")))
    return (
        {"young": young, "old": old, "age": age, "years": years}
        | {"factor": factor, "word": word, "older": factor * age}
        | {"a": age + years, "b": factor * age + years}
        | {"result": age + factor * age + 2 * years}
    )


def rectangle(rng: Random) -> Values:
    """Fence of a rectangular garden."""
    length, width, gate = rng.randint(8, 30), rng.randint(5, 18), rng.randint(1, 3)
    around = 2 * (length + width)
    return {"name": pick(rng, "names"), "length": length, "width": width, "gate": gate} | {
        "around": around,
        "result": f"{around - gate} m",
    }


def tiles(rng: Random) -> Values:
    """Boxes of tiles for a floor, rounded up."""
    rows, columns = rng.randint(8, 20), rng.randint(6, 16)
    per_box = rng.choice((8, 10, 12, 20))
    needed = rows * columns
    full, boxes = needed // per_box, -(-needed // per_box)
    exact = f"The number of boxes is {needed} ÷ {per_box} = {boxes}."
    more = f"{full} boxes hold only {full * per_box} tiles, so one more is needed"
    return (
        {"name": pick(rng, "names"), "room": pick(rng, "rooms")}
        | {"rows": rows, "columns": columns, "per_box": per_box, "needed": needed}
        | {"last": exact if full == boxes else f"{more}: {full} + 1 = {boxes}.", "result": boxes}
    )


def reading(rng: Random) -> Values:
    """Days needed to finish a book."""
    daily, days, done = rng.randint(12, 40), rng.randint(5, 14), rng.randint(30, 120)
    return (
        {"name": pick(rng, "names"), "daily": daily, "done": done}
        | {"rest": daily * days, "pages": daily * days + done}
        | {"result": days}
    )


def average_score(rng: Random) -> Values:
    """The mean of some scores; the last one makes it come out even."""
    count = rng.choice((3, 4, 5))
    scores = [rng.randint(8, 40) for _ in range(count - 1)]
    scores.append(count - sum(scores) % count + rng.randint(2, 6) * count)
    return (
        {"name": pick(rng, "names"), "what": pick(rng, "counted_things")}
        | {
            "listed": f"{', '.join(map(str, scores[:-1]))} and {scores[-1]}",
            "summed": " + ".join(map(str, scores)),
        }
        | {"total": sum(scores), "count": count}
        | {"result": sum(scores) // count}
    )


def share_leftover(rng: Random) -> Values:
    """Division with a remainder."""
    children, each, rest = rng.randint(4, 9), rng.randint(6, 19), rng.randint(1, 3)
    return (
        {"name": pick(rng, "names"), "thing": pick(rng, "small_things")}
        | {"children": children, "each": each, "given": children * each}
        | {"total": children * each + rest, "result": rest}
    )


def tank(rng: Random) -> Values:
    """Filling and draining at constant rates."""
    inflow, outflow = rng.randint(12, 30), rng.randint(2, 9)
    minutes, start = rng.randint(8, 30), rng.randrange(20, 120, 10)
    net = inflow - outflow
    return (
        {"vessel": pick(rng, "vessels")}
        | {"inflow": inflow, "outflow": outflow, "minutes": minutes, "start": start}
        | {"net": net, "added": minutes * net}
        | {"result": f"{start + minutes * net} litres"}
    )


def percent_of_group(rng: Random) -> Values:
    """A percentage of a group, and the rest."""
    total = rng.choice((40, 60, 80, 120, 200, 240, 300, 360))
    percent = rng.choice((15, 20, 25, 30, 35, 40, 45, 60))
    part = total * percent // 100
    return (
        {"place": pick(rng, "clubs"), "what": pick(rng, "habits")}
        | {"total": total, "percent": percent, "part": part}
        | {"result": total - part}
    )


def workers(rng: Random) -> Values:
    """Work shared by more people."""
    few, times = rng.randint(2, 6), rng.choice((2, 3))
    days = rng.choice((6, 8, 10, 12, 15)) * times
    return (
        {"job": pick(rng, "jobs")}
        | {"few": few, "days": days, "many": few * times, "work": few * days}
        | {"result": f"{days // times} days"}
    )


def fraction_left(rng: Random) -> Values:
    """A fraction used, then a fraction of the rest."""
    first, second = rng.choice(((2, 3), (3, 4), (4, 3), (2, 5), (3, 5), (5, 2)))
    total = first * second * rng.randint(3, 12)
    gone = total // first
    rest = total - gone
    given = rest // second
    assert given * second == rest, "the second fraction must come out even"
    return (
        {"name": pick(rng, "names"), "thing": pick(rng, "supplies")}
        | {"first": first, "second": second, "total": total}
        | {"gone": gone, "rest": rest, "given": given}
        | {"result": rest - given}
    )


def ratio(rng: Random) -> Values:
    """A mixture in a given ratio."""
    mix, a, b = pick(rng, "mixtures").split(", ")
    p, q, unit = rng.randint(1, 3), rng.randint(4, 7), rng.randrange(40, 260, 20)
    return (
        {"name": pick(rng, "names"), "mix": mix, "a": a, "b": b}
        | {"p": p, "q": q, "parts": p + q, "unit": unit, "total": (p + q) * unit}
        | {"result": f"{q * unit} g"}
    )


def seats(rng: Random) -> Values:
    """Seats in rows, some taken."""
    rows, per_row = rng.randint(12, 30), rng.randint(14, 28)
    adults, children = rng.randint(60, 110), rng.randint(25, 58)
    return (
        {"city": pick(rng, "cities")}
        | {"rows": rows, "per_row": per_row, "adults": adults, "children": children}
        | {"total": rows * per_row, "people": adults + children}
        | {"result": rows * per_row - adults - children}
    )


def steps_goal(rng: Random) -> Values:
    """Steps over a week against a goal."""
    goal, days = rng.randrange(6000, 11000, 500), rng.randint(3, 6)
    usual = goal - rng.randrange(500, 2500, 250)
    return (
        {"name": pick(rng, "names")}
        | {"goal": f"{goal:,}", "days": days, "usual": f"{usual:,}"}
        | {"needed": f"{goal * 7:,}", "walked": f"{usual * days:,}"}
        | {"result": f"{goal * 7 - usual * days:,} steps"}
    )


EVERYDAY_PROBLEMS: tuple[Callable[[Random], Values], ...] = (
    trays,
    bus_stops,
    two_legs,
    recipe,
    ages,
    rectangle,
    tiles,
    reading,
    average_score,
    share_leftover,
    tank,
    percent_of_group,
    workers,
    fraction_left,
    ratio,
    seats,
    steps_goal,
)
