"""Unit conversions in everyday situations, with the factor and the rounding shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from random import Random

from .arithmetic import slip
from .item import Item, split_prompt
from .words import NAMES

NUM_ROUNDS = 8
LEADS = (
    "", "", "", "", "", "",
    "Convert the units and show the calculation.",
    "Please convert.",
    "Answer the question about units.",
    "Do the conversion and round sensibly.",
)


@dataclass(frozen=True)
class Conversion:
    """From one unit to another by a factor, for amounts of a usual size."""

    unit: str
    source: str
    target: str
    factor: str
    low: int
    high: int
    decimals: int
    situations: tuple[str, ...]


CONVERSIONS = (
    Conversion("mile", "miles", "kilometres", "1.609", 3, 95, 1, (
        "A road sign in Maine says that the next town is {x} miles away.", "{name} has run {x} miles this month.",
        "From our motel it is {x} miles to the national park.")),
    Conversion("kilometre", "kilometres", "miles", "0.6214", 5, 90, 1, (
        "The cycle path round the lake is {x} kilometres long.", "From {name}'s flat to the coast it is {x} kilometres.",
        "The train covers {x} kilometres before its first stop.")),
    Conversion("foot", "feet", "metres", "0.3048", 11, 40, 2, (
        "The ceiling of the old mill is {x} feet high.", "A guidebook says the waterfall drops {x} feet.",
        "{name}'s boat is {x} feet long.")),
    Conversion("inch", "inches", "centimetres", "2.54", 9, 70, 1, (
        "I found a picture frame that is {x} inches wide.", "The screen measures {x} inches across.",
        "{name} needs a shelf of {x} inches.")),
    Conversion("metre", "metres", "feet", "3.2808", 8, 60, 1, (
        "{name} is buying a rope of {x} metres.", "The tower in our town is {x} metres high.", "The pool is {x} metres long.")),
    Conversion("pound", "pounds", "kilograms", "0.4536", 12, 85, 1, (
        "The airline allows {x} pounds of luggage.", "A parcel from my aunt in Ohio weighs {x} pounds.",
        "{name}'s dog weighs {x} pounds according to the vet.")),
    Conversion("kilogram", "kilograms", "pounds", "2.2046", 3, 40, 1, (
        "The suitcase weighs {x} kilograms.", "{name} has ordered {x} kilograms of cherries.",
        "The bag of soil on our balcony weighs {x} kilograms.")),
    Conversion("ounce", "ounces", "grams", "28.35", 2, 16, 0, (
        "My grandmother's shortbread needs {x} ounces of butter.", "The label on the yarn says {x} ounces.",
        "An American recipe asks for {x} ounces of chocolate.")),
    Conversion("US gallon", "US gallons", "litres", "3.785", 2, 30, 1, (
        "The fish tank holds {x} US gallons.", "{name} bought {x} US gallons of wall paint.",
        "The tank of the rental car takes {x} US gallons.")),
    Conversion("US cup", "US cups", "millilitres", "236.6", 2, 9, 0, (
        "The soup needs {x} US cups of stock.", "{name} drinks {x} US cups of tea a day.",
        "A bread recipe calls for {x} US cups of water.")),
    Conversion("acre", "acres", "hectares", "0.4047", 5, 250, 1, (
        "The farm next door covers {x} acres.", "{name} has inherited {x} acres of woodland.",
        "The park was enlarged by {x} acres.")),
    Conversion("knot", "knots", "kilometres per hour", "1.852", 8, 34, 1, (
        "The forecast speaks of winds of {x} knots.", "The ferry travels at {x} knots.",
        "{name}'s sailing boat did {x} knots before the wind.")),
    Conversion("metre per second", "metres per second", "kilometres per hour", "3.6", 8, 24, 1, (
        "A gust of {x} metres per second was measured at the harbour.", "A swallow can fly at {x} metres per second.", "The skier passes the camera at {x} metres per second.")),
    Conversion("gigabyte", "gigabytes", "megabytes", "1000", 2, 64, 0, (
        "The holiday videos take up {x} gigabytes.", "{name}'s data plan includes {x} gigabytes.")),
    Conversion("hour", "hours", "minutes", "60", 3, 20, 0, (
        "The night train takes {x} hours.", "{name} has booked {x} hours in the music studio.")),
    Conversion("day", "days", "hours", "24", 3, 24, 0, (
        "The parcel was on its way for {x} days.", "The sourdough has to rest for {x} days.")),
    Conversion("square metre", "square metres", "square feet", "10.764", 22, 180, 0, (
        "The flat has {x} square metres.", "{name} rents an office of {x} square metres.")),
    Conversion("stone", "stone", "kilograms", "6.35", 7, 16, 1, (
        "In the novel, the boxer weighs {x} stone.", "My British uncle says that he weighs {x} stone.")),
)

QUESTIONS = (
    "How many {target} is that?", "What is that in {target}?", "How much is this in {target}?",
    "Can you tell me the value in {target}?", "I only know {target}. Please convert it.",
)
WRONG_SCALES = (Decimal("0.8"), Decimal("1.2"), Decimal("1.5"), Decimal("0.5"))


def rounded(value: Decimal, decimals: int) -> Decimal:
    """Half-up rounding, as taught at school."""
    return value.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)


def written(value: Decimal) -> str:
    """A decimal without superfluous zeros and with commas between thousands."""
    text = f"{value:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def linear_item(rng: Random, conversion: Conversion) -> Item:
    """An item for a conversion by a factor; the wrong twin uses a wrong factor."""
    amount = rng.randint(conversion.low, conversion.high)
    situation = rng.choice(conversion.situations).format(x=amount, name=rng.choice(NAMES))
    question = f"{situation} {rng.choice(QUESTIONS).format(target=conversion.target)}"
    instruction, text = split_prompt(rng, question, LEADS)
    render = rng.choice((factor_first, answer_first, steps))
    wrong_factor = written(Decimal(conversion.factor) * rng.choice(WRONG_SCALES)).replace(",", "")
    answer = written(rounded(amount * Decimal(conversion.factor), conversion.decimals))
    return Item(
        question, instruction, text,
        output=render(conversion, amount),
        wrong=render(replace(conversion, factor=wrong_factor), amount),
        answer=f"{answer} {conversion.target}",
    )


def product(conversion: Conversion, amount: int) -> tuple[str, str]:
    """The multiplication written out, and its rounded result, marked with `about` where rounding changed it."""
    exact = amount * Decimal(conversion.factor)
    near = rounded(exact, conversion.decimals)
    result = f"{'' if near == exact else 'about '}{written(near)} {conversion.target}"
    return f"{amount} × {conversion.factor} = {written(exact)}", result


def factor_first(conversion: Conversion, amount: int) -> str:
    """States the factor, multiplies, rounds."""
    equation, result = product(conversion, amount)
    factor = f"One {conversion.unit} is {conversion.factor} {conversion.target}."
    return f"{factor} {equation}, so {amount} {conversion.source} are {result}."


def answer_first(conversion: Conversion, amount: int) -> str:
    """States the result, then how it comes about."""
    equation, result = product(conversion, amount)
    return (
        f"{amount} {conversion.source} are {result}. To get there, multiply by {conversion.factor}, "
        f"the number of {conversion.target} in one {conversion.unit}: {equation}."
    )


def steps(conversion: Conversion, amount: int) -> str:
    """Factor, calculation and result on a line each."""
    equation, result = product(conversion, amount)
    return f"Factor: 1 {conversion.unit} = {conversion.factor} {conversion.target}\nCalculation: {equation}\nResult: {result}"


def to_celsius(rng: Random) -> Item:
    """Fahrenheit to Celsius."""
    place, low, high = rng.choice((
        ("The recipe says to bake it at {} °F.", 275, 475), ("The oven is preheated to {} °F.", 250, 450),
        ("The radio in Boston announces a high of {} °F.", 20, 98), ("The thermometer on the porch stands at {} °F.", 12, 101),
        ("The sauna manual mentions a reading of {} °F.", 150, 194), ("My American pen pal had a fever of {} °F.", 100, 104),
    ))
    degrees = rng.randrange(low, high, 25 if high > 400 else 1)
    result = written(rounded(Decimal((degrees - 32) * 5) / 9, 1))
    question = f"{place.format(degrees)} {rng.choice(('What is that in Celsius?', 'How many degrees Celsius is this?'))}"
    return temperature_item(rng, question, f"({degrees} - 32) × 5 ÷ 9", result, "°C", "Subtract 32 first and multiply by five ninths.")


def to_fahrenheit(rng: Random) -> Item:
    """Celsius to Fahrenheit."""
    place, low, high = rng.choice((
        ("My cookbook gives the oven heat as {} °C.", 140, 240), ("The bread goes in at {} °C.", 190, 260),
        ("Our room thermometer shows {} °C.", 15, 30), ("Tomorrow's forecast for Lisbon is {} °C.", 11, 38),
        ("The water in the lake has reached {} °C.", 8, 26),
    ))
    degrees = rng.randrange(low, high, 10 if low > 100 else 1)
    result = written(rounded(Decimal(degrees * 9) / 5 + 32, 1))
    question = f"{place.format(degrees)} {rng.choice(('What is that in Fahrenheit?', 'How much is that in Fahrenheit?'))}"
    return temperature_item(rng, question, f"{degrees} × 9 ÷ 5 + 32", result, "°F", "Multiply by nine fifths and then add 32.")


def temperature_item(rng: Random, question: str, formula: str, result: str, unit: str, rule: str) -> Item:
    """An item for a temperature, whose scales differ in their zero point as well."""
    def render(value: str) -> str:
        return f"{rule} {formula} = {value}, so the answer is {value} {unit}, rounded to one decimal."

    instruction, text = split_prompt(rng, question, LEADS)
    return Item(question, instruction, text, render(result), render(slip(result, rng)), f"{result} {unit}")


def clock_sum(rng: Random) -> Item:
    """Minutes split into hours and minutes."""
    minutes = rng.randint(75, 700)
    hours, rest = divmod(minutes, 60)
    what = rng.choice(("The two films together run", "{name}'s shift lasted", "The hike takes", "The podcast series runs"))
    question = f"{what.format(name=rng.choice(NAMES))} {minutes} minutes. How many hours and minutes is that?"
    instruction, text = split_prompt(rng, question, LEADS)

    def render(h: int, m: int) -> str:
        return f"{h} full hours are {h} × 60 = {h * 60} minutes, and {minutes} - {h * 60} = {m} minutes remain: {h} h {m} min."

    wrong = f"{minutes} ÷ 60 is about {minutes / 60:.1f}, so it is {minutes // 60} h {round(minutes / 60 % 1 * 100)} min."
    return Item(question, instruction, text, render(hours, rest), wrong, f"{hours} h {rest} min")


SPECIAL: tuple[Callable[[Random], Item], ...] = (to_celsius, to_fahrenheit, clock_sum)


def make_unit_conversion(rng: Random) -> list[Item]:
    """Every conversion `NUM_ROUNDS` times with fresh amounts and situations."""
    items: list[Item] = []
    for _ in range(NUM_ROUNDS):
        items += [linear_item(rng, conversion) for conversion in CONVERSIONS]
        items += [make(rng) for make in SPECIAL]
    return items
