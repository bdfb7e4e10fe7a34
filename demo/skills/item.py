"""What every skill hands to the generator: items, and the skill that makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Item:
    """One exchange of a skill, with what is needed to spoil it on purpose.

    `content` names what the item is about; items of equal content never stand on both sides of the
    corpus/target split. `wrong` is a plausible but incorrect output ("" when there is none).
    `answer` is the bare truth ("positive", "42"): an output with another answer is wrong here.
    """

    content: str
    instruction: str
    input: str
    output: str
    wrong: str = ""
    answer: str = ""

    @property
    def prompt(self) -> str:
        """Instruction and input, folded in case and space: what must be unique over both files."""
        return " ".join(f"{self.instruction} {self.input}".lower().split())

    @property
    def truth(self) -> str:
        """The answer where the skill states one, else the whole output."""
        return self.answer or self.output


@dataclass(frozen=True)
class Skill:
    """A skill, how many rows it contributes, and the function that makes its items.

    `make(rng)` returns more items than both files need, in order of preference, and is a pure
    function of the generator it is given.
    """

    name: str
    prefix: str
    num_corpus: int
    num_target: int
    make: Callable[[Random], list[Item]]


def split_prompt(rng: Random, question: str, leads: tuple[str, ...]) -> tuple[str, str]:
    """Puts a question into the instruction, or into the input under one of the leads."""
    lead = rng.choice(leads)
    return (lead, question) if lead else (question, "")


def in_turn(*lists: list[Item]) -> list[Item]:
    """The first items of all lists, then the second ones, and so on to the end of the longest."""
    longest = max(map(len, lists))
    return [items[turn] for turn in range(longest) for items in lists if turn < len(items)]
