"""The study's charts as Vega-Lite: pure functions from rows of trials to specifications.

One specification draws the interactive page and the still pictures (`engine.study.figures`). Every
chart that shows a student's error has what knows nothing of it beside it, from the same trials:
the mean, zero, the cosine of the embeddings, ridge regression on them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Chart", "charts_of"]

Row = Mapping[str, Any]
Spec = dict[str, Any]

MEASURES = {"mse_std": "MSE, in label variances", "r2": "R²", "spearman": "Spearman"}
BASELINES = ("linear", "cosine", "mean", "zero")
QUADRANTS = {
    1: "Q1: both sides seen",
    2: "Q2: new target",
    3: "Q3: new candidate",
    4: "Q4: both new",
}
LINEAR = "linear"  # what trial tables call a network without hidden layers
FRACTION, SHAPE, SEED, TEACHER = "sample.fraction", "network.hidden", "seed", "teacher"
_GREY = "#7a7f87"
_COLOURS = {
    "linear": "#4f7a3a",
    "cosine": "#d9a441",
    "mean": _GREY,
    "zero": "#b9bcc2",
}
_SERIES = ("#1f5f99", "#b4530f", "#7d4f9e", "#2d7f86", "#97361f", "#56606e")
_FACET_WIDTH, _FACET_HEIGHT = 210, 190


@dataclass(frozen=True)
class Chart:
    """A chart under its file name, with the sentence that says how to read it."""

    name: str
    title: str
    note: str
    spec: Spec


def charts_of(rows: Sequence[Row], settings: Sequence[str], objective: str) -> list[Chart]:
    """Every chart that the trials can be drawn as.

    Args:
        rows: one per trial: settings, `seed`, measures as `run_trial` names them, and `teacher`
            where several teachers share a chart.
        settings: dotted names of what was studied.
        objective: the measure that the study wants little of.
    """
    rows = [dict(row) for row in rows]
    found: list[Chart] = []
    others = [name for name in settings if name not in (SHAPE, FRACTION)]
    if SHAPE in settings:
        found.append(_sizes(rows))
    if FRACTION in settings:
        found += [_fractions(rows, others, measure) for measure in MEASURES]
        found.append(_prices(rows, others))
        shares = _shares(rows)
        kinds = [("overlap", "Overlap with the teacher's own subset (Jaccard)")]
        kinds += [("value", "What the subset is worth to the teacher, of its own subset's worth")]
        kinds += [("log_likelihood", "Log-likelihood of the test references, given the subset")]
        for kind, title in kinds:
            if any(f"{kind} {share:g}" in row for row in rows for share in shares):
                found.append(_heat(rows, others, shares, kind, title))
    if others:
        found.append(_each_setting(rows, others, objective))
    return found


# --- from trials to numbers over seeds -----------------------------------------------------------


def _aggregate(rows: Iterable[Row], by: Sequence[str], measure: str) -> list[dict[str, Any]]:
    """Mean, least and most of a measure over the rows that agree in `by`."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        value = row.get(measure)
        if value is not None and math.isfinite(value):
            groups.setdefault(tuple(row.get(name) for name in by), []).append(float(value))
    return [
        {
            **dict(zip(by, key, strict=True)),
            "mean": float(np.mean(values)),
            "low": min(values),
            "high": max(values),
            "trials": len(values),
        }
        for key, values in groups.items()
    ]


def _by_quadrant(
    rows: Sequence[Row], by: Sequence[str], predictors: Sequence[str], measure: str
) -> Iterator[dict[str, Any]]:
    for quadrant, words in QUADRANTS.items():
        for predictor in predictors:
            for found in _aggregate(rows, by, f"q{quadrant} {predictor} {measure}"):
                yield {**found, "quadrant": words, "predictor": predictor}


def _facets(rows: Sequence[Row], across: str) -> tuple[list[str], Spec]:
    """Columns to aggregate by, and the facet: `across` in columns, teachers in rows."""
    facet: Spec = {"column": _kind(across)}
    if not any(TEACHER in row for row in rows):
        return [], facet
    return [TEACHER], {**facet, "row": _kind(TEACHER)}


