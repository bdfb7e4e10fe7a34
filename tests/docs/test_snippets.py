"""The code in the documents: docs/python.md runs, docs/extending.md does what it says."""

from __future__ import annotations

import ast
import inspect
import operator
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import engine

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def fences(name: str) -> list[tuple[str, str]]:
    """(what stands after the backticks, code) of a page."""
    return FENCE.findall((ROOT / "docs" / name).read_text(encoding="utf-8"))


def test_the_notebook_runs(capsys):
    blocks = [code for kind, code in fences("python.md") if kind == "python"]
    assert len(blocks) > 6
    names = {}
    for code in blocks:
        exec(compile(code, "docs/python.md", "exec"), names)
    learned = float(capsys.readouterr().out.split()[0])
    assert learned > 0.7, "the page shows a network that learns"


@pytest.mark.parametrize("page", ["python.md", "../README.md"])
def test_code_that_is_not_run_names_what_there_is(page):
    """Calls in code that needs a finished run, or names from elsewhere, fit the functions."""
    for kind, code in fences(page):
        if not kind.startswith("python"):
            continue
        for node in ast.walk(ast.parse(code)):
            if not isinstance(node, ast.Call) or not ast.unparse(node.func).startswith("engine."):
                continue
            name = ast.unparse(node.func).removeprefix("engine.")
            function = operator.attrgetter(name)(engine)
            given = {word.arg: word.value for word in node.keywords}
            inspect.signature(function).bind(*node.args, **given)


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The engine and its tests, by links, but for what the page adds and changes."""
    root = tmp_path_factory.mktemp("extended")
    written = {}
    for kind, code in fences("extending.md"):
        language, title = re.fullmatch(r'(\w+) title="(.*)"', kind).groups()
        if language == "toml":
            assert code in (ROOT / title).read_text(encoding="utf-8")
        elif language == "diff":
            text = written.get(title) or (ROOT / title).read_text(encoding="utf-8")
            written[title] = with_lines(text, code)
        else:
            assert not (ROOT / title).exists(), f"{title}: one file, and a new one"
            written[title] = code
    for name in ("engine", "tests", "pyproject.toml"):
        link(root, Path(name), {Path(title) for title in written})
    for title, text in written.items():
        (root / title).write_text(text, encoding="utf-8")
    return root


def with_lines(text: str, diff: str) -> str:
    """The text with the one added line of a diff in its place, which must be one place."""
    lines = diff.splitlines()
    assert sum(line.startswith("+") for line in lines) == 1, "one line"
    before = "\n".join(line[1:] for line in lines if line.startswith(" "))
    after = "\n".join(line[1:] for line in lines)
    assert text.count(before) == 1, f"the page is old, or the place is not the only one:\n{before}"
    return text.replace(before, after)


def link(root: Path, name: Path, written: set[Path]) -> None:
    """Link a file or folder into the copy; make it anew if something in it is written."""
    if name in written:
        return
    if not any(name in path.parents for path in written):
        (root / name).symlink_to(ROOT / name)
        return
    (root / name).mkdir()
    for child in (ROOT / name).iterdir():
        if child.name != "__pycache__":
            link(root, name / child.name, written)


def run(root: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_is_one_file_and_one_test():
    kinds = [kind for kind, _ in fences("extending.md")]
    lines = [kind for kind in kinds if kind.startswith("diff")]
    tests = [kind for kind in kinds if 'python title="tests/' in kind]
    files = [kind for kind in kinds if 'title="engine/' in kind and kind not in lines]
    assert len(tests) == len(files) == 3
    assert len(lines) == 1, "a metric"


PIPELINE = """
import sys
from pathlib import Path

import pytest

from engine.stages import pipeline
from engine.config import parse_config
from engine.artifacts.files import read_table
from tests.small_job import make_small_job


def test_both_in_a_run(tmp_path, monkeypatch):
    job = make_small_job(tmp_path)
    job |= {"teacher": {"name": "overlap"}, "selection": {"budget": 30, "objective": "top_max"}}
    job["run_dir"] = str(tmp_path / "run")
    run = pipeline.run(parse_config(job))
    assert run.artifact("7-selection").counts["objective"] == "top_max"
    assert run.artifact("7-selection").counts["selected"] == 30
    scores = read_table(run.artifact("4-teacher").path("labels"))["score"].to_numpy()
    assert 0 <= scores.min() < scores.max() <= 1
    assert run.artifact("8-report") is not None
"""


def test_the_page_does_what_it_says(copy):
    """Its tests pass on the copy, its files are well formed, and a run uses what it adds."""
    kinds = [kind for kind, _ in fences("extending.md") if not kind.startswith("toml")]
    titles = [re.search(r'title="(.*)"', kind)[1] for kind in kinds]
    tests = [title for title in titles if title.startswith("tests/")]
    (copy / "tests/test_both.py").write_text(PIPELINE)
    told = run(copy, "-m", "pytest", "-v", *tests, "tests/test_both.py")
    assert "4 passed" in told
    run(copy, "-m", "ruff", "check", *dict.fromkeys(titles))
    run(copy, "-m", "ruff", "format", "--check", *dict.fromkeys(titles))


def test_without_the_file_it_is_unknown(tmp_path):
    run(ROOT, "-c", UNKNOWN)


UNKNOWN = """
from engine.config import parse_config
from engine.errors import SettingsError
for section, values in (("teacher", {"name": "overlap"}), ("selection", {"objective": "top_max"})):
    try:
        parse_config({"corpus": {"path": "x"}, section: values})
    except SettingsError as error:
        assert section in str(error)
    else:
        raise AssertionError(section)
"""
