"""The page itself: facts into the template, charts included. Escapes everything, loads nothing.

Its one script is the file page.js, and the page's own policy lets no other text run: it names the
script's hash. Without scripts, all is there but the search, the sorting and the notes of the map
beside the pointer, which are then the browser's own.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from engine.report import charts, wording
from engine.report.facts import Facts
from engine.report.fidelity_facts import PREDICTORS, QUADRANTS
from engine.report.ledger import saved_sentence
from engine.report.lookup import Lookup
from engine.report.picks import MAX_EXAMPLES, Distribution, GainCurve

__all__ = ["render"]

_FILTERS = (
    wording.count,
    wording.decimal,
    wording.duration,
    wording.interval,
    wording.percent,
    wording.ratio,
    wording.significant,
    wording.times,
    wording.visible,
)
# Predictors that order pairs at all; the chart shows the first three.
RANKED = ("student", "cosine", "linear", "kernel", "vectors", "vector_network", "network")
# A log axis pays once gains differ by more than this.
LOG_AXIS_FROM = 30.0
MAX_SETTINGS = 40_000  # characters: a corpus may be a list of a hundred thousand files
_ROLES = {
    "student": "what predicted",
    "mean": "the mean of the training labels, always",
    "zero": "0, always",
    "permuted": "the same student, fitted on answers dealt out anew among the candidates: what it "
    "knows is the targets",
    "cosine": "cosine of the two texts' embeddings",
    "linear": "ridge regression on the same features",
    "kernel": "kernel ridge regression to the labels",
    "vectors": "kernel ridge regression to the teacher's vectors",
    "vector_network": "an InfluenceNetwork with the teacher's vectors as outputs",
    "network": "the InfluenceNetwork",
}


def render(facts: Facts) -> str:
    """The whole page. The same facts give the same bytes."""
    script = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
    quadrants = facts.fidelity["quadrants"].values()
    measured = {name for quadrant in quadrants for name in quadrant["scores"]}
    others = sorted(measured - set(PREDICTORS))  # students of installed packages
    script_hash = hashlib.sha256(script.encode()).digest()
    return (
        _environment()
        .get_template("template.html")
        .render(
            facts=facts,
            ledger=facts.ledger,
            charts=_charts(facts),
            predictors=(*PREDICTORS, *others),
            ranked=(*RANKED, *others),
            roles={**_ROLES, **{name: f"student {name}" for name in others}},
            quadrants=QUADRANTS,
            saved_sentence=saved_sentence(facts.ledger),
            chance_words=_chance_words(facts),
            max_examples=MAX_EXAMPLES,
            max_settings=MAX_SETTINGS,
            script=Markup(script),
            script_hash=base64.b64encode(script_hash).decode(),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({function.__name__: function for function in _FILTERS})
    environment.filters["prose"] = prose
    return environment


def prose(sentence: str) -> str:
    """A sentence of a JSON file as the page writes it."""
    text = sentence.replace("R^2", "R²").replace(" -", f" {wording.MINUS}").strip()
    text = text.replace(" %", "\N{NO-BREAK SPACE}%")
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _chance_words(facts: Facts) -> str:
    """Whether the selection avoids the known bad rows, in one sentence."""
    marked = facts.known_bad
    if marked is None:
        return ""
    if marked.in_pool == 0:
        return "No row of the pool is marked, so there is nothing to compare."
    if marked.in_pool == marked.num_candidates:
        return "Every row of the pool is marked: is this the right column?"
    if marked.chance.p_value >= 0.05:
        return "That is no more than chance could do: the selection neither avoids nor seeks them."
    if marked.selected < marked.chance.mean:
        return "That is fewer than chance explains: the selection avoids them."
    return "That is more than chance explains: the selection seeks them out."


# --- charts --------------------------------------------------------------------------------------


def _charts(facts: Facts) -> dict[str, Markup | None]:
    gains = facts.gains
    return {
        "influence": _histogram(
            "Mean influence: all candidates, and the selected", facts.influence
        ),
        "labels": _histogram("The teacher's labels: all, and unseen pairs", facts.labels),
        "gains": _gains(gains),
        "reached": charts.curve(
            "Share of the objective reached after each pick",
            gains.reached,
            "rank",
            "share reached",
            gains.tail_from,
        ),
        "spearman": _spearman(facts.fidelity),
        "calibration": _calibration(facts),
        "map": _map(facts.lookup),
    }


def _histogram(title: str, found: Distribution) -> Markup:
    return charts.histogram(
        title, found.edges, found.base, found.compared, "influence, in the teacher's units"
    )


def _gains(gains: GainCurve) -> Markup:
    positive = [gain for _, gain in gains.gains if gain > 0]
    log_y = bool(positive) and max(positive) > LOG_AXIS_FROM * min(positive)
    label = "gain (log scale)" if log_y else "gain"
    title = "Gain of each pick, by rank"
    # over all ranks, so that the tail keeps its place on the axis
    points = gains.gains if gains.tail_from is None else [*gains.gains, (float(gains.num_picks), 0)]
    if gains.tail_from is not None and not log_y:
        points = [*gains.gains, (float(gains.tail_from), 0.0), (float(gains.num_picks), 0.0)]
    return charts.curve(title, points, "rank", label, gains.tail_from, log_y)


def _spearman(fidelity: dict[str, Any]) -> Markup | None:
    rows = []
    for name, quadrant in fidelity["quadrants"].items():
        measured = [(name, quadrant["scores"].get(name)) for name in RANKED[:3]]
        dots = [
            charts.Dot(predictor, score["within"], *(score["within_interval"] or (None, None)))
            for predictor, score in measured
            if score is not None and score["within"] is not None
        ]
        rows.append(charts.IntervalRow(name, dots))
    if not rows:
        return None
    return charts.interval_plot("Spearman with the teacher, by quadrant", rows, "Spearman")


def _calibration(facts: Facts) -> Markup | None:
    found = facts.calibration
    if found is None:
        return None
    title = "Predicted influence against the teacher's label, unseen pairs"
    return charts.scatter(title, found.points, found.bin_means, "predicted", "teacher's label")


def _map(lookup: Lookup) -> Markup | None:
    if lookup.map is None:
        return None
    points = []
    for point in lookup.map.points:
        place = "Not selected" if point.rank is None else f"Rank {wording.count(point.rank)}"
        facts = f"{place} · mean influence {wording.significant(point.mean_influence)}"
        lines = [facts, point.text.id, point.text.prompt, f"→ {point.text.answer}"]
        kind = "dropped" if point.rank is None else "picked"
        note = Markup("\n").join(wording.spelled_out(line) for line in lines)
        points.append(charts.Noted(kind, point.x, point.y, note))
    return charts.point_map("Embeddings of candidates: selected rows and others", points)
