"""The promises of SECURITY.md that the text of the programs can be held to.

Each rule is first shown to catch what it forbids.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("engine", "jobs", "benchmarks", "demo", "scripts")
PROGRAMS = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

# Modules that run what they read, unpack archives, or listen.
MODULES = {"pickle", "_pickle", "cPickle", "joblib", "dill", "cloudpickle", "marshal", "shelve"}
MODULES |= {"zipfile", "tarfile", "code", "codeop"}
MODULES |= {"socketserver", "http.server", "xmlrpc.server"}
# Calls that run what they are given or read, or write what a spreadsheet or a shell would run.
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
CALLS |= {"torch.load", "pd.read_pickle", "pandas.read_pickle", "shutil.unpack_archive"}
CALLS |= {"yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"}
CALLS |= {"csv.writer", "csv.DictWriter", "tempfile.mktemp"}
METHODS = frozenset(("extractall", "read_pickle", "to_pickle", "to_csv", "unpack_archive"))
ARGUMENTS = {
    "allow_pickle": True,
    "shell": True,
    "trust_remote_code": True,
    "weights_only": False,
    "use_safetensors": False,
    "autoescape": False,
}
LOADERS = frozenset(("from_pretrained", "from_config", "SentenceTransformer"))
ALL_INTERFACES = re.compile(
    r"""0\.0\.0\.0|["']::["']|dashboard.host["']?[=:\s](?!\s*["']?127\.0\.0\.1)"""
)


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def forbidden(source: str) -> Iterator[str]:
    """What a program does that none of ours may do."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module), *(f"{node.module}.{name}" for name in names)]
            yield from (f"import {name}" for name in names if name in MODULES | CALLS)
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in CALLS or name.rpartition(".")[2] in METHODS:
                yield name
            for word in node.keywords:
                value = word.value.value if isinstance(word.value, ast.Constant) else ...
                if word.arg in ARGUMENTS and value == ARGUMENTS[word.arg]:
                    yield f"{word.arg}={value}"
        elif isinstance(node, ast.Dict):
            for key, inner in zip(node.keys, node.values, strict=True):
                name = key.value if isinstance(key, ast.Constant) else None
                value = inner.value if isinstance(inner, ast.Constant) else ...
                if name in ARGUMENTS and value == ARGUMENTS[str(name)]:
                    yield f"{name}: {value}"


def unsaid_trust(source: str) -> Iterator[str]:
    """Loaders of models that are not told whether to run code: transformers would ask."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] in LOADERS:
            names = {word.arg for word in node.keywords}
            if not names & {"trust_remote_code", None}:  # None: **arguments
                yield f"line {node.lineno}: {dotted(node.func)}"


def loose_templates(source: str) -> Iterator[str]:
    """Jinja environments that do not escape everything."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] == "Environment":
            told = [word.value for word in node.keywords if word.arg == "autoescape"]
            if not told or not (isinstance(told[0], ast.Constant) and told[0].value is True):
                yield f"line {node.lineno}"


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (forbidden, "import pickle"),
        (forbidden, "def f():\n    from joblib import load"),
        (forbidden, "import http.server"),
        (forbidden, "from http import server"),
        (forbidden, "from torch import load\nfrom os import system"),
        (forbidden, "import torch\ntorch.load(path, weights_only=True)"),
        (forbidden, "np.load(path, allow_pickle=True)"),
        (forbidden, "f(**{'allow_pickle': True})"),
        (forbidden, "yaml.load(text, Loader=yaml.Loader)"),
        (forbidden, "eval(text)"),
        (forbidden, "exec(text)"),
        (forbidden, "os.system(command)"),
        (forbidden, "subprocess.run(command, shell=True)"),
        (forbidden, "AutoModel.from_pretrained(x, trust_remote_code=True)"),
        (forbidden, "AutoModel.from_pretrained(x, use_safetensors=False)"),
        (forbidden, "archive.extractall(folder)"),
        (forbidden, "frame.to_csv(path)"),
        (forbidden, "csv.writer(file)"),
        (unsaid_trust, "AutoModel.from_pretrained(x, gguf_file=y)"),
        (unsaid_trust, "SentenceTransformer(x)"),
        (loose_templates, "Environment(loader=x)"),
        (loose_templates, "jinja2.Environment(autoescape=select_autoescape())"),
    ],
)
def test_the_rules_catch_what_they_forbid(rule: Callable[[str], Iterator[str]], source: str):
    assert list(rule(source))


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "re.compile(x)",
        "np.load(path)",
        "yaml.safe_load(text)",
        "csv.reader(file)",
        "safe_open(path, 'pt')",
        "subprocess.run([x], check=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=config.trust_remote_code)",
        "AutoModel.from_pretrained(x, **shared)",
        "Environment(loader=x, autoescape=True)",
    ],
)
def test_and_nothing_else(source: str):
    assert not [*forbidden(source), *unsaid_trust(source), *loose_templates(source)]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_programs_run_nothing_that_they_read(path: Path):
    source = path.read_text(encoding="utf-8")
    assert not list(forbidden(source))
    assert not list(unsaid_trust(source))
    assert not list(loose_templates(source))


def test_templates_escape_everything():
    templates = sorted((ROOT / "engine").rglob("*.html"))
    pages = [path for path in templates if "<!doctype" in path.read_text(encoding="utf-8")]
    assert len(templates) == 4 and len(pages) == 2  # the others are pieces of a page
    for path in templates:
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*(safe|tojson)\b|autoescape", source), path
        assert not re.search(r"""\s(src|href)\s*=\s*["'](?!#)|@import|url\(""", source), path
        assert path not in pages or "default-src 'none'" in source


def test_the_script_of_a_page_makes_no_markup():
    """What it shows it sets as text, and it reaches no other place."""
    (path,) = (ROOT / "engine").rglob("*.js")
    source = path.read_text(encoding="utf-8")
    unfit = r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(|fetch|XMLHttp"
    unfit += r"|import|WebSocket|sendBeacon|postMessage|localStorage|cookie|</|<!--"
    assert not re.search(unfit, source)


def test_markup_is_made_in_few_places():
    """Markup is text that is not escaped any more; who makes it must have escaped it."""
    users = {
        path.relative_to(ROOT / "engine").as_posix()
        for path in PROGRAMS
        if path.is_relative_to(ROOT / "engine") and "Markup(" in path.read_text(encoding="utf-8")
    }
    files = {"report/charts.py", "report/page.py", "report/wording.py", "study/figures.py"}
    assert users == files


def tracked(*patterns: str) -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True
    )
    found = [ROOT / name for name in done.stdout.split("\0") if name]
    return found or [path for pattern in patterns for path in ROOT.rglob(pattern)]


@pytest.mark.parametrize(
    "text",
    ["--host 0.0.0.0", "--dashboard-host=::", 'dashboard-host: "0"', "dashboard_host='::'"],
)
def test_all_interfaces_are_recognised(text: str):
    assert ALL_INTERFACES.search(text)
    assert not ALL_INTERFACES.search('--dashboard-host=127.0.0.1 dashboard-host: "127.0.0.1"')


def test_nothing_of_ours_listens_on_all_interfaces():
    files = [*tracked("*.yaml", "*.yml", "Makefile", "Dockerfile*"), *PROGRAMS]
    assert {"cluster.yaml", "rayjob.yaml", "Makefile"} <= {path.name for path in files}
    for path in files:
        hits = ALL_INTERFACES.findall(path.read_text(encoding="utf-8"))
        assert not hits, f"{path}: {hits}"


def test_no_setting_that_ships_trusts_the_code_of_a_model():
    configs = tracked("jobs/configs/*.yaml")
    assert len(configs) > 3
    for path in configs:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert "trust_remote_code" not in str(values), path


def test_what_parses_files_of_strangers_is_current():
    """From these on: no dataset scripts, no pickled extension types, no foreign classes."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pins = re.findall(r"^([a-z0-9-]+)==(\d+)\.(\d+)", lock, flags=re.MULTILINE)
    floors = {
        "datasets": (4, 0),  # runs no script of a data set
        "gguf": (0, 17),
        "jinja2": (3, 1),
        "pyarrow": (17, 0),  # CVE-2023-47248 and CVE-2024-52338 are below
        "safetensors": (0, 5),
        "sentence-transformers": (6, 0),  # imports no class that a local model names
        "torch": (2, 6),  # CVE-2025-32434
        "transformers": (5, 0),
    }
    for name, floor in floors.items():
        found = [(int(major), int(minor)) for pin, major, minor in pins if pin == name]
        assert found and all(version >= floor for version in found), name
    assert not re.search(r"^(kernels|hf-kernels)==", lock, flags=re.MULTILINE)  # code of a hub


def test_the_promises_name_tests_that_exist():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[\w/.-]+)`", text))
    assert len(named) >= 8
    assert not [name for name in named if not (ROOT / name).exists()]
    promises = re.findall(r"^- \*\*.*?(?=^- |^\S|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert len(promises) >= 8
    assert not [promise for promise in promises if "`tests/" not in promise]
