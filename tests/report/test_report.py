"""The whole stage on a run written by hand: facts, page, headline; no Ray."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import engine.report.page
from engine.artifacts.files import read_table, write_json
from engine.artifacts.run_directory import Artifact
from engine.audit.audit import NOT_AUDITED
from engine.config import Config
from engine.errors import SettingsError
from engine.stages.report import write_report
from tests.report.synthetic_run import settings, write_run

SCRIPT = Path(engine.report.page.__file__).parent / "page.js"
VOID = {"meta", "br", "img", "link"}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return write_run(tmp_path_factory.mktemp("run"))


def write(
    artifacts: dict[str, Artifact], directory: Path, **report: Any
) -> tuple[str, dict[str, Any]]:
    counts = write_report(settings(**report), artifacts, directory)
    return (directory / "report.html").read_text(encoding="utf-8"), counts


class Page(HTMLParser):
    """Checks that elements nest, and collects them and the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


def test_the_headline(artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    _, counts = write(artifacts, tmp_path, known_bad_column="planted")
    json.dumps(counts, allow_nan=False)
    assert {k: counts[k] for k in ("candidates", "targets", "selected", "quarantined")} == {
        "candidates": 60,
        "targets": 12,
        "selected": 20,
        "quarantined": 7,
    }
    assert counts["trusted"] is True and counts["verdict"].startswith("Trusted: ")
    assert (counts["spearman"], counts["r2"]) == (0.55, 0.3)
    assert (counts["teacher"], counts["teacher_calls"], counts["unscorable"]) == ("delift", 110, 2)
    assert (counts["teacher_seconds"], counts["full_teacher_seconds"]) == (205, 1446)
    assert counts["total_seconds"] == 10 + 9 + 10 + 205 + 10 + 1 + 10
    assert counts["saved"] == pytest.approx(1 - 255 / 1446)
    assert counts["known_bad"] == {
        "selected": 2,
        "in_pool": 6,
        "expected_by_chance": 2.0,
        "cosine_round_robin": 2,
    }
    assert counts["in_cosine_round_robin"] == 0
    assert counts["asked_selected"] == {"selected": 3, "expected_by_chance": 20 * 15 / 60}
    assert counts["zero_gain_picks"] == 5
    assert Path(counts["report"]).is_file() and Path(counts["subset"]).is_file()
    ledger = json.loads((tmp_path / "ledger.json").read_text(encoding="utf-8"))
    assert ledger["saved"] == counts["saved"] and len(ledger["stages"]) == 7


def test_the_page_is_self_contained_and_well_formed(
    artifacts: dict[str, Artifact], tmp_path: Path
) -> None:
    html, _ = write(artifacts, tmp_path, known_bad_column="planted")
    page = Page(html)
    tags = [tag for tag, _ in page.elements]
    assert not set(tags) & {"link", "img", "iframe", "object", "input", "button"}
    assert tags.count("script") == 1
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "src"]
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in html and "@import" not in html
    assert "undefined" not in page.text.replace("not defined", "") and "None" not in page.text


def test_its_policy_lets_its_own_script_run_alone(
    artifacts: dict[str, Artifact], tmp_path: Path
) -> None:
    html, _ = write(artifacts, tmp_path)
    (script,) = re.findall("<script>(.*?)</script>", html, flags=re.DOTALL)
    assert script == SCRIPT.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}';" in html


def test_sections_stand_in_the_readers_order(
    artifacts: dict[str, Artifact], tmp_path: Path
) -> None:
    html, _ = write(artifacts, tmp_path, known_bad_column="planted")
    sections = re.findall(r'<section id="([a-z-]+)"', html)
    expected = "verdict funnel fidelity scores gains free composition examples map lookup known-bad"
    expected += " cost provenance"
    assert sections == expected.split()


@pytest.mark.parametrize("recall", [None, 1.0, 0.981])
def test_what_a_prefilter_left_out_is_told(tmp_path: Path, recall: float | None) -> None:
    artifacts = write_run(tmp_path / "run", dense=recall is None)
    counts = artifacts["predict"].manifest["counts"]
    if recall is not None:
        counts |= {"neighbours": 64, "recall": recall}
        counts |= {"targets_compared_with_all": 5, "pool_rows": 1234.5} if recall < 1 else {}
    (tmp_path / "out").mkdir()
    text = " ".join(Page(write(artifacts, tmp_path / "out")[0]).text.split())
    assert ("the 64 best candidates of each target" in text) == (recall is not None)
    assert ("98.1 % of the true ones" in text) == (recall == 0.981)
    assert ("(5 of 12 were)" in text) == (recall == 0.981)


