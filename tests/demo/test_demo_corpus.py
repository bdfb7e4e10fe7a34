"""The demo corpus is what its generator makes, keeps its own rules, and its good answers are right.

The checks of answers share no code with demo/: they read the rows as a user does and solve them
again.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections import Counter
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
    lines = (DEMO_DIR / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


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


def run_generator(flag: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", str(DEMO_DIR / "generate.py"), flag],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONIOENCODING": "utf-8"},
    )


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_files_are_what_the_generator_makes(hash_seed: str) -> None:
    run = run_generator("--check", hash_seed)
    assert run.returncode == 0, run.stdout + run.stderr


def test_readme_shows_the_counts_that_the_generator_prints() -> None:
    readme = (DEMO_DIR / "README.md").read_text(encoding="utf-8")
    assert run_generator("--counts").stdout.strip() in readme


def test_rows_have_the_stated_keys_and_unique_ids(corpus: list[Row], target: list[Row]) -> None:
    assert all(list(row) == [*ROW_KEYS, "planted"] for row in corpus)
    assert all(list(row) == ROW_KEYS for row in target)
    ids = [row["id"] for row in corpus + target]
    assert len(set(ids)) == len(ids)
    for row in corpus + target:
        assert all(isinstance(value, str) for value in row.values())
        assert row["instruction"].strip() and row["output"].strip(), row["id"]
        assert re.fullmatch(r"(target-)?[a-z]+-\d{4}", row["id"]), row["id"]


def test_no_placeholder_is_left_unfilled(corpus: list[Row], target: list[Row]) -> None:
    for row in corpus + target:
        if row["skill"] not in ("python", "extraction", "sentiment"):  # these may hold braces
            texts = row["instruction"] + row["input"] + row["output"]
            assert "{" not in texts or row["planted"] == "other_answer", row


def test_sizes_and_skills(corpus: list[Row], target: list[Row]) -> None:
    assert (len(corpus), len(target)) == (1000, 200)
    skills = {row["skill"] for row in corpus}
    assert len(skills) >= 10
    assert {row["skill"] for row in target} == skills


def test_a_tenth_is_planted_and_every_kind_is_in_every_skill(corpus: list[Row]) -> None:
    planted = [row for row in corpus if row["planted"]]
    assert len(planted) * 10 == len(corpus)
    assert {row["planted"] for row in corpus} == {"", *KINDS}
    for kind in KINDS:
        skills = {row["skill"] for row in planted if row["planted"] == kind}
        assert skills == {row["skill"] for row in corpus}, kind
    sizes = Counter(row["planted"] for row in planted).values()
    assert max(sizes) - min(sizes) <= 1


def test_prompts_are_unique_and_no_target_content_is_in_the_corpus(
    corpus: list[Row], target: list[Row]
) -> None:
    in_corpus, in_target = ({prompt(row) for row in rows} for rows in (corpus, target))
    assert (len(in_corpus), len(in_target)) == (len(corpus), len(target))
    assert not in_corpus & in_target
    everything = "\n".join(sorted(in_corpus))
    for row in target:
        if len(row["input"]) > 25:
            assert " ".join(row["input"].lower().split()) not in everything, row["id"]


def test_position_and_id_do_not_betray_planted_rows(corpus: list[Row]) -> None:
    by_number = sorted(corpus, key=lambda row: row["id"][-4:])
    for rows in (corpus, by_number):
        early = sum(bool(row["planted"]) for row in rows[: len(rows) // 2])
        assert 35 <= early <= 65


def test_planted_answers_come_from_elsewhere_and_empty_talk_varies(corpus: list[Row]) -> None:
    good_outputs = {row["output"] for row in corpus if not row["planted"]}
    others = [row["output"] for row in corpus if row["planted"] == "other_answer"]
    # The row that lent its answer may itself have been spoiled, hence not all of them.
    assert sum(output in good_outputs for output in others) >= 0.8 * len(others)
    talk = [row["output"] for row in corpus if row["planted"] == "empty_talk"]
    assert len(set(talk)) == len(talk)


# Arithmetic

TERM = r"\(?\$?\d[\d,]*(?:\.\d+)?%?\)?"
EQUATION = re.compile(rf"({TERM}(?: [×÷+-] {TERM})+) = \$?(-?\d[\d,]*(?:\.\d+)?)")
FIRST_STEP = re.compile(r"\(([^()]+)\)")


def value(expression: str) -> Fraction:
    """The exact value of `3 × $4.50`, `(8 + 2) ÷ 5` or `15% × $40`."""
    plain = expression.replace("$", "").replace(",", "")
    while inner := FIRST_STEP.search(plain):
        plain = plain[: inner.start()] + str(value(inner[1])) + plain[inner.end() :]
    total = Fraction(0)
    for sign, product in re.findall(r"(^|[+-]) ?([^+-]+)", plain):
        result = Fraction(1)
        for operation, number in re.findall(r"(^|[×÷]) ?([\d./]+%?)", product.strip()):
            factor = Fraction(number.rstrip("%")) / (100 if number.endswith("%") else 1)
            result = result / factor if operation == "÷" else result * factor
        total += -result if sign == "-" else result
    return total


def test_value_reads_dollars_percent_and_brackets() -> None:
    assert value("15% × $1,200") == 180
    assert value("2 × (8 + 4) - 3") == 21
    assert value("(50 - 32) × 5 ÷ 9") == 10


def test_every_equation_of_the_good_arithmetic_and_unit_rows_holds(good_rows: list[Row]) -> None:
    for row in of_skill(good_rows, "arithmetic") + of_skill(good_rows, "unit_conversion"):
        equations = EQUATION.findall(row["output"])
        assert equations, row
        for left, right in equations:
            tolerance = Fraction(1, 20) if "÷ 9" in left else 0  # degrees Celsius are rounded
            error = abs(value(left) - Fraction(right.replace(",", "")))
            assert error <= tolerance, (row["id"], left, right)


def numbers(text: str) -> list[Fraction]:
    found = re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", text)
    return [Fraction(number.replace(",", "")) for number in found]


def sum_of_products(n: list[Fraction]) -> Fraction:
    return n[0] * n[2] + n[1] * n[3]


SOLVERS: dict[str, Callable[[list[Fraction]], Fraction]] = {
    r"bakes \d+ trays": lambda n: n[0] * n[1] - n[2],
    r"for adults and \$\d+ for children": sum_of_products,
    r"fence a rectangular garden|A rectangular meadow": lambda n: 2 * (n[0] + n[1]) - n[2],
    r"^.*The hall in \w+( \w+)? has \d+ rows": lambda n: n[0] * n[1] - n[2] - n[3],
    r"The tent has \d+ rows": lambda n: n[2] * n[3] - n[0] - n[1],
    r"What is the average|Find the mean": lambda n: sum(n, Fraction(0)) / len(n),
    r"mixed in the ratio": lambda n: n[1] * n[2] / (n[0] + n[1]),
    r"get off and \d+ get on": lambda n: n[0] - n[1] + n[2] - n[3],
    r"each and pays with a": lambda n: n[4] - n[0] * n[1] - n[2] * n[3],
    r"normal hours and": lambda n: n[0] * n[1] + n[0] * Fraction(3, 2) * n[2],
    r"It is reduced by": lambda n: n[0] * (1 - n[1] / 100) - n[2],
    r"simple interest per year": lambda n: n[0] * (1 + n[1] / 100 * n[2]),
    r"litres a minute (run|leak)|litres leak": lambda n: n[0] + n[3] * (n[1] - n[2]),
    r"has read \d+ of them": lambda n: (n[0] - n[1]) / n[2],
    r"is on page \d+": lambda n: (n[0] - n[1]) / n[2],
    r"workers need|people take": lambda n: n[0] * n[1] / n[2],
    r"How many do not\?": lambda n: n[0] * (1 - n[1] / 100),
    r"[Tt]iles": lambda n: Fraction(-(-(n[0] * n[1]) // n[2])),
    r"grams of \w+ are needed": lambda n: n[1] / n[0] * n[2],
    r"lunch\. Besides": lambda n: (n[1] + n[2]) / n[0],
    r"left over\?": lambda n: n[0] % n[1],
    r"divide \d+ \w+ so that": lambda n: n[1] % n[0],
    r"uses 1/\d": lambda n: n[0] * (1 - 1 / n[2]) * (1 - 1 / n[4]),
    r"gives away 1/\d": lambda n: n[0] * (1 - 1 / n[2]) * (1 - 1 / n[4]),
}


def test_arithmetic_answers_agree_with_solving_the_question_again(good_rows: list[Row]) -> None:
    solved: Counter[str] = Counter()
    for row in of_skill(good_rows, "arithmetic"):
        question = f"{row['instruction']} {row['input']}"
        for pattern, solve in SOLVERS.items():
            if re.search(pattern, question):
                answer, first_line = solve(numbers(question)), row["output"].splitlines()[0]
                last = numbers(row["output"].splitlines()[-1])[-1]
                first = numbers(first_line.partition(" The calculation:")[0])
                assert answer == last or answer in first, (row["id"], question, answer)
                solved[pattern] += 1
    assert len(solved) >= 20 and sum(solved.values()) >= 80, solved


# Dates


def parsed(text: str) -> datetime:
    return datetime.strptime(text, "%d %B %Y")


def expected_date_answer(question: str) -> str | None:
    """The text that a right answer to some kinds of questions must contain."""
    if later := re.search(r"(\d+ [A-Z]\w+ \d{4}).*Which date is (\d+) days later", question):
        due = parsed(later[1]) + timedelta(days=int(later[2]))
        return f"{due:%A}, {due.day} {due:%B %Y}"
    if ages := re.search(r"was born on (\d+ \w+ \d{4})\. .* on (\d+ \w+ \d{4})\?", question):
        born, today = parsed(ages[1]), parsed(ages[2])
        had = (today.month, today.day) >= (born.month, born.day)
        return f"is {today.year - born.year - (not had)} years."
    if nth := re.search(r"the (second|third|fourth) (\w+) of (?:every|the) month", question):
        month = re.search(r" 1 (\w+ \d{4}) is a", question)
        assert month, question
        day = parsed(f"1 {month[1]}")
        while f"{day:%A}" != nth[2]:
            day += timedelta(days=1)
        day += timedelta(weeks=("second", "third", "fourth").index(nth[1]) + 1)
        return f"to {day.day} {day:%B %Y}."
    if leap := re.search(
        r"Is (\d{4}) a leap|February (\d{4}) have|the year (\d{4}) have", question
    ):
        year = int(next(group for group in leap.groups() if group))
        days = (datetime(year + 1, 1, 1) - datetime(year, 1, 1)).days
        return f"{year} has {days} days"
    return None


def test_date_answers_agree_with_the_calendar(good_rows: list[Row]) -> None:
    checked = 0
    for row in of_skill(good_rows, "dates"):
        expected = expected_date_answer(f"{row['instruction']} {row['input']}")
        assert expected is None or expected in row["output"], (expected, row)
        checked += expected is not None
    assert checked >= 20


# Python


def read_checks() -> dict[str, str]:
    """Function name -> expression that must be true, from the file of functions."""
    text = (DEMO_DIR / "content" / "functions.txt").read_text(encoding="utf-8")
    records = re.split(r"^== ", text, flags=re.MULTILINE)[1:]
    return {
        record.split("\n", 1)[0]: record.split("\n@check ", 1)[1].split("\n", 1)[0]
        for record in records
    }


def evaluate(code: str, expression: str) -> Any:
    """Runs the code of an output, fenced or bare, and then an expression on what it defines."""
    fence = re.search(r"```python\n(.*?)```", code, re.DOTALL)
    source = f"{fence[1] if fence else code}\n\nANSWER = {expression}\n"
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(source, "<row>", "exec"), names)
    return names["ANSWER"]


def test_python_outputs_compile_and_pass_their_check(good_rows: list[Row]) -> None:
    checks = read_checks()
    seen = set()
    for row in of_skill(good_rows, "python"):
        if defined := re.search(r"^def (\w+)\(", row["output"], re.MULTILINE):
            assert evaluate(row["output"], checks[defined[1]]), row["id"]
            seen.add(defined[1])
        else:
            said = re.search(r"So `(.+)` is `(.+)`\.$", row["output"], re.DOTALL)
            assert said, row["id"]
            assert evaluate(row["input"], f"({said[1]}) == ({said[2]})"), row["id"]
    assert len(seen) >= 80


def test_planted_bugs_fail_the_check(corpus: list[Row]) -> None:
    checks = read_checks()
    rows = [row for row in of_skill(corpus, "python") if row["planted"] == "wrong_answer"]
    assert rows
    for row in rows:
        defined = re.search(r"^def (\w+)\(", row["output"], re.MULTILINE)
        assert defined, row["id"]
        try:
            passed = evaluate(row["output"], checks[defined[1]])
        except Exception:
            passed = False
        assert not passed, row["id"]


# Extraction


def test_extracted_values_occur_in_their_text(good_rows: list[Row]) -> None:
    checked = 0
    for row in of_skill(good_rows, "extraction"):
        if row["output"].startswith("{"):
            text = f"{row['instruction']} {row['input']}".lower()
            for key, found in json.loads(row["output"]).items():
                words = re.findall(r"\w+", found.lower())
                assert sum(word in text for word in words) * 2 >= len(words), (row["id"], key)
            checked += 1
    assert checked >= 20