def _number(field: str, title: str | None, **more: Any) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, **more}


def _kind(field: str, title: str | None = None, **more: Any) -> Spec:
    return {"field": field, "type": "nominal", "title": title, **more}


def _layer(mark: Spec | str, *more: Mapping[str, Any], **encoding: Spec) -> Spec:
    """A mark and what it encodes; `more` are further keys of the layer."""
    found: Spec = {"mark": mark, "encoding": encoding}
    for keys in more:
        found |= keys
    return found


def _faceted(values: list[dict[str, Any]], facet: Spec, layers: list[Spec], **more: Any) -> Spec:
    inner = {"width": _FACET_WIDTH, "height": _FACET_HEIGHT, "layer": layers}
    return {"data": {"values": values}, "facet": facet, "spec": inner, **more}


def _scale(measure: str) -> Spec:
    """Errors differ by factors; shares and correlations by differences, and R² has no least."""
    if measure == "mse_std":
        return {"type": "log"}
    return {"domain": [-1, 1], "clamp": True, "zero": False}


def _tooltip(*fields: str) -> Any:
    shown = [{"field": field} for field in fields]
    return [*shown, *({"field": f, "format": ".3g"} for f in ("mean", "low", "high"))]


# --- one chart each ------------------------------------------------------------------------------


def _sizes(rows: Sequence[Row]) -> Chart:
    """Error against parameters, a dot for each shape."""
    by, facet = _facets(rows, "quadrant")
    shapes = list(_by_quadrant(rows, [*by, SHAPE, "parameters"], ["student"], "mse_std"))
    for shape in shapes:
        depth = 0 if shape[SHAPE] == LINEAR else str(shape[SHAPE]).count("-") + 1
        shape["hidden layers"] = str(depth)
        shape["shape"] = shape.pop(SHAPE)
    known = list(_by_quadrant(rows, by, BASELINES, "mse_std"))
    y = _number("mean", MEASURES["mse_std"], scale=_scale("mse_std"))
    axis = {"format": "~s", "tickCount": 4}
    x = _number("parameters", "parameters", scale={"type": "log"}, axis=axis)
    colour = _kind("hidden layers", "hidden layers", scale={"range": _SERIES})
    network = {"transform": [{"filter": "datum.predictor == 'student'"}]}
    rest = {"transform": [{"filter": "datum.predictor != 'student'"}]}
    line, dot = {"type": "rule", "opacity": 0.5}, {"type": "point", "filled": True, "size": 34}
    shown = {"tooltip": _tooltip("shape", "parameters")}
    layers = [
        _layer({"type": "rule", "color": _GREY}, rest, y=y, strokeDash=_dash()),
        _layer(line, network, x=x, y={**y, "field": "low"}, y2={"field": "high"}, color=colour),
        _layer(dot, network, x=x, y=y, color=colour, **shown),
    ]
    return Chart(
        "size",
        "Size of the network",
        "Each dot is a shape of hidden layers, the mean over seeds; its line runs from the least "
        "to the most. Broken lines need no student.",
        _faceted([*shapes, *known], facet, layers),
    )


def _series(row: Row, others: Sequence[str]) -> str:
    """What tells the students of a chart apart, in words."""
    said = ", ".join(str(row.get(name)) for name in others)
    return f"student, {said}" if said else "student"


def _fractions(rows: Sequence[Row], others: Sequence[str], measure: str) -> Chart:
    """A measure against u, with bands over seeds and the baselines of the same trials."""
    by, facet = _facets(rows, "quadrant")
    values = list(_by_quadrant(rows, [*by, FRACTION, *others], ["student"], measure))
    for value in values:
        value["predictor"] = _series(value, others)
    values += _by_quadrant(rows, [*by, FRACTION], BASELINES, measure)
    for value in values:
        value["u"] = value.pop(FRACTION)
    colour = _predictor_colour([value["predictor"] for value in values])
    x = _number("u", "u, share of points the teacher sees", axis={"tickCount": 4})
    y = _number("mean", MEASURES[measure], scale=_scale(measure))
    band = {"type": "area", "opacity": 0.16, "clip": True}
    line = {"type": "line", "point": {"size": 22}, "clip": True}
    shown = {"tooltip": _tooltip("predictor", "u")}
    layers = [
        _layer(band, x=x, y={**y, "field": "low"}, y2={"field": "high"}, color=colour),
        _layer(line, x=x, y=y, color=colour, **shown),
    ]
    return Chart(
        f"fraction-{measure.replace('_', '-')}",
        f"How much the teacher must see: {MEASURES[measure]}",
        "Lines are means over seeds, bands run from the least to the most. Judged on pairs that "
        "the student did not learn from.",
        _faceted(values, facet, layers),
    )


