"""Charts are well-formed XML, carry a title, and stay inside their box whatever the numbers."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from xml.etree.ElementTree import Element

import pytest
from markupsafe import Markup

from engine.report.charts import (
    Dot,
    IntervalRow,
    Noted,
    curve,
    histogram,
    interval_plot,
    point_map,
    scatter,
)

SVG = "{http://www.w3.org/2000/svg}"


def parsed(chart: Markup) -> Element:
    root = ElementTree.fromstring(str(chart))
    title = root.find(f"{SVG}title")
    assert root.tag == f"{SVG}svg" and title is not None and title.text
    assert "nan" not in chart and "inf" not in chart.replace("influence", "")
    return root


def texts(root: Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def test_histogram() -> None:
    root = parsed(histogram("t <&>", [0.0, 1.0, 2.0], [0.5, 0.5], [0.0, 1.0], "influence <x>"))
    assert "influence <x>" in texts(root)
    assert len([p for p in root.iter(f"{SVG}path") if "area" in p.attrib["class"]]) == 1


def test_histogram_of_nothing() -> None:
    parsed(histogram("t", [0.0, 1.0], [0.0], [0.0], "x"))


def test_curve_marks_the_tail() -> None:
    root = parsed(curve("t", [(1, 3.0), (2, 1.0), (10, 0.0)], "rank", "gain", tail_from=3))
    (tail,) = root.iter(f"{SVG}rect")
    assert tail.attrib["class"] == "tail" and float(tail.attrib["width"]) > 100


@pytest.mark.parametrize(
    "points",
    [[], [(1.0, 0.0)], [(1.0, 5.0)], [(1.0, -2.0), (2.0, -3.0)], [(1.0, 1e-9), (5.0, 1e9)]],
)
@pytest.mark.parametrize("log_y", [True, False])
@pytest.mark.parametrize("tail_from", [None, 1, 2])
def test_curves_of_any_numbers(
    points: list[tuple[float, float]], log_y: bool, tail_from: int | None
) -> None:
    chart = curve("t", points, "x", "y", tail_from, log_y)
    parsed(chart)
    for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", str(chart)):
        assert -1 <= float(x) <= 441 and -1 <= float(y) <= 251


def test_log_axis_has_powers_of_ten() -> None:
    shown = texts(parsed(curve("t", [(1, 100.0), (2, 1.0)], "x", "y", log_y=True)))
    assert {"1", "10", "100"} <= set(shown)


@pytest.mark.parametrize("points", [[], [(0.5, 0.5)], [(0.0, 1.0), (1.0, 0.0)]])
def test_scatter(points: list[tuple[float, float]]) -> None:
    parsed(scatter("t", points, points, "x", "y"))


def test_interval_plot() -> None:
    dots = [Dot("student", 0.5, 0.4, 0.6), Dot("cosine", -0.7, None, None)]
    rows = [IntervalRow("Q1", dots), IntervalRow("Q2", dots[:1]), IntervalRow("<Q3>", [])]
    root = parsed(interval_plot("t", rows, "Spearman"))
    assert len(list(root.iter(f"{SVG}circle"))) == 3
    assert "<Q3>" in texts(root)


@pytest.mark.parametrize("far", [0.0, 1e-9, 1.0, 1e6])
def test_a_map_has_one_scale_for_both_axes_and_a_note_for_each_point(far: float) -> None:
    places = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (far, far)]
    chart = point_map("t", [Noted("picked", x, y, Markup("a &lt;b&gt;")) for x, y in places])
    paths = list(parsed(chart).iter(f"{SVG}path"))
    assert [path.findtext(f"{SVG}title") for path in paths] == ["a <b>"] * 4
    drawn = [re.fullmatch(r"M([\d.]+) ([\d.]+)h0", path.attrib["d"]) for path in paths]
    (x0, y0), (x1, y1), (x2, y2), last = [(float(d[1]), float(d[2])) for d in drawn if d]
    assert x1 - x0 == pytest.approx(y0 - y2, abs=0.2) and (y1, x2) == (y0, x0)
    assert all(0 <= x <= 720 and 0 <= y <= 440 for x, y in ((x0, y0), (x1, y1), (x2, y2), last))
