"""Names, places and things that several skills draw from."""

from __future__ import annotations

from random import Random

NAMES = (
    "Aisha", "Ben", "Carla", "Dmitri", "Elena", "Farid", "Greta", "Hugo", "Ines", "Jamal", "Katya", "Leo",
    "Maya", "Noah", "Olga", "Pedro", "Quinn", "Rosa", "Samir", "Tess", "Umar", "Vera", "Wen", "Yusuf", "Zoe",
    "Amara", "Bruno", "Chiara", "Dana", "Emil", "Freya", "Gustav", "Hana", "Ivan", "Jonas", "Kofi", "Lena",
    "Marta", "Nadia", "Oskar", "Priya", "Ravi", "Sofia", "Tomas", "Uma", "Viktor", "Wanda", "Xenia", "Yara",
)
SURNAMES = (
    "Adler", "Bakker", "Castillo", "Dubois", "Eriksen", "Fischer", "Grant", "Haddad", "Ito", "Jansen", "Kaya",
    "Lopez", "Meyer", "Novak", "Okafor", "Petrov", "Quist", "Rossi", "Singh", "Tanaka", "Ueda", "Varga", "Weiss",
)
CITIES = (
    "Aberley", "Brookfield", "Carrick", "Dornbach", "Eastmoor", "Fallow Bay", "Glenrock", "Hartwell", "Irmdale",
    "Kestrel Point", "Lindau", "Marsden", "Northgate", "Oakham", "Port Ellis", "Queensbury", "Ridgeway", "Stavern",
    "Thornby", "Upwell", "Valden", "Westbrook", "Yarrow",
)


def full_name(rng: Random) -> str:
    """A first name with a surname."""
    return f"{rng.choice(NAMES)} {rng.choice(SURNAMES)}"


def two_names(rng: Random) -> tuple[str, str]:
    """Two different first names."""
    first, second = rng.sample(NAMES, 2)
    return first, second


def capitalised(text: str) -> str:
    """`text` with its first letter in capitals and the rest untouched."""
    return text[:1].upper() + text[1:]


def joined(parts: list[str]) -> str:
    """A list in running text: "a", "a and b", "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def counted(number: int, noun: str) -> str:
    """`1 room`, `3 rooms`; knows the plural of child."""
    return f"{number} {noun}" if number == 1 else f"{number} {'children' if noun == 'child' else noun + 's'}"
