"""Unit conversions in everyday situations, with the factor and the rounding shown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from random import Random

from .arithmetic import slip
from .content import Record, filled, phrases, pick, read_records
from .item import Item, split_prompt

NUM_ROUNDS = 8
WRONG_SCALES = (Decimal("0.8"), Decimal("1.2"), Decimal("1.5"), Decimal("0.5"))


@dataclass(frozen=True)
class Conversion:
    """An amount of one unit, to be expressed in another."""

    unit: str
    source: str
    target: str
    factor: Decimal
    amount: int
    decimals: int

    @property
    def exact(self) -> Decimal:
        """The product of amount and factor."""
        return self.amount * self.factor

    @property
    def result(self) -> str:
        """The rounded product with its unit."""
        return f"{written(rounded(self.exact, self.decimals))} {self.target}"

    @property
    def hedged(self) -> str:
        """The result, marked with `about` where rounding changed it."""
        same = rounded(self.exact, self.decimals) == self.exact
        return self.result if same else f"about {self.result}"

    @property
    def equation(self) -> str:
        """The multiplication written out."""
        return f"{self.amount} × {self.factor} = {written(self.exact)}"


def make_unit_conversion(rng: Random) -> list[Item]:
    """Every conversion `NUM_ROUNDS` times with fresh amounts and situations."""
    items: list[Item] = []
    for _ in range(NUM_ROUNDS):
        items += [linear_item(rng, record) for record in read_records("conversions")]
        items += [temperature_item(rng, record) for record in read_records("temperatures")]
        items.append(clock_item(rng))
    return items


def linear_item(rng: Random, record: Record) -> Item:
    """A conversion by a factor; the wrong twin uses a wrong factor."""
    low, high, decimals = map(int, record.one("range").split())
    unit, source, target = record.key.split(", ")
    factor, amount = Decimal(record.one("factor")), rng.randint(low, high)
    right = Conversion(unit, source, target, factor, amount, decimals)
    wrong = replace(right, factor=(factor * rng.choice(WRONG_SCALES)).normalize())
    situation = filled(rng.choice(record.all("say")), {"x": amount, "name": pick(rng, "names")})
    question = f"{situation} {pick(rng, 'unit_questions', target=target)}"
    instruction, text = split_prompt(rng, question, phrases("unit_conversion"))
    render = rng.choice((factor_first, answer_first, steps))
    return Item(question, instruction, text, render(right), render(wrong), right.result)


def rounded(value: Decimal, decimals: int) -> Decimal:
    """Half-up rounding, as taught at school."""
    return value.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)


def written(value: Decimal) -> str:
    """A decimal without superfluous zeros and with commas between thousands."""
    text = f"{value:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def factor_first(c: Conversion) -> str:
    """States the factor, multiplies, rounds."""
    factor = f"One {c.unit} is {c.factor} {c.target}."
    return f"{factor} {c.equation}, so {c.amount} {c.source} are {c.hedged}."


def answer_first(c: Conversion) -> str:
    """States the result, then how it comes about."""
    return (
        f"{c.amount} {c.source} are {c.hedged}. To get there, multiply by {c.factor}, "
        f"the number of {c.target} in one {c.unit}: {c.equation}."
    )


def steps(c: Conversion) -> str:
    """Factor, calculation and result on a line each."""
    factor = f"Factor: 1 {c.unit} = {c.factor} {c.target}"
    return f"{factor}\nCalculation: {c.equation}\nResult: {c.hedged}"


def temperature_item(rng: Random, record: Record) -> Item:
    """A temperature, whose scales differ in their zero point as well."""
    low, high, step, place = rng.choice(record.all("place")).split(" ", 3)
    degrees = rng.randrange(int(low), int(high), int(step))
    if record.key == "fahrenheit":
        value, unit = Decimal((degrees - 32) * 5) / 9, "°C"
    else:
        value, unit = Decimal(degrees * 9) / 5 + 32, "°F"
    result = written(rounded(value, 1))
    question = f"{filled(place, {'x': degrees})} {rng.choice(record.all('ask'))}"
    instruction, text = split_prompt(rng, question, phrases("unit_conversion"))
    formula = filled(record.one("formula"), {"x": degrees})

    def render(value: str) -> str:
        answer = f"so the answer is {value} {unit}, rounded to one decimal."
        return f"{record.one('rule')} {formula} = {value}, {answer}"

    wrong = render(slip(result, rng))
    return Item(question, instruction, text, render(result), wrong, f"{result} {unit}")


def clock_item(rng: Random) -> Item:
    """Minutes split into hours and minutes; the wrong twin takes the decimals for minutes."""
    minutes = rng.randint(75, 700)
    hours, rest = divmod(minutes, 60)
    what = pick(rng, "lasting", name=pick(rng, "names"))
    question = f"{what} {minutes} minutes. How many hours and minutes is that?"
    instruction, text = split_prompt(rng, question, phrases("unit_conversion"))
    output = (
        f"{hours} full hours are {hours} × 60 = {hours * 60} minutes, "
        f"and {minutes} - {hours * 60} = {rest} minutes remain: {hours} h {rest} min."
    )
    hundredths = round(rest / 60 * 100)
    wrong = f"{minutes} ÷ 60 is about {minutes / 60:.2f}, so it is {hours} h {hundredths} min."
    if hundredths == rest:
        wrong = f"{minutes} ÷ 60 is about {hours + 1}, so it is roughly {hours + 1} hours."
    return Item(question, instruction, text, output, wrong, f"{hours} h {rest} min")
