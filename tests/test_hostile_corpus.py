"""A corpus of strangers through the whole pipeline: ids, column names and texts stay data.

Whatever they hold, nothing is written outside the run directory, no file is named by them, no page
and no terminal acts on them, and the rows come out as they went in.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import engine
from engine.artifacts.run_directory import RunDirectory
from engine.commands.command_line import main_of_run
from engine.config import parse_config
from engine.selection.explain import explain
from engine.stages.pipeline import run
from engine.terminal.progress import say
from tests.small_job import WORDS, write_rows

MARK = "ZqMARK"  # in all that a stranger chose
IDS = (
    f"../../../{MARK}-up",
    f"/tmp/{MARK}-absolute",
    f"a/../../{MARK}",
    f"{MARK}\x00nul",
    f"{MARK}\n../x",
    f"..\\{MARK}\\windows",
    f"~/{MARK}",
    f"$(touch {MARK})`touch {MARK}`",
    f"{MARK}\x1b[2J\x1b]0;title\x07\x9b31m\r",
    f"\u202e{MARK}\u2066\u200b",
    f"<script>alert('{MARK}')</script>",
    f"\"><img src=x onerror=alert('{MARK}')>",
    f"</title></style></textarea>--><svg onload='{MARK}'>",
    f'=cmd|"/c {MARK}"!A1',
    f"@SUM({MARK})",
    f"--{MARK}",
    f"{{{{ {MARK} }}}}{{% raw %}}",
    f"{MARK} " + "x" * 100_000,
    ".",
    "..",
    "con",
    "manifest.json",
)
UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069]")
ACTIVE = {"script", "img", "iframe", "object", "embed", "link", "base", "form", "input", "button"}
ACTIVE |= {"textarea", "foreignobject", "animate", "set", "use", "image", "audio", "video"}


SCRIPT = Path(engine.__file__).parent / "report" / "page.js"


class Page(HTMLParser):
    """The elements of a page and the text that it shows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile_rows() -> list[dict]:
    return [
        {
            "id": row_id,
            "instruction": f"{IDS[-1 - i][:200]} Repeat: {WORDS[i % 10]} {i}",
            "output": f"{row_id[:200]} {WORDS[i % 7]}",
            f"../{MARK}<img src=x onerror=alert(1)>\x1b[31m": row_id[:50],
            f"</script>{MARK}": f"<b>\u202e{MARK}" if i % 2 else "",
        }
        for i, row_id in enumerate(IDS)
    ]


@pytest.fixture(scope="module")
def hostile_run(small_job, tmp_path_factory):
    """(run directory, the folder round it, what was there before)."""
    outside = tmp_path_factory.mktemp("outside")
    for folder in ("cwd", "home", "data", "a/b"):
        (outside / folder).mkdir(parents=True)
    corpus = outside / "data" / f"{MARK}<img src=x onerror=alert(2)>&\x1b[31m.jsonl"
    lines = [json.dumps(row) for row in hostile_rows()]
    lines += [json.dumps({"id": row_id, "instruction": "", "output": "x"}) for row_id in IDS]
    corpus.write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_rows(outside / "data" / "rest.jsonl", 200, 1, "c")
    job = {
        **small_job,
        "corpus": {"path": [str(corpus), str(outside / "data" / "rest.jsonl")]},
        "teacher": {"name": "delift_se", "model": small_job["embedding"]["model"]},
        "selection": {"budget": 222},
        "report": {
            "known_bad_column": f"</script>{MARK}",
            "title": f"<script>{MARK}</script>\u202e\x1b[31m",
            "num_examples": 50,
        },
        "run_dir": str(outside / "a" / "b" / "run"),
    }
    before = files_in(outside)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(outside / "cwd")
        patch.setenv("HOME", str(outside / "home"))
        directory = run(parse_config(job))
    return directory, outside, before


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def test_nothing_is_written_outside_the_run_directory(hostile_run):
    directory, outside, before = hostile_run
    inside = directory.path.relative_to(outside).as_posix()
    after = {n: b for n, b in files_in(outside).items() if not n.startswith(inside)}
    assert after == before
    assert not list(Path("/tmp").glob(f"{MARK}*"))


