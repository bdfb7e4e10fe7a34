"""The planted leaks are what their names say, and what shares a passage is told from the rest."""

import random

import pytest

from benchmarks import leakage

ROW = {
    "instruction": "Tom has 12 apples, and he eats 3 of them. How many apples does Tom have then?",
    "input": "Think first, then answer; show how you came to it, in short.",
    "output": "He has 9 apples.",
}
HOST = {"instruction": "Name a river of Norway, please", "input": "", "output": "The Glomma"}


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (12, "twelve"),
        (305, "three hundred five"),
        (21_070, "twenty one thousand seventy"),
    ],
)
def test_numbers_are_spelled(number, words):
    assert leakage.spelled(number) == words


@pytest.mark.parametrize("kind", leakage.KINDS)
def test_a_planted_row_is_what_its_kind_says(kind):
    prompt = leakage.KINDS[kind](ROW, HOST, random.Random(1))
    own = leakage.prompt_of(ROW)
    words, ours = own.split(), prompt.split()
    if kind == "exact":
        assert prompt == own
    elif kind == "case and space":
        assert leakage.longest_run(prompt, own) == len(words) and "  " in prompt
    elif kind in ("word order", "words swapped"):
        assert sorted(ours) == sorted(words) and ours != words
    elif kind == "20-word quote":
        assert leakage.longest_run(prompt, f"{own} {ROW['output']}") >= 20
        assert ours[:3] == HOST["instruction"].split()[:3]
    else:
        assert "12" not in ours and leakage.longest_run(prompt, own) < len(words)


def test_recombined_rows_are_halves_of_two():
    made = list(leakage.recombined([ROW, HOST], 20, seed=3))
    assert len({row["id"] for row in made}) == 20
    firsts = {row["instruction"].split()[0] for row in made}
    lasts = {row["output"].split()[-1] for row in made}
    assert firsts == {"Tom", "Name"} and lasts == {"apples.", "Glomma"}
