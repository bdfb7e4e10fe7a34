"""The page in a real browser: nothing is loaded, nothing complains, search, order and map work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.stages.report import write_report
from tests.browser import Browser, find_chromium
from tests.report.synthetic_run import settings, write_run

PROGRAM = find_chromium()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no chromium is installed: apt install chromium"),
]
ROWS = "[...document.querySelectorAll('.rows tbody tr')]"
SHOWN = f"{ROWS}.filter(row => row.offsetHeight > 0)"
PHONE, DESKTOP = 390, 1280


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    chosen = settings(known_bad_column="planted", num_examples=30, title="<b>\u202eHostile</b>")
    write_report(chosen, write_run(folder / "run"), folder)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    found = Browser(PROGRAM, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


def column(browser: Browser, name: str) -> list[Any]:
    """The numbers of a column, in the order that is shown; None where there is none."""
    found: list[Any] = browser.run(
        f"{SHOWN}.map(row => row.querySelector('.{name}').dataset.v ?? null)"
    )
    return [None if value is None else float(value) for value in found]


def sort_by(browser: Browser, heading: str) -> str:
    """Click on a heading; the order that it then announces."""
    th = (
        f"[...document.querySelectorAll('.rows th')].find(h => h.innerText.startsWith('{heading}'))"
    )
    browser.run(f"{th}.querySelector('button').click()")
    told: str = browser.run(f"{th}.getAttribute('aria-sort')")
    return told


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_it_opens_without_a_complaint_and_fits(
    browser: Browser, page: Path, width: int, dark: bool
) -> None:
    browser.open(page, width, dark)
    assert browser.problems == []
    assert browser.requests == [page.absolute().as_uri()]  # the page, and nothing that it loads
    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
    wide = browser.run(
        "[...document.querySelectorAll('main > section > *')].filter("
        "e => e.getBoundingClientRect().right > window.innerWidth + 1).map(e => e.outerHTML)"
    )
    assert wide == []
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper.strip("rgb()").split(","))) < 200) == dark
    assert not browser.run("'alerted' in window") and browser.run("document.images.length") == 0


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_typing_filters_the_table(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width)
    assert browser.run(f"{SHOWN}.length") == 60
    assert browser.run("document.querySelector('.search output').textContent") == "60 of 60 rows"
    browser.run("document.querySelector('.search input').focus()")
    browser.type('"near MISS" answer')
    assert browser.run(f"{SHOWN}.length") == 4
    browser.type(" c37")
    assert browser.run("document.querySelector('.search output').textContent") == "1 of 60 rows"
    assert "ask 37" in browser.run(f"{SHOWN}[0].innerText")
    browser.type(" nowhere")
    assert browser.run(f"{SHOWN}.length") == 0
    assert browser.problems == []


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_headings_sort_it(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width)
    assert column(browser, "r") == [*map(float, range(1, 21)), *[None] * 40]
    assert sort_by(browser, "Mean influence") == "ascending"
    means = column(browser, "m")
    assert means == sorted(means) and len(means) == 60
    assert sort_by(browser, "Mean influence") == "descending"
    assert column(browser, "m") == means[::-1]
    sort_by(browser, "Rank")
    sort_by(browser, "Rank")
    assert column(browser, "r") == [*map(float, range(20, 0, -1)), *[None] * 40]  # unknown last
    sort_by(browser, "Why")
    groups = browser.run(f"{SHOWN}.map(row => row.querySelector('b').textContent)")
    assert groups == sorted(groups)
    assert browser.run("document.querySelectorAll('.rows [aria-sort]').length") == 1


def test_pointing_at_the_map_shows_the_row(browser: Browser, page: Path) -> None:
    browser.open(page, DESKTOP)
    browser.run("document.querySelector('.map').scrollIntoView({block: 'center'})")
    x, y = browser.run(
        "(() => { const svg = document.querySelector('.map svg'), b = svg.getBoundingClientRect();"
        "const [x, y] = svg.querySelector('.picked').getAttribute('d').slice(1).split(/[ h]/);"
        "const s = b.width / svg.viewBox.baseVal.width; return [b.x + x * s, b.y + y * s] })()"
    )
    assert browser.run("document.querySelector('.tip').hidden")
    browser.move_to(x, y)
    note = browser.run("document.querySelector('.tip').innerText")
    assert note.startswith("Rank ") and "mean influence" in note and "→ answer" in note
    inside = "(() => { const tip = document.querySelector('.tip').getBoundingClientRect();"
    inside += "return tip.left >= 0 && tip.right <= innerWidth && tip.height > 40 })()"
    assert browser.run(inside)
    browser.move_to(5, 5)
    assert browser.run("document.querySelector('.tip').hidden")
    browser.run("document.querySelector('.map svg').focus()")
    browser.press("ArrowRight")
    first = browser.run("document.querySelector('.tip').innerText")
    browser.press("ArrowRight")
    assert browser.run("document.querySelector('.tip').innerText") not in ("", first)
    browser.press("Escape")
    assert browser.run("document.querySelector('.tip').hidden") and browser.problems == []


def test_without_scripts_the_rows_are_there(browser: Browser, page: Path) -> None:
    browser.open(page, PHONE, script=False)
    assert browser.run(f"{SHOWN}.length") == 60
    assert browser.run("document.querySelectorAll('input, button').length") == 0
    assert browser.run("document.querySelectorAll('.map path > title').length") == 60


def test_a_script_that_is_not_the_pages_does_not_run(
    browser: Browser, page: Path, tmp_path: Path
) -> None:
    """Were a text of the corpus ever to come through unescaped, the policy would still hold."""
    bad = "<script>window.alerted = 1</script><img src=x onerror='window.alerted = 1'>"
    html = page.read_text(encoding="utf-8").replace("</main>", f"{bad}</main>")
    (tmp_path / "bad.html").write_text(html, encoding="utf-8")
    browser.open(tmp_path / "bad.html", DESKTOP)
    assert not browser.run("'alerted' in window")
    assert len(browser.problems) >= 2 and all("Security" in text for text in browser.problems)
