"""The numbers of word problems about prices, wages and savings.

Each function draws the values that the record of the same name in demo/content/problems.txt is
filled with; `result` is the answer as it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from .content import phrases, pick
from .words import two_names

Values = Mapping[str, object]


def money(cents: int) -> str:
    """Cents as dollars: `$7` when even, else `$7.50`."""
    dollars, rest = divmod(cents, 100)
    return f"${dollars}.{rest:02d}" if rest else f"${dollars}"


def change_from_note(rng: Random) -> Values:
    """Two kinds of goods, paid with a note."""
    first, second = rng.sample(phrases("goods"), 2)
    m, n = rng.randint(2, 5), rng.randint(2, 4)
    p, q = rng.randrange(150, 700, 25), rng.randrange(200, 600, 50)
    total = m * p + n * q
    note = 5000 if total < 5000 else 10000
    return (
        {"name": pick(rng, "names"), "first": first, "second": second}
        | {"m": m, "n": n, "p": money(p), "q": money(q), "a": money(m * p), "b": money(n * q)}
        | {"note": money(note), "total": money(total), "result": money(note - total)}
    )


def weekly_saving(rng: Random) -> Values:
    """Weeks until a price is reached."""
    saved, weekly, weeks = rng.randrange(10, 90, 5), rng.randrange(6, 25), rng.randint(4, 15)
    return {
        "name": pick(rng, "names"),
        "thing": pick(rng, "wishes"),
        "price": saved + weekly * weeks,
        "saved": saved,
        "weekly": weekly,
        "missing": weekly * weeks,
        "result": weeks,
    }


def hourly_wage(rng: Random) -> Values:
    """Pay for a week with overtime."""
    rate, hours, extra = rng.randrange(12, 26, 2), rng.randint(30, 40), rng.randint(2, 8)
    high = rate * 3 // 2
    return (
        {"name": pick(rng, "names"), "place": pick(rng, "workplaces")}
        | {"rate": rate, "hours": hours, "extra": extra, "high": high}
        | {"base": rate * hours, "more": high * extra}
        | {"result": f"${rate * hours + high * extra}"}
    )


def discount(rng: Random) -> Values:
    """Price after a percentage off and a fixed voucher."""
    price, percent = rng.randrange(40, 200, 20), rng.choice((10, 15, 20, 25, 30))
    voucher = rng.choice((5, 8, 10))
    off = price * percent  # in cents
    return (
        {"name": pick(rng, "names"), "thing": pick(rng, "purchases")}
        | {"price": price, "percent": percent, "voucher": voucher, "off": money(off)}
        | {"reduced": money(price * 100 - off), "result": money(price * 100 - off - voucher * 100)}
    )


def shared_bill(rng: Random) -> Values:
    """A bill with tip split between friends."""
    friends = rng.randint(3, 8)
    bill = rng.randrange(900, 2400, 150) * friends
    tip = friends * rng.choice((100, 150, 200))
    return (
        {"name": pick(rng, "names"), "snack": pick(rng, "snack"), "friends": friends}
        | {"bill": money(bill), "tip": money(tip), "total": money(bill + tip)}
        | {"result": money((bill + tip) // friends)}
    )


def family_tickets(rng: Random) -> Values:
    """Entrance for adults and children."""
    adults, children = rng.randint(2, 6), rng.randint(3, 9)
    full, half = rng.randrange(12, 24, 2), rng.randrange(5, 11)
    return (
        {"place": pick(rng, "sights")}
        | {"adults": adults, "children": children, "full": full, "half": half}
        | {"a": adults * full, "b": children * half}
        | {"result": f"${adults * full + children * half}"}
    )


def profit(rng: Random) -> Values:
    """Profit of a stall."""
    made, price, cost = rng.randrange(30, 90, 5), rng.randrange(3, 8), rng.randrange(20, 80, 5)
    left = rng.randint(2, 9)
    income = (made - left) * price
    return (
        {"name": pick(rng, "names"), "snacks": pick(rng, "snacks")}
        | {"made": made, "left": left, "price": price, "cost": cost}
        | {"sold": made - left, "income": income, "result": f"${income - cost}"}
    )


def cheaper_pack(rng: Random) -> Values:
    """Saving by buying a pack."""
    size, single = rng.choice((6, 8, 10, 12, 20)), rng.randrange(40, 180, 10)
    saving = rng.randrange(20, 100, 20) + size * 10
    return (
        {"name": pick(rng, "names"), "thing": pick(rng, "packs")}
        | {"size": size, "single": money(single), "separate": money(size * single)}
        | {"pack": money(size * single - saving), "result": money(saving)}
    )


def simple_interest(rng: Random) -> Values:
    """Interest at a yearly rate without compounding."""
    capital, rate, years = rng.randrange(400, 3000, 200), rng.randint(2, 6), rng.randint(2, 6)
    yearly = capital * rate // 100
    return (
        {"name": pick(rng, "names")}
        | {"capital": capital, "rate": rate, "years": years, "yearly": yearly}
        | {"interest": years * yearly, "result": f"${capital + years * yearly}"}
    )


def phone_plan(rng: Random) -> Values:
    """Fixed fee and price per gigabyte."""
    fee, included, extra = rng.randrange(8, 20), rng.choice((5, 8, 10)), rng.randint(2, 7)
    price = rng.choice((150, 200, 250, 300))
    return (
        {"name": pick(rng, "names")}
        | {"fee": fee, "included": included, "used": included + extra, "extra": extra}
        | {"price": money(price), "more": money(extra * price)}
        | {"result": money(fee * 100 + extra * price)}
    )


def price_difference(rng: Random) -> Values:
    """What one person paid more than another."""
    first, second = two_names(rng)
    n, m, p = rng.randint(4, 9), rng.randint(2, 4), rng.randrange(5, 12)
    q = rng.randint(1, p - 3)
    return (
        {"first": first, "second": second, "thing": pick(rng, "measures")}
        | {"n": n, "m": m, "p": p, "q": q, "a": n * p, "b": m * q}
        | {"result": f"${n * p - m * q}"}
    )


MONEY_PROBLEMS: tuple[Callable[[Random], Values], ...] = (
    change_from_note,
    weekly_saving,
    hourly_wage,
    discount,
    shared_bill,
    family_tickets,
    profit,
    cheaper_pack,
    simple_interest,
    phone_plan,
    price_difference,
)
