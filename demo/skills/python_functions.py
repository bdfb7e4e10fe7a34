"""Small Python functions: write one, complete one, or say what a call returns.

Every function in demo/content/functions.txt carries a check, which the tests run against the code
of its rows.
"""

from __future__ import annotations

import re
from random import Random

from .content import Record, filled, phrases, pick, read_records
from .item import Item
from .words import capitalised


def make_python_functions(rng: Random) -> list[Item]:
    """One writing or completing task per function, then, as a second choice, a reading task."""
    records = read_records("functions")
    first = [complete_item(rng, r) if rng.random() < 0.25 else write_item(rng, r) for r in records]
    return first + [read_item(rng, r) for r in records if is_shown(r)]


def check_parts(record: Record) -> tuple[str, str]:
    """The check's call and its expected value as source text."""
    check = record.one("check")
    left, _, right = check.rpartition(" is " if check.endswith(" is True") else "==")
    return left.strip(), right.strip()


def signature(record: Record) -> str:
    """`name(parameters)`."""
    match = re.search(r"def (\w+\(.*\)):", record.one("code"))
    assert match, f"record {record.key!r} has no function"
    return match.group(1)


def is_simple(record: Record) -> bool:
    """Whether the check is one readable call that may be quoted in a prompt."""
    call, _ = check_parts(record)
    return call.startswith(record.key + "(") and "\n" not in call and "__" not in call


def is_shown(record: Record) -> bool:
    """Whether the check may be shown in a row at all; @plain says that it is only for the tests."""
    return "plain" not in record.fields


def write_item(rng: Random, record: Record) -> Item:
    """Asks for a function by description."""
    prompts = [p for p in phrases("write_function") if is_simple(record) or "{call}" not in p]
    call, value = check_parts(record)
    values = {"signature": signature(record), "name": record.key, "ask": record.one("ask")}
    instruction = filled(rng.choice(prompts), {**values, "call": call, "value": value})
    usable = [style for style in CODE_STYLES if style is not with_usage or is_shown(record)]
    render = rng.choice(usable)
    code = record.one("code")
    wrong = record.spoiled(code)
    return Item(
        record.key, instruction, "", render(record, code), render(record, wrong) if wrong else ""
    )


def complete_item(rng: Random, record: Record) -> Item:
    """Asks to complete a signature with a docstring."""
    code = with_docstring(record, record.one("code"))
    end = code.index('"""\n', code.index('"""') + 3) + 3
    wrong = record.spoiled(record.one("code"))
    lead = pick(rng, "complete_function")
    return Item(record.key, lead, code[:end], code, with_docstring(record, wrong) if wrong else "")


def read_item(rng: Random, record: Record) -> Item:
    """Asks what a call of given code returns."""
    call, value = check_parts(record)
    output = f"The function {record.one('ask')}. {record.one('note')} So `{call}` is `{value}`."
    prompts = phrases("read_function")  # the first one suits any expression
    prompt = rng.choice(prompts if is_simple(record) else prompts[:1])
    return Item(
        record.key, filled(prompt, {"call": call}), record.one("code"), output, answer=value
    )


def bare(record: Record, code: str) -> str:
    """The code and nothing else."""
    return code


def fenced(record: Record, code: str) -> str:
    """The code in a fence with a sentence below it."""
    return f"```python\n{code}\n```\n{record.one('note')}"


def with_docstring(record: Record, code: str) -> str:
    """The code with a docstring made of the task."""
    head, body = re.split(r"(?<=:)\n(?=    )", code, maxsplit=1)
    return f'{head}\n    """{capitalised(record.one("ask"))}."""\n{body}'


def with_comment(record: Record, code: str) -> str:
    """The code with its idea in a comment on top."""
    return f"# {record.one('note')}\n{code}"


def introduced(record: Record, code: str) -> str:
    """A sentence, then the code in a fence."""
    return f"Here is a function that {record.one('ask')}:\n\n```python\n{code}\n```"


def with_usage(record: Record, code: str) -> str:
    """The idea, the documented code and an example call."""
    call, value = check_parts(record)
    documented = with_docstring(record, code)
    note, usage = record.one("note"), f"print({call})  # {value}"
    return f"{note}\n\n```python\n{documented}\n\n\n{usage}\n```"


CODE_STYLES = (bare, bare, fenced, with_usage, with_usage, with_docstring, with_comment, introduced)
