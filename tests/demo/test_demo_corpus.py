"""The demo corpus is what its generator makes, follows its own rules, and its good answers are right.

The checks of answers share no code with demo/: they read the rows as a user does and solve them again.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

DEMO_DIR = Path(__file__).resolve().parents[2] / "demo"
ROW_KEYS = ["id", "instruction", "input", "output", "skill"]
KINDS = ("wrong_answer", "empty_talk", "other_answer")

Row = dict[str, str]


def read_rows(name: str) -> list[Row]:
    return [json.loads(line) for line in (DEMO_DIR / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def corpus() -> list[Row]:
    return read_rows("corpus.jsonl")


@pytest.fixture(scope="module")
def target() -> list[Row]:
    return read_rows("target.jsonl")


@pytest.fixture(scope="module")
def good_rows(corpus: list[Row], target: list[Row]) -> list[Row]:
    return [row for row in corpus if not row["planted"]] + target


def prompt(row: Row) -> str:
    return " ".join(f"{row['instruction']} {row['input']}".lower().split())


def of_skill(rows: list[Row], skill: str) -> list[Row]:
    return [row for row in rows if row["skill"] == skill]


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_files_are_what_the_generator_makes(hash_seed: str) -> None:
    run = subprocess.run(
        [sys.executable, str(DEMO_DIR / "generate.py"), "--check"],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )
    assert run.returncode == 0, run.stderr


def test_readme_shows_the_counts_that_the_generator_prints() -> None:
    run = subprocess.run([sys.executable, str(DEMO_DIR / "generate.py"), "--counts"], capture_output=True, text=True, check=True)
    assert run.stdout.strip() in (DEMO_DIR / "README.md").read_text(encoding="utf-8")


def test_rows_have_the_stated_keys_and_unique_ids(corpus: list[Row], target: list[Row]) -> None:
    assert all(list(row) == [*ROW_KEYS, "planted"] for row in corpus)
    assert all(list(row) == ROW_KEYS for row in target)
    ids = [row["id"] for row in corpus + target]
    assert len(set(ids)) == len(ids)
    for row in corpus + target:
        assert all(isinstance(value, str) for value in row.values())
        assert row["instruction"].strip() and row["output"].strip(), row["id"]
        assert re.fullmatch(r"(target-)?[a-z]+-\d{4}", row["id"]), row["id"]


def test_sizes_and_skills(corpus: list[Row], target: list[Row]) -> None:
    assert (len(corpus), len(target)) == (1000, 200)
    skills = {row["skill"] for row in corpus}
    assert len(skills) >= 10
    assert {row["skill"] for row in target} == skills


def test_a_tenth_is_planted_and_every_kind_is_in_every_skill(corpus: list[Row]) -> None:
    planted = [row for row in corpus if row["planted"]]
    assert len(planted) * 10 == len(corpus)
    assert {row["planted"] for row in corpus} == {"", *KINDS}
    skills_of = {kind: {row["skill"] for row in planted if row["planted"] == kind} for kind in KINDS}
    assert all(skills == {row["skill"] for row in corpus} for skills in skills_of.values())
    sizes = Counter(row["planted"] for row in planted).values()
    assert max(sizes) - min(sizes) <= 1


def test_prompts_are_unique_and_none_of_the_target_is_in_the_corpus(corpus: list[Row], target: list[Row]) -> None:
    corpus_prompts, target_prompts = {prompt(row) for row in corpus}, {prompt(row) for row in target}
    assert (len(corpus_prompts), len(target_prompts)) == (len(corpus), len(target))
    assert not corpus_prompts & target_prompts
    corpus_inputs = {row["input"] for row in corpus if len(row["input"]) > 40}
    assert not [row["id"] for row in target if row["input"] in corpus_inputs]


def test_position_and_id_do_not_betray_planted_rows(corpus: list[Row]) -> None:
    for place in (lambda row, i: i, lambda row, i: int(row["id"][-4:])):
        spots = [(place(row, i), bool(row["planted"])) for i, row in enumerate(corpus)]
        middle = sorted(spot for spot, _ in spots)[len(spots) // 2]
        early = sum(planted for spot, planted in spots if spot <= middle)
        assert 35 <= early <= 65


# Arithmetic ---------------------------------------------------------------------------------------------------------

TERM = r"\(?\$?\d[\d,]*(?:\.\d+)?%?\)?"
EQUATION = re.compile(rf"({TERM}(?: [×÷+-] {TERM})+) = \$?(\d[\d,]*(?:\.\d+)?)")


def value(expression: str) -> Fraction:
    """The exact value of `3 × $4.50`, `(8 + 2) ÷ 5` or `15% × $40`."""
    plain = expression.replace("$", "").replace(",", "").replace("×", "*").replace("÷", "/")
    exact = re.sub(r"(\d+(?:\.\d+)?)(%?)", lambda m: f"(Fraction('{m[1]}'){'/100' if m[2] else ''})", plain)
    return Fraction(eval(exact, {"Fraction": Fraction}))


def test_value_reads_dollars_percent_and_brackets() -> None:
    assert value("15% × $1,200") == 180
    assert value("2 × (8 + 4)") == 24


def test_every_equation_of_the_good_arithmetic_and_unit_rows_holds(good_rows: list[Row]) -> None:
    for row in of_skill(good_rows, "arithmetic") + of_skill(good_rows, "unit_conversion"):
        equations = EQUATION.findall(row["output"])
        if row["skill"] == "arithmetic":
            assert equations, row
        for left, right in equations:
            stated = Fraction(right.replace(",", ""))
            tolerance = Fraction(1, 19) if "÷ 9" in left else 0
            assert abs(value(left) - stated) <= tolerance, (row["id"], left, right)


def numbers(text: str) -> list[Fraction]:
    return [Fraction(match.replace(",", "")) for match in re.findall(r"\d[\d,]*(?:\.\d+)?", re.sub(r",(?=\s)", "", text))]


SOLVERS: dict[str, Callable[[list[Fraction]], Fraction]] = {
    r"bakes \d+ trays": lambda n: n[0] * n[1] - n[2],
    r"for adults and \$\d+ for children": lambda n: n[0] * n[2] + n[1] * n[3],
    r"fence a rectangular garden": lambda n: 2 * (n[0] + n[1]) - n[2],
    r"rows with \d+ seats each": lambda n: n[0] * n[1] - n[2] - n[3],
    r"writes down": lambda n: sum(n, Fraction(0)) / len(n),
    r"mixed in the ratio": lambda n: n[1] * n[2] / (n[0] + n[1]),
    r"get off and \d+ get on": lambda n: n[0] - n[1] + n[2] - n[3],
    r"at \$[\d.]+ each and pays|each and pays with a": lambda n: n[4] - n[0] * n[1] - n[2] * n[3],
    r"earns \$\d+ an hour": lambda n: n[0] * n[1] + n[0] * Fraction(3, 2) * n[2],
    r"It is reduced by": lambda n: n[0] * (1 - n[1] / 100) - n[2],
    r"simple interest per year": lambda n: n[0] * (1 + n[1] / 100 * n[2]),
    r"litres a minute run out": lambda n: n[0] + n[3] * (n[1] - n[2]),
    r"pages a day": lambda n: (n[0] - n[1]) / n[2],
    r"workers need": lambda n: n[0] * n[1] / n[2],
    r"How many do not\?": lambda n: n[0] * (1 - n[1] / 100),
    r"Tiles come in boxes": lambda n: Fraction(-(-(n[0] * n[1]) // n[2])),
    r"grams of \w+ are needed": lambda n: n[1] / n[0] * n[2],
}


def test_arithmetic_answers_agree_with_solving_the_question_again(good_rows: list[Row]) -> None:
    solved: Counter[str] = Counter()
    for row in of_skill(good_rows, "arithmetic"):
        question = f"{row['instruction']} {row['input']}"
        for pattern, solve in SOLVERS.items():
            if re.search(pattern, question):
                answer = solve(numbers(question))
                assert answer in numbers(row["output"]), (row["id"], question, answer)
                last = numbers(row["output"].splitlines()[-1])[-1]
                assert answer == last or answer == numbers(row["output"])[0], (row["id"], answer, last)
                solved[pattern] += 1
    assert len(solved) == len(SOLVERS) and sum(solved.values()) >= 60


# Dates --------------------------------------------------------------------------------------------------------------

def test_date_answers_agree_with_the_calendar(good_rows: list[Row]) -> None:
    checked = 0
    for row in of_skill(good_rows, "dates"):
        question = f"{row['instruction']} {row['input']}"
        if later := re.search(r"on (\d+ \w+ \d{4})\D.*Which date is (\d+) days later", question):
            due = datetime.strptime(later[1], "%d %B %Y") + timedelta(days=int(later[2]))
            assert f"{due:%A}, {due.day} {due:%B %Y}" in row["output"], row
        elif born := re.search(r"was born on (\d+ \w+ \d{4}). How old is \w+ on (\d+ \w+ \d{4})", question):
            first, now = (datetime.strptime(text, "%d %B %Y") for text in born.groups())
            age = now.year - first.year - ((now.month, now.day) < (first.month, first.day))
            assert f"is {age} years old" in row["output"], row
        elif nth := re.search(r"on the (second|third|fourth) (\w+) of every month. 1 (\w+ \d{4})", question):
            day = datetime.strptime(f"1 {nth[3]}", "%d %B %Y")
            while f"{day:%A}" != nth[2]:
                day += timedelta(days=1)
            day += timedelta(weeks={"second": 1, "third": 2, "fourth": 3}[nth[1]])
            assert f"{day.day} {day:%B %Y}." in row["output"], row
        else:
            continue
        checked += 1
    assert checked >= 15


# Python -------------------------------------------------------------------------------------------------------------

def checks() -> dict[str, str]:
    """Function name -> expression that must be true, from the file of functions."""
    text = (DEMO_DIR / "content" / "functions.txt").read_text(encoding="utf-8")
    return {name: check for name, check in re.findall(r"^== (\w+)\n.*?^@check (.+?)$", text, re.MULTILINE | re.DOTALL)}


def run_code(output: str) -> dict[str, Any]:
    """Runs the code of an output, fenced or bare, and returns its names."""
    fence = re.search(r"```python\n(.*?)```", output, re.DOTALL)
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(fence[1] if fence else output, "<row>", "exec"), names)
    return names


def test_python_outputs_compile_and_pass_their_check(good_rows: list[Row]) -> None:
    expected, seen = checks(), set()
    rows = of_skill(good_rows, "python")
    for row in rows:
        if defined := re.search(r"^def (\w+)\(", row["output"], re.MULTILINE):
            assert eval(expected[defined[1]], run_code(row["output"])), row["id"]
            seen.add(defined[1])
        else:
            call, result = re.findall(r"So `(.+)` is `(.+)`\.$", row["output"], re.DOTALL)[0]
            code = row["input"] or row["instruction"]
            assert eval(f"({call}) == ({result})", run_code(code)), row["id"]
    assert len(seen) >= 80


def test_planted_bugs_fail_the_check(corpus: list[Row]) -> None:
    expected, spoiled = checks(), 0
    for row in of_skill(corpus, "python"):
        if row["planted"] == "wrong_answer":
            name = re.findall(r"^def (\w+)\(", row["output"], re.MULTILINE)[0]
            try:
                passed = eval(expected[name], run_code(row["output"]))
            except Exception:
                passed = False
            assert not passed, row["id"]
            spoiled += 1
    assert spoiled


# Planted rows -------------------------------------------------------------------------------------------------------

def test_other_answers_are_outputs_of_other_rows_and_empty_talk_repeats_no_text(corpus: list[Row]) -> None:
    by_output = defaultdict(list)
    for row in corpus:
        by_output[row["output"]].append(row)
    talk = [row["output"] for row in corpus if row["planted"] == "empty_talk"]
    assert len(set(talk)) == len(talk)
    unknown = [row["id"] for row in corpus if row["planted"] == "other_answer" and len(by_output[row["output"]]) < 2]
    # The row that lent its answer may itself have been spoiled.
    assert len(unknown) <= 6