def _prices(rows: Sequence[Row], others: Sequence[str]) -> Chart:
    """The error on unseen pairs against what the teacher cost."""
    by, _ = _facets(rows, "quadrant")
    seconds = {
        tuple(cost[name] for name in (*by, FRACTION)): cost["mean"]
        for cost in _aggregate(rows, [*by, FRACTION], "teacher_cpu_s")
    }
    curves: list[tuple[str, list[str], str]] = [
        (f"q4 {name} mse_std", [], name) for name in BASELINES
    ]
    curves.append(("unseen student mse_std", list(others), ""))
    values = []
    for measure, more, name in curves:
        for found in _aggregate(rows, [*by, FRACTION, *more], measure):
            cost = seconds.get(tuple(found[key] for key in (*by, FRACTION)))
            if cost:
                named = {"predictor": name or _series(found, others), "u": found.pop(FRACTION)}
                values.append({**found, **named, "seconds": cost})
    x = _number("seconds", "CPU seconds of the teacher", scale={"type": "log"})
    y = _number("mean", f"Q4, {MEASURES['mse_std']}", scale=_scale("mse_std"))
    colour = _predictor_colour([value["predictor"] for value in values])
    shown = {"tooltip": _tooltip("predictor", "u")}
    low = {**y, "field": "low"}
    layers = [
        _layer({"type": "rule", "opacity": 0.5}, x=x, y=low, y2={"field": "high"}, color=colour),
        _layer({"type": "line", "point": True}, x=x, y=y, color=colour, **shown),
    ]
    if by:
        spec = _faceted(values, {"column": _kind(TEACHER)}, layers)
        spec["resolve"] = {"scale": {"x": "independent"}}
        spec["spec"] |= {"width": 340, "height": 240}
    else:
        spec = {"data": {"values": values}, "width": 420, "height": 240, "layer": layers}
    return Chart(
        "price",
        "What an answer is worth",
        "Each dot is a share u: what the teacher's answers cost, and the error on pairs of new "
        "candidates and new targets.",
        spec,
    )


def _predictor_colour(predictors: Sequence[str]) -> Spec:
    """Networks in the colours of a series, what needs none in its own."""
    names = sorted(set(predictors) - set(BASELINES))
    colours = [*_SERIES[: len(names)], *(_COLOURS[name] for name in BASELINES)]
    legend = {"symbolOpacity": 1, "symbolType": "stroke", "symbolStrokeWidth": 3}
    scale = {"domain": [*names, *BASELINES], "range": colours}
    return _kind("predictor", scale=scale, legend=legend)


def _shares(rows: Sequence[Row]) -> list[float]:
    """v of the subsets that were measured."""
    names = {name for row in rows for name in row if name.startswith("value ")}
    return sorted(float(name.split()[1]) for name in names)


