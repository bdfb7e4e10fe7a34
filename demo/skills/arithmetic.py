"""Arithmetic word problems with worked answers in five styles.

The wordings are in demo/content/problems.txt; the numbers come from `arithmetic_money` and
`arithmetic_everyday`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random

from .arithmetic_everyday import EVERYDAY_PROBLEMS
from .arithmetic_money import MONEY_PROBLEMS
from .content import Record, filled, phrases, read_records
from .item import Item, split_prompt

NUM_ROUNDS = 8


@dataclass(frozen=True)
class Problem:
    """A word problem and its solution.

    Every step contains an equation; the last one ends in `= result`. `ending` is the closing
    sentence with `{}` for the result.
    """

    question: str
    steps: tuple[str, ...]
    ending: str
    result: str

    @property
    def conclusion(self) -> str:
        """The closing sentence."""
        return self.ending.format(self.result)


def make_arithmetic(rng: Random) -> list[Item]:
    """Every problem `NUM_ROUNDS` times with fresh numbers, names and wordings."""
    records = {record.key: record for record in read_records("problems")}
    draws = (*MONEY_PROBLEMS, *EVERYDAY_PROBLEMS)
    return [
        arithmetic_item(rng, worded(rng, records[draw.__name__], draw(rng)))
        for _ in range(NUM_ROUNDS)
        for draw in draws
    ]


def worded(rng: Random, record: Record, values: Mapping[str, object]) -> Problem:
    """The numbers of a problem put into words."""

    return Problem(
        question=filled(rng.choice(record.all("question")), values),
        steps=tuple(filled(step, values) for step in record.all("step")),
        ending=filled(record.one("end"), values),
        result=str(values["result"]),
    )


def arithmetic_item(rng: Random, problem: Problem) -> Item:
    """A problem in a style drawn at random; its wrong twin has a slip in the last step."""
    instruction, text = split_prompt(rng, problem.question, phrases("arithmetic"))
    render = rng.choice(STYLES)
    return Item(
        content=problem.question,
        instruction=instruction,
        input=text,
        output=render(problem),
        wrong=render(with_slip(problem, rng)),
        answer=problem.result,
    )


def with_slip(problem: Problem, rng: Random) -> Problem:
    """The same problem with a wrong value in its last step and its conclusion."""
    slipped = slip(problem.result, rng)
    *before, last = problem.steps
    head, _, tail = last.rpartition(f"= {problem.result}")
    return replace(problem, steps=(*before, f"{head}= {slipped}{tail}"), result=slipped)


def slip(text: str, rng: Random) -> str:
    """A number as it comes out of a hurried calculation: near the truth, in the same format."""
    match = re.search(r"\d[\d,]*(?:\.\d+)?", text)
    assert match, f"no number in {text!r}"
    digits = match.group().replace(",", "")
    decimals = len(digits.partition(".")[2])
    value = float(digits)
    wrong = value + rng.choice([1, 2, 10, -1, -2, 5] if value > 12 else [1, 2, 3, 10])
    comma = "," if "," in match.group() else ""
    return f"{text[: match.start()]}{wrong:{comma}.{decimals}f}{text[match.end() :]}"


def prose(problem: Problem) -> str:
    """All steps in one paragraph, then the conclusion."""
    return " ".join((*problem.steps, problem.conclusion))


def numbered(problem: Problem) -> str:
    """One numbered line per step."""
    lines = [f"Step {i}: {step}" for i, step in enumerate(problem.steps, 1)]
    return "\n".join((*lines, f"Answer: {problem.result}"))


def marked(problem: Problem) -> str:
    """Steps on separate lines and the bare result behind four hashes."""
    return "\n".join((*problem.steps, f"#### {problem.result}"))


def answer_first(problem: Problem) -> str:
    """The conclusion, then the reason."""
    return f"{problem.conclusion} The calculation: {' '.join(problem.steps)}"


def plain_lines(problem: Problem) -> str:
    """Steps and conclusion, a line each."""
    return "\n".join((*problem.steps, problem.conclusion))


STYLES: tuple[Callable[[Problem], str], ...] = (
    prose,
    numbered,
    marked,
    answer_first,
    plain_lines,
)
