"""Who may import whom. The rules are those of engine/README.md."""

import ast
import re
from pathlib import Path

import pytest

ENGINE = Path(__file__).resolve().parents[2] / "engine"

# Lowest first; a module may import from layers below its own, and within its own package. One thing
# goes up, by name and at run time: `components` finds the class that a setting names, which
# test_components.py holds to be found cheaply.
LAYERS = [
    {"errors", "spelling", "terminal"},
    {"components", "storage"},
    {"score_files"},
    {"example", "config"},
    {"kernels"},
    {"artifacts"},
    {"runtime", "models"},
    {"features"},
    {"corpus", "teachers", "network", "selection", "report", "evaluation"},
    {"students"},
    {"audit", "influence"},
    {"stages"},
    {"exports", "planning"},
    {"study"},
    {"commands"},
]
# Everything else works on whatever executor it is given.
RAY = ("runtime/ray_*.py", "study/tune.py")


def modules():
    for path in sorted(ENGINE.rglob("*.py")):
        if path != ENGINE / "__init__.py":
            yield path


def unit_of(path):
    """The layer member that a file belongs to: its package, or itself at the top."""
    return path.relative_to(ENGINE).parts[0].removesuffix(".py")


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(unit):
    found = [number for number, layer in enumerate(LAYERS) if unit in layer]
    assert found, f"engine/{unit} is in no layer: add it here and to engine/README.md"
    return found[0]


@pytest.mark.parametrize("path", list(modules()), ids=lambda p: str(p.relative_to(ENGINE)))
def test_imports_go_down(path):
    unit = unit_of(path)
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "engine" or len(parts) < 2 or parts[1] == unit:
            continue
        if not (ENGINE / parts[1]).exists() and not (ENGINE / f"{parts[1]}.py").exists():
            continue  # a public name of the package itself
        assert layer_of(parts[1]) < layer_of(unit), f"{unit} imports {name}"


@pytest.mark.parametrize("path", list(modules()), ids=lambda p: str(p.relative_to(ENGINE)))
def test_one_place_knows_ray(path):
    if not any(path.relative_to(ENGINE).match(pattern) for pattern in RAY):
        assert not [name for name in imported(path) if name.split(".")[0] == "ray"]


# Modules that open files which are not a run's: a user's, a model's, a checkpoint of Ray Train's.
OPENS_OTHERS = {
    "run_directory.py",
    "storage.py",
    "score_files.py",
    "corpus/readers.py",
    "corpus/slices.py",
    "network/training.py",
    "network/ensemble.py",
    "teachers/less.py",
}
READERS = re.compile(
    r"\b(np\.load|pq\.read_table|feather\.read_table|safe_open|load_file|ParquetFile|read_metadata)"
    r"\((?!storage\.fetch\()"
)


@pytest.mark.parametrize("path", list(modules()), ids=lambda p: str(p.relative_to(ENGINE)))
def test_files_of_a_run_are_read_where_they_may_have_to_be_brought(path):
    """A run may lie in object storage: the readers of run_directory and `fetch` bring its files."""
    if unit_of(path) in {"models", "kernels"} or str(path.relative_to(ENGINE)) in OPENS_OTHERS:
        return
    assert not READERS.findall(path.read_text(encoding="utf-8"))
