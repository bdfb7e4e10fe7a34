"""The documents: every command parses, every link leads somewhere, what is generated is new."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import itertools
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine
from engine.commands import command_line
from engine.commands.start import main as nn_cift

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ALL_PAGES = [
    *PAGES,
    *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *(ROOT / folder / "README.md" for folder in ("benchmarks", "demo", "engine")),
    *sorted((ROOT / "benchmarks/results").glob("*.md")),
]
RESULTS = ROOT / "benchmarks/results"
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Commands of other programs, which no parser of ours can check; files that they name must exist.
NOT_PARSED = {
    "ray up cluster.yaml": "starts a cloud's machines; tests/test_cluster_files.py checks the file",
    "ray dashboard cluster.yaml": "needs the cluster of ray up",
    "trl sft": "TRL is not in the environment; docs/export.md says what was run",
    "llamafactory-cli train": "nor is LLaMA-Factory",
    "axolotl train": "nor is Axolotl",
    "ray start --head": "starts a cluster; tests/integration/test_job_submit.py does it",
    "pip install .": "tests/integration/test_wheel.py does it",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- commands ------------------------------------------------------------------------------------


def blocks(page: Path) -> Iterator[str]:
    """The blocks of a page that hold commands: fenced ones without a language, indented ones."""
    text = page.read_text(encoding="utf-8")
    yield from (code for language, code in FENCE.findall(text) if language in ("", "bash", "sh"))
    if page.parent.name in ("benchmarks", "results"):
        yield from re.findall(r"(?:^    (?:python|    ).*\n)+", FENCE.sub("", text), re.MULTILINE)


def commands(text: str) -> Iterator[list[str]]:
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words:
            yield words


def first_lines() -> Iterator[tuple[str, list[str]]]:
    """The commands that configs open with."""
    for path in sorted((ROOT / "jobs/configs").glob("*.yaml")):
        (words,) = commands(path.read_text().splitlines()[0].removeprefix("# "))
        yield name_of(path), words


def found() -> list[tuple[str, list[str]]]:
    pages = [*PAGES, ROOT / "benchmarks/README.md", *sorted(RESULTS.glob("*.md"))]
    of_pages = [
        (name_of(page), words)
        for page in pages
        for block in blocks(page)
        for words in commands(block)
    ]
    return [*of_pages, *first_lines()]


FOUND = found()


def make_targets() -> set[str]:
    lines = (ROOT / "Makefile").read_text().splitlines()
    return {match[1] for line in lines if (match := re.match(r"([a-z-]+):", line))}


def parse_job(program: str, words: list[str], monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """Run a job or nn-cift as far as its command line: flags and settings are checked, no more."""

    def only_parse(original, no_job):
        def parse(*arguments, **named):
            jobs = {k: no_job for k in named if k == "job"}
            return original(*(no_job if callable(a) else a for a in arguments), **{**named, **jobs})

        return parse

    for name in ("main", "main_of_run"):
        original = getattr(command_line, name)
        monkeypatch.setattr(command_line, name, only_parse(original, lambda arguments: {}))
    (place / "jobs").symlink_to(ROOT / "jobs")
    (place / "best.yaml").write_text((ROOT / "jobs/configs/study_size.yaml").read_text())
    for flag, value in itertools.pairwise(words):
        if flag == "--run-dir" and "://" not in value:  # jobs on a finished run look for it
            (place / value).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", [program, *words])
    with pytest.raises(SystemExit) as ended:
        if program == "nn-cift":
            sys.exit(nn_cift())
        runpy.run_path(str(ROOT / program), run_name="__main__")
    assert ended.value.code == 0


class ParsedError(Exception):
    """The command line of a benchmark was understood."""


def parse_benchmark(script: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    original = argparse.ArgumentParser.parse_args

    def parse_args(self, *arguments, **named):
        self.allow_abbrev = False
        original(self, *arguments, **named)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", [script, *words])
    with pytest.raises(ParsedError):
        runpy.run_path(str(ROOT / script), run_name="__main__")


def check(words: list[str], monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    program, *rest = words
    line = " ".join(words)
    if any(line == known or line.startswith(f"{known} ") for known in NOT_PARSED):
        assert all((ROOT / word).is_file() for word in rest if word.endswith(".yaml"))
    elif program == "make":
        targets = [word for word in rest if "=" not in word]
        assert targets and set(targets) <= make_targets()
    elif words[:3] == ["ray", "job", "submit"]:
        known = {"--address": 1, "--working-dir": 1}
        flags = rest[2 : rest.index("--")]
        while flags:
            del flags[: 1 + known[flags[0]]]
        check(rest[rest.index("--") + 1 :], monkeypatch, place)
    elif Path(program).name == "nn-cift":
        parse_job("nn-cift", rest, monkeypatch, place)
    elif Path(program).name in ("python", "python3"):
        script, *flags = rest
        assert (ROOT / script).is_file(), script
        if script.startswith("jobs/"):
            parse_job(script, flags, monkeypatch, place)
        elif script.startswith("benchmarks/"):
            parse_benchmark(script, flags, monkeypatch)
        else:
            pytest.fail(f"no parser for {script}")
    else:
        pytest.fail(f"unknown command: {' '.join(words)}")


@pytest.mark.parametrize(
    ("page", "words"), FOUND, ids=[f"{page}: {' '.join(words)[:60]}" for page, words in FOUND]
)
def test_every_command_parses(page, words, monkeypatch, tmp_path):
    check(words, monkeypatch, tmp_path)


def test_commands_are_found_and_the_list_of_exceptions_is_short():
    told = [" ".join(words) for _, words in FOUND]
    assert len(told) > 50 and "make demo" in told
    needed = [name for name in NOT_PARSED if any(line.startswith(name) for line in told)]
    assert needed == list(NOT_PARSED), "an exception that no page needs"


@pytest.mark.parametrize(
    "line",
    [
        "make demos",
        "python jobs/select.py --config jobs/configs/nowhere.yaml",
        "python jobs/select.py --config jobs/configs/demo.yaml --selection.bugdet 3",
        "python jobs/select.py --config jobs/configs/demo.yaml --selection.budget 1.5",
        "python jobs/plan.py --config",
        "python jobs/explain.py --run-dir runs/demo",
        "python benchmarks/cost.py --qualities DIR",
        "python benchmarks/cost.py --qual DIR",
        "python benchmarks/nothing.py",
        "nn-cift slect --config jobs/configs/demo.yaml",
        "nn-cift plan --config jobs/configs/demo.yaml --gpu-speed 2",
        "ray up another.yaml",
        "ray job submit --adress x -- python jobs/plan.py --config jobs/configs/demo.yaml",
        "pip install something",
    ],
)
def test_a_wrong_command_is_noticed(line, monkeypatch, tmp_path):
    (words,) = commands(line)
    with pytest.raises((AssertionError, SystemExit, KeyError, pytest.fail.Exception)):
        check(words, monkeypatch, tmp_path)


@pytest.mark.parametrize("page", ALL_PAGES, ids=name_of)
def test_what_is_named_in_a_sentence_exists(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    assert set(re.findall(r"`make ([a-z-]+)`", text)) <= make_targets()
    scripts = re.findall(r"(?<![\w/])((?:jobs|benchmarks|scripts)/\w+\.py)\b", text)
    assert not [script for script in scripts if not (ROOT / script).is_file()]


# --- links ---------------------------------------------------------------------------------------


def links(page: Path) -> Iterator[str]:
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))
    yield from re.findall(r"\]\(([^)\s]+)\)", text)


def anchors(page: Path) -> set[str]:
    """The anchors of a page, as GitHub and mkdocs make them of its headings."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    words = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"[\s]", "-", heading) for heading in words}