def test_no_file_is_named_by_a_row(hostile_run):
    directory, _, _ = hostile_run
    names = [path.relative_to(directory.path) for path in directory.path.rglob("*")]
    assert len(names) > 30
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9._/-]+", name.as_posix()) and ".." not in name.parts
        assert MARK not in name.as_posix() and len(name.name) < 60
    for manifest in directory.path.rglob("manifest.json"):
        parts = json.loads(manifest.read_text())["parts"]
        paths = [Path(part["path"]) for group in parts.values() for part in group]
        assert not [path for path in paths if path.is_absolute() or ".." in path.parts]


def test_rows_come_out_as_they_went_in(hostile_run):
    """All rows are selected; NUL alone is taken out of ids, which ingest says and counts."""
    directory, _, _ = hostile_run
    subset = directory.artifact("7-selection").directory / "subset.jsonl"
    lines = subset.read_text(encoding="utf-8").split("\n")[:-1]
    rows = {row["id"]: row for row in map(json.loads, lines)}
    for row in hostile_rows():
        found = rows[row["id"].replace("\0", "")]
        for name, value in row.items():
            if name != "id":
                texts = ("instruction", "output")  # those of which NUL is taken out, too
                assert found[name] == (value.replace("\0", "") if name in texts else value)
    table = pq.read_table(subset.with_suffix(".parquet"))
    assert {row["id"].replace("\0", "") for row in hostile_rows()} <= set(table["id"].to_pylist())
    assert directory.artifact("1-corpus").counts["candidates_quarantined"] == len(IDS)


def test_the_page_shows_them_and_acts_on_none(hostile_run):
    directory, _, _ = hostile_run
    html = directory.artifact("8-report").path("report").read_text(encoding="utf-8")
    page = Page(html)
    active = [tag for tag, _ in page.elements if tag in ACTIVE]
    assert len(page.elements) > 500 and active == ["script"]
    assert f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>" in html
    for _, attributes in page.elements:
        assert not [n for n in attributes if n.startswith("on") or n in ("src", "srcdoc", "action")]
        assert (attributes.get("href") or "#").startswith("#")
        assert MARK not in str(attributes)  # corpus text is shown, never part of an element
    assert not UNFIT.search(html) and "@import" not in html and "url(" not in html
    text = " ".join(page.text.split())
    assert f"<script>alert('{MARK}')</script>" in text and "U+202E" in text and "U+001B" in text
    assert f"{{{{ {MARK} }}}}" in text and f"onerror=alert('{MARK}')>" in text
    assert f"{MARK}<img src=x onerror=alert(2)>&" in text  # the name of the file
    assert len(html) < 2**20


def test_explaining_them_is_fit_for_a_terminal(hostile_run, capsys):
    directory, _, _ = hostile_run
    run_dir = RunDirectory(directory.path)
    corpus, selection = run_dir.artifact("1-corpus"), run_dir.artifact("7-selection")
    for row_id in (*IDS, "nobody"):

        def job(arguments, row_id=row_id):
            told = explain(corpus, selection, row_id.replace("\0", ""))
            say("\n  ".join(told["why"]))
            return told

        code = main_of_run("", {}, job, ["--run-dir", str(directory.path)])
        printed = capsys.readouterr()
        assert code == (2 if row_id == "nobody" else 0)
        assert not UNFIT.search(printed.err) and len(printed.err) < 10_000
        assert not UNFIT.search(printed.out)
        if code == 0:
            assert json.loads(printed.out)["id"] == row_id.replace("\0", "")
            assert all(line.startswith("  ") for line in printed.err.splitlines()[1:])


@pytest.mark.parametrize(
    "row",
    [
        {"id": 5.5, f"{MARK}\x1b[31m\ninstruction": "x"},
        {f"{MARK}\x1b[31m\r": "x", "output": "y"},
        {"messages": [{"role": f"{MARK}\x1b[2J", "content": "x"}]},
        {"instruction": f"{MARK}\x1b", "output": 5},
    ],
)
def test_an_error_about_a_row_is_fit_for_a_terminal(small_job, tmp_path, monkeypatch, capsys, row):
    path = tmp_path / f"{MARK}\x1b[31m\u202e.jsonl"
    path.write_text(json.dumps(row) + "\n")
    corpus = {"path": str(path), "on_bad_row": "stop"}
    config = parse_config({**small_job, "corpus": corpus, "run_dir": str(tmp_path / "run")})

    def job(arguments):
        run(config, until="ingest")
        return {}

    assert main_of_run("", {}, job, ["--run-dir", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert not UNFIT.search(printed) and MARK in line and "\\x1b[31m\\u202e" in line