def test_corpus_text_is_escaped(artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    html, _ = write(artifacts, tmp_path, num_examples=30, title="<b>\u202etitle</b>")
    page = Page(html)
    assert html.count("<script") == 1 and "onerror=alert(1)&gt;" in html
    assert not re.search("[\x00-\x08\x0b-\x1f\u200b\u202a-\u202e\u2066-\u2069]", html)
    assert "<i>U+202E</i>" in html and "<i>U+0007</i>" in html
    assert "{{ 7 * 7 }}" in page.text  # corpus text is no template
    assert "the student <does> R² −0.030" in page.text.replace("The student", "the student")


def test_numbers_are_on_the_page(artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    html, _ = write(artifacts, tmp_path, known_bad_column="planted")
    text = " ".join(Page(html).text.replace("\N{NO-BREAK SPACE}", " ").split())
    assert "From rank 16 on no candidate added anything: 5 picks (25 %)" in text
    assert "marks 6 of 60 candidates (10 %)" in text
    assert "The selection holds 2; a random one of the same size would hold 2.0" in text
    assert (
        "80 % of the teacher's calls, for 80 of the 100 labelled pairs, judged the student" in text
    )
    assert "82 % saved" in text
    cells = re.findall(
        '<td class="num">(.*?)</td>', html[html.index('<th scope="row">candidates') :]
    )
    # read, filtered out, quarantined, leaks, duplicates, kept, learned from, selected; the targets
    assert cells[:8] == ["75", "3", "7", "2", "3", "60", "9", "20"]
    assert cells[8:16] == ["12", "0", "0", "0", "0", "12", "4", "–"]
    assert "id occurs before" in text and "2 NUL characters" in text
    assert "kept out of training" in text and "Drawn:" not in text


def test_leaks_are_shown_beside_what_they_repeat(
    artifacts: dict[str, Artifact], tmp_path: Path
) -> None:
    html, counts = write(artifacts, tmp_path)
    text = " ".join(Page(html).text.split())
    assert (counts["leaked"], counts["duplicates"]) == (2, 3)
    assert counts["leaks"]["protect"] == {"exact": 0, "13-gram": 2, "near": 1}
    assert "2 of them were left out" in text and "3 candidates say what another one says" in text
    places = [text.index(f"candidate {number} ") for number in (2, 3, 0, 1)]
    assert places == sorted(places)  # what was left out comes first, then by kind
    assert "protect: " in text and "protected 2 {{ 7 * 7 }}" in text
    for kept in ("leaks", "candidates_leaked", "candidates_duplicates"):
        artifacts["ingest"].manifest["counts"].pop(kept)
    html, counts = write(artifacts, tmp_path)
    assert counts["leaks"] is None and "repeat targets" not in html
    assert '<th scope="col" class="num">Leaks</th>' not in html


def test_a_dropped_row_stands_beside_the_pick_nearest_to_it(
    artifacts: dict[str, Artifact], tmp_path: Path
) -> None:
    html, _ = write(artifacts, tmp_path)
    table = html[html.index('id="lookup"') : html.index('id="cost"')]
    assert table.count("<tr>") == 1 + 40 and table.count('<tr class="kept">') == 20
    text = " ".join(Page(html).text.split())
    assert "All 60 candidates" in text and "zero-gain pick" in text
    told = read_table(artifacts["select"].path("explanations")).to_pylist()
    rank = told[told[39]["nearest"]]["rank"]  # row 39 is the best of the dropped ones
    near = text[text.rindex("ask 39") :]
    assert f"near miss: nearest is rank {rank}ask {told[39]['nearest']}" in near[:800]
    assert f"{told[39]['similarity']:.3f}".replace("-", "−") in near[:900]


def test_the_composition_column(artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    html, _ = write(artifacts, tmp_path)
    assert "web&lt;b&gt;" in html and "(another one: <code>report.composition_column" in html
    html, _ = write(artifacts, tmp_path, composition_column="planted")
    assert "without a value" in html and "another one" not in html
    with pytest.raises(SettingsError, match=r"no column 'nope' .* found planted, source"):
        write(artifacts, tmp_path, composition_column="nope")


def test_the_page_stays_below_a_megabyte(artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    html, _ = write(artifacts, tmp_path, num_examples=1000, known_bad_column="planted")
    assert len(html.encode()) < 1_000_000
    assert html.count('<li class="example">') == 20 + 50  # all picks; the cap of the other end


@pytest.mark.parametrize("text", ["<" * 1000, "語" * 1000, "\u202e" * 1000, "word " * 400])
def test_a_page_with_all_rows_that_it_may_have_stays_below_five_megabytes(
    tmp_path: Path, text: str
) -> None:
    artifacts = write_run(tmp_path / "run", num_candidates=8000, texts=[text])
    html, _ = write(artifacts, tmp_path, num_examples=1000, known_bad_column="planted")
    assert html.count('<path class="picked"') == html.count('<path class="dropped"') == 1500
    assert html.count('<tr class="kept">') == 900 and len(html.encode()) < 5 * 10**6


def test_the_same_artifacts_give_the_same_bytes(
    artifacts: dict[str, Artifact], tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert write(artifacts, tmp_path / "a")[0] == write(artifacts, tmp_path / "b")[0]


def test_a_network_that_failed_is_called_so(tmp_path: Path) -> None:
    artifacts = write_run(tmp_path / "run", trusted=False, dense=False)
    html, counts = write(artifacts, tmp_path)
    assert counts["trusted"] is False and counts["verdict"].startswith("Not to be trusted: ")
    assert "The student is not to be trusted" in html
    assert "Predicted influence against" not in html  # no dense matrix, no scatter
    assert counts["known_bad"] is None and 'id="known-bad"' not in html


def test_a_run_without_an_audit(tmp_path: Path) -> None:
    artifacts = write_run(tmp_path / "run")
    fidelity = artifacts["fit"].path("fidelity")
    reason = "3 teacher labels are too few to learn from and to audit"
    values = {**NOT_AUDITED, "reasons": [reason]}
    values |= {"judged_quadrant": None, "shares": {}}
    fidelity.write_text(json.dumps(values), encoding="utf-8")
    html, counts = write(artifacts, tmp_path, num_examples=0)
    assert (counts["spearman"], counts["r2"]) == (None, None)
    assert reason in counts["verdict"] and "too few labels to audit" in html
    Page(html)


def test_an_unknown_known_bad_column(artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="found planted, source"):
        write(artifacts, tmp_path, known_bad_column="nope")
    assert not (tmp_path / "report.html").exists()


def test_every_model_of_the_teacher_says_whether_it_runs_code(tmp_path: Path) -> None:
    artifacts = write_run(tmp_path / "run")
    identity = {"further_models": [{"model": "sha256:second"}]}
    artifacts["score"].manifest["settings"]["identity"] = identity
    second = {"path": "some/second", "trust_remote_code": True, "revision": "c" * 40}
    teacher = {"name": "selectit", "model": {"path": "a/first"}, "selectit": {"models": [second]}}
    config = Config.model_validate({"corpus": {"path": "a.jsonl"}, "teacher": teacher})
    write_report(config, artifacts, tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    (line,) = re.findall("<tr>.*some/second.*</tr>", html)
    assert "sha256:second" in line and "yes: trust_remote_code is on" in line


def changed(path: Path, stage: str, **counts: Any) -> dict[str, Artifact]:
    """A run of its own whose manifest of one stage says something else."""
    artifacts = write_run(path)
    artifacts[stage].manifest["counts"] |= counts
    return artifacts


def test_a_teacher_of_rows_is_told_in_rows(tmp_path: Path) -> None:
    html, _ = write(changed(tmp_path / "run", "sample", pairwise=False), tmp_path)
    text = Page(html).text
    assert "100 of 60 rows" in text and "rows labelled" in text
    assert "Rows that it never met." in text
    assert "audited targets" not in text and "split halves" not in text


def test_a_full_teacher_has_no_network_to_trust(tmp_path: Path) -> None:
    artifacts = write_run(tmp_path / "run")
    reason = "no student was needed: the teacher itself was asked about everything"
    found = {**NOT_AUDITED, "trusted": True, "reasons": [reason]}
    write_json(artifacts["fit"].path("fidelity"), found)
    html, counts = write(artifacts, tmp_path)
    assert "The teacher itself chose" in html and "too few labels" not in html
    assert counts["verdict"] == f"The teacher's own scores: {reason}."
    assert counts["spearman"] is None