@pytest.mark.parametrize("page", ALL_PAGES, ids=name_of)
def test_every_link_leads_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        if ":" in path:
            assert path.startswith("https://"), link
            continue
        there = (page.parent / path).resolve() if path else page
        assert there.exists() and there.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(there), link


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert not [page.name for page in PAGES[1:] if f" {page.name}\n" not in navigation]


# --- what is generated, and what must be complete ------------------------------------------------


@pytest.fixture(scope="module")
def settings_script():
    spec = importlib.util.spec_from_file_location("settings", ROOT / "scripts/settings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_of_settings_is_that_of_the_models(settings_script, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["settings.py", "--check"])
    assert settings_script.main() == 0, "run python scripts/settings.py"
    monkeypatch.setattr(settings_script, "HEAD", "# Another\n")
    assert settings_script.main() == 1


def test_every_setting_says_what_it_means(settings_script):
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in settings_script.page().splitlines()
        if line.startswith("| `")
    ]
    assert len(rows) > 100
    sections = ("[section]", "[execution]", "[teacher]")  # their own tables say it
    assert not [row[0] for row in rows if not row[4] and not row[1].startswith(sections)]


@pytest.mark.parametrize("name", engine.__all__)
def test_public_names_are_documented_and_typed(name):
    public = getattr(engine, name)
    members = [(name, public)]
    if inspect.isclass(public):
        own = {key: value for key, value in vars(public).items() if inspect.isfunction(value)}
        members += [(k, v) for k, v in own.items() if k == "__init__" or not k.startswith("_")]
    for member, value in members:
        assert member == "__init__" or inspect.getdoc(value), member
        signature = inspect.signature(value)
        for parameter in signature.parameters.values():
            assert parameter.name == "self" or parameter.annotation is not parameter.empty, member
        if not inspect.isclass(value):
            assert signature.return_annotation is not signature.empty, member


