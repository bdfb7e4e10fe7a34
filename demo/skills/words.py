"""Names, places and things that several skills draw from."""

from __future__ import annotations

from random import Random

from .content import phrases, pick

NAMES = phrases("names")
SURNAMES = phrases("surnames")
CITIES = phrases("cities")


def full_name(rng: Random) -> str:
    """A first name with a surname."""
    return f"{pick(rng, 'names')} {pick(rng, 'surnames')}"


def two_names(rng: Random) -> tuple[str, str]:
    """Two different first names."""
    first, second = rng.sample(NAMES, 2)
    return first, second


def capitalised(text: str) -> str:
    """`text` with its first letter in capitals and the rest untouched."""
    return text[:1].upper() + text[1:]


def joined(parts: list[str]) -> str:
    """A list in running text: "a", "a and b", "a, b and c"; "" for none."""
    return "".join(parts) if len(parts) < 2 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def counted(number: int, noun: str) -> str:
    """`1 room`, `3 rooms`; knows the plural of child."""
    return (
        f"{number} {noun}"
        if number == 1
        else f"{number} {'children' if noun == 'child' else noun + 's'}"
    )