def _heat(
    rows: Sequence[Row], others: Sequence[str], shares: Sequence[float], kind: str, title: str
) -> Chart:
    """u against v: one fit serves every v."""
    by, _ = _facets(rows, "quadrant")
    values = []
    for share in shares:
        for found in _aggregate(rows, [*by, FRACTION, *others], f"{kind} {share:g}"):
            named = {"student": _series(found, others), "u": f"{found.pop(FRACTION):g}", "v": share}
            values.append({**found, **named})
        for known in ("cosine", "random"):
            for found in _aggregate(rows, [*by, *others], f"{known} {kind} {share:g}"):
                values.append({**found, "student": _series(found, others), "u": known, "v": share})
    asked = sorted({row[FRACTION] for row in rows}, reverse=True)
    order = [*(f"{share:g}" for share in asked), "cosine", "random"]
    x = _kind("v", "v, share selected", type="ordinal")
    y = _kind("u", "u, share asked", type="ordinal", sort=order)
    colour = _number("mean", None, scale={"scheme": "viridis"})
    low, high = (f([v["mean"] for v in values] or [0.0]) for f in (min, max))
    dark = {"test": f"datum.mean < {(low + high) / 2!r}", "value": "white"}
    written = _number("mean", None, format=".2f")
    ink: Spec = {"condition": dark, "value": "black"}
    shown = {"tooltip": _tooltip("u", "v")}
    layers = [
        _layer("rect", x=x, y=y, color=colour, **shown),
        _layer({"type": "text", "fontSize": 8}, x=x, y=y, text=written, color=ink),
    ]
    facet: Spec = {"column": _kind("student")} | ({"row": _kind(TEACHER)} if by else {})
    spec = _faceted(values, facet, layers)
    spec["spec"] |= {"width": 300, "height": 240}
    return Chart(
        f"heat-{kind.replace('_', '-')}",
        title,
        "Means over seeds. One student per u serves every v. Below, what needs none: the cosine "
        "of the embeddings in its place, and rows drawn at random.",
        spec,
    )


def _each_setting(rows: Sequence[Row], others: Sequence[str], objective: str) -> Chart:
    """The objective against each setting, every trial a dot."""
    by, _ = _facets(rows, "quadrant")
    judged = [row for row in rows if row.get(objective) is not None]
    known = [
        {**found, "predictor": name}
        for name in BASELINES
        if " student " in objective
        for found in _aggregate(judged, by, objective.replace("student", name))
    ]
    panels = [_panel(judged, name, objective, by, known) for name in others]
    # not `concat` with columns: the browser's Vega gives that no size
    return Chart(
        "settings",
        "Every setting that was tried",
        "Each dot is a trial, whatever its other settings; bars are medians. Broken lines need no "
        "student.",
        {"vconcat": [{"hconcat": panels[i : i + 3]} for i in range(0, len(panels), 3)]},
    )


def _panel(
    rows: Sequence[Row], name: str, objective: str, by: Sequence[str], known: list[dict[str, Any]]
) -> Spec:
    """One setting of `_each_setting`."""
    values = [
        {"value": row[name], "loss": row[objective], **{b: row[b] for b in by}} for row in rows
    ]
    positive = all(value["loss"] > 0 for value in values)
    x = _number("value", name)
    y = _number("loss", objective, scale={"type": "log"} if positive else {})
    more = {"color": _kind(TEACHER, scale={"range": _SERIES})} if by else {}
    rule = _layer({"type": "rule"}, y={**y, "field": "mean"}, strokeDash=_dash(), **more)
    layers = [{**rule, "data": {"values": known}}]
    if _are_many_numbers([value["value"] for value in values]):
        if all(value["value"] > 0 for value in values):
            x["scale"] = {"type": "log"}
    else:
        values = [{**value, "value": str(value["value"])} for value in values]
        x = _kind("value", name)
        more |= {"xOffset": _kind(TEACHER)} if by else {}
        tick = {"type": "tick", "thickness": 3}
        layers.append(_layer(tick, x=x, y={**y, "aggregate": "median"}, **more))
    layers.append(_layer({"type": "point", "opacity": 0.45, "size": 20}, x=x, y=y, **more))
    size = {"width": _FACET_WIDTH, "height": _FACET_HEIGHT}
    return {"data": {"values": values}, **size, "layer": layers}


def _dash() -> Spec:
    """Broken lines for what needs no student."""
    dashes = {"domain": BASELINES, "range": [[6, 2], [2, 2], [8, 4, 2, 4], [1, 4]]}
    return _kind("predictor", "without a student", scale=dashes)


def _are_many_numbers(values: Sequence[Any]) -> bool:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return numbers and len(set(values)) > 8