def test_types_are_shipped():
    assert (ROOT / "engine/py.typed").is_file()
    assert '"py.typed"' in (ROOT / "pyproject.toml").read_text()


def test_every_section_of_the_report_is_explained():
    template = (ROOT / "engine/report/template.html").read_text()
    sections = re.findall(r'<section id="([\w-]+)"', template)
    page = (ROOT / "docs/report.md").read_text()
    assert len(sections) > 8
    assert [section for section in sections if f"`#{section}`" not in page] == []


def bench_commands() -> list[list[str]]:
    text = (ROOT / "Makefile").read_text()
    variables = dict(re.findall(r"^([A-Z]+) :?= ?(.*)$", text, re.MULTILINE))
    recipe = text[text.index("\nbench: ") :].split("\n\n")[0].split("\n", 2)[2]
    filled = re.sub(r"\$\((\w+)\)", lambda match: variables[match[1]], recipe)
    return list(commands(re.sub(r"^\t", "", filled, flags=re.MULTILINE)))


def test_make_bench_makes_every_published_file():
    written = {word for words in bench_commands() for word in words if "results/" in word}
    for path in RESULTS.iterdir():
        if path.is_dir() or path.suffix == ".json":
            assert name_of(path) in written, path
        else:  # a page beside the JSON that holds its rows
            assert path.suffix == ".md"
            assert any(Path(name).stem.split("-")[0] == path.stem for name in written), path


def test_make_bench_runs_the_commands_that_the_results_name():
    def told(words):
        """{flag: values} without directories, and the script."""
        script = next(word for word in words if word.endswith(".py"))
        flags = {"": []}  # a subcommand comes before all flags
        for word in words[words.index(script) + 1 :]:
            if word.startswith("--"):
                flags[word] = []
            else:
                flags[next(reversed(flags))].append(word)
        for flag in ("--work", "--answers", "--quality", "--runs", "--markdown"):
            flags.pop(flag, None)
        return script, flags

    bench = [told(words) for words in bench_commands()]
    pages = sorted(RESULTS.glob("*.md"))
    named = [words for page in pages for block in blocks(page) for words in commands(block)]
    assert len(named) > 8
    for words in named:
        script, flags = told(words)
        if "--json" in flags:
            assert (script, flags) in bench, words
        else:  # the page does not say where the JSON lies
            assert any(s == script and flags.items() <= f.items() for s, f in bench), words


def test_make_bench_parses(monkeypatch):
    for words in bench_commands():
        with monkeypatch.context() as patch:
            parse_benchmark(words[1], words[2:], patch)


def test_hooks_before_a_commit_fetch_nothing():
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"repo: (.*)", text) == ["local"]
    assert set(re.findall(r"language: (.*)", text)) == {"system"}
