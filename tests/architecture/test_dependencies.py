"""What `pip install .` brings is what a run needs; what only some commands need, they ask for."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# What a module is called where it is installed, if not by its own name.
DISTRIBUTIONS = {"faiss": "faiss-cpu", "sklearn": "scikit-learn", "yaml": "pyyaml"}
DISTRIBUTIONS |= {"rouge_score": "rouge-score", "sentence_transformers": "sentence-transformers"}
DISTRIBUTIONS |= {"vl_convert": "vl-convert-python"}
# Parts of what is required.
DISTRIBUTIONS |= {"llvmlite": "numba", "markupsafe": "jinja2", "pydantic_core": "pydantic"}
WITH_CUDA = {"triton"}  # comes with torch where that has CUDA, and is done without elsewhere


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", line)[0] for line in requirements}


REQUIRED = names(PROJECT["dependencies"])
EXTRA = {
    name for extra in ("eval", "study") for name in names(PROJECT["optional-dependencies"][extra])
}


def imported(node: ast.AST, *, at_once: bool = True) -> Iterator[tuple[str, bool]]:
    """Foreign modules below a node, each with whether importing the file imports it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        found = [alias.name for alias in child.names] if isinstance(child, ast.Import) else []
        found += [str(child.module)] if isinstance(child, ast.ImportFrom) else []
        for name in {name.split(".")[0] for name in found} - {"engine"} - sys.stdlib_module_names:
            yield name, at_once
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from imported(child, at_once=at_once and not inside)


FILES = sorted((ROOT / "engine").rglob("*.py"))
IMPORTS = {path: list(imported(ast.parse(path.read_text("utf-8")))) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_imported_is_required_or_asked_for_where_it_is_used(path):
    for name, at_once in IMPORTS[path]:
        distribution = DISTRIBUTIONS.get(name, name)
        if distribution in REQUIRED:
            continue
        assert distribution in EXTRA | WITH_CUDA, f"{name}: add it to pyproject.toml"
        assert not at_once, f"{name} is an extra: import it in the function that needs it"


def test_no_stage_of_a_run_needs_an_extra():
    """A run has neither charts nor grades: who imports an extra is of a study or an evaluation."""
    users = {
        path.relative_to(ROOT / "engine").as_posix()
        for path, found in IMPORTS.items()
        if any(DISTRIBUTIONS.get(name, name) in EXTRA for name, _ in found)
    }
    assert users == {"evaluation/metrics.py", "selection/baselines.py", "study/figures.py"}
