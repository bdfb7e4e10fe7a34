"""The report's charts as inline SVG: pure functions from numbers to one `<svg>` element.

Colours come from the page's style sheet through classes, so that they follow light and dark. The
drawing is small (a phone shows it unscaled) and carries its own title for screen readers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from engine.report.wording import MINUS, significant

__all__ = [
    "Dot",
    "IntervalRow",
    "Noted",
    "curve",
    "histogram",
    "interval_plot",
    "point_map",
    "scatter",
]

WIDTH, HEIGHT = 440, 250
MAP_WIDTH, MAP_HEIGHT, MAP_EDGE = 720, 440, 12
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 44
ROW_HEIGHT, GROUP_GAP = 19, 13

Point = tuple[float, float]


@dataclass(frozen=True)
class Dot:
    """A value with its interval, in the colour of `kind`."""

    kind: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class IntervalRow:
    """A group of dots under one label."""

    label: str
    dots: Sequence[Dot]


@dataclass(frozen=True)
class Noted:
    """A place on a map, in the colour of `kind`, and what is there, already escaped."""

    kind: str
    x: float
    y: float
    note: Markup


def histogram(
    title: str,
    edges: Sequence[float],
    filled: Sequence[float],
    outlined: Sequence[float],
    x_label: str,
) -> Markup:
    """Two distributions over the same bins, as shares of their own rows: area and outline."""
    top = max([*filled, *outlined, 1e-9]) * 1.06
    frame = _Frame((edges[0], edges[-1]), (0.0, top))
    area = _steps(frame, edges, filled)
    line = _steps(frame, edges, outlined)
    body = [
        f'<path class="area" d="{area}"/>',
        f'<path class="line strong" d="{line}"/>' if any(outlined) else "",
    ]
    ticks = [(value, f"{100 * value:g}") for value in _nice_ticks(0.0, top, 4)]
    return _svg(title, [*frame.axes(x_label, "% of rows", ticks), *body])


def curve(
    title: str,
    points: Sequence[Point],
    x_label: str,
    y_label: str,
    tail_from: float | None = None,
    log_y: bool = False,
) -> Markup:
    """A line over increasing x; everything from `tail_from` on is shaded."""
    drawn = [(x, math.log10(y)) for x, y in points if y > 0] if log_y else list(points)
    xs = [x for x, _ in points] or [0.0, 1.0]
    ys = [y for _, y in drawn] or [0.0, 1.0]
    low, high = min(ys), max(ys)
    x_range = (min(xs), max(xs)) if max(xs) > min(xs) else _widened(min(xs), max(xs))
    frame = _Frame(x_range, _widened(low if log_y else min(low, 0.0), high))
    ticks = _log_ticks(*frame.y_range) if log_y else None
    parts = frame.axes(x_label, y_label, ticks)
    if tail_from is not None:
        start, end = frame.x(max(tail_from, frame.x_range[0])), frame.x(frame.x_range[1])
        parts.append(
            f'<rect class="tail" x="{start:.1f}" y="{TOP}" width="{max(end - start, 1):.1f}" '
            f'height="{HEIGHT - TOP - BOTTOM}"/>'
        )
    path = "L".join(f"{frame.x(x):.1f} {frame.y(y):.1f}" for x, y in drawn)
    if path:
        last_x, last_y = drawn[-1]
        parts.append(f'<path class="line" d="M{path}"/>')
        place = f'cx="{frame.x(last_x):.1f}" cy="{frame.y(last_y):.1f}"'
        parts.append(f'<circle class="end" {place} r="3"/>')
    return _svg(title, parts)


def scatter(
    title: str, points: Sequence[Point], means: Sequence[Point], x_label: str, y_label: str
) -> Markup:
    """Points around the diagonal, and the means of bins of them as larger marks."""
    xs, ys = [x for x, _ in points] or [0.0], [y for _, y in points] or [0.0]
    frame = _Frame(_widened(min(xs), max(xs)), _widened(min(ys), max(ys)))
    low, high = (
        max(frame.x_range[0], frame.y_range[0]),
        min(frame.x_range[1], frame.y_range[1]),
    )
    parts = frame.axes(x_label, y_label)
    if low < high:
        ends = f"M{frame.x(low):.1f} {frame.y(low):.1f}L{frame.x(high):.1f} {frame.y(high):.1f}"
        parts.append(f'<path class="diagonal" d="{ends}"/>')
    # one path of round dots is a tenth of the size of that many circles
    dots = "".join(f"M{frame.x(x):.1f} {frame.y(y):.1f}h0" for x, y in points)
    parts.append(f'<path class="dots" d="{dots or "M0 0"}"/>')
    parts += [
        f'<circle class="bin" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="4"/>' for x, y in means
    ]
    return _svg(title, parts)


def interval_plot(title: str, rows: Sequence[IntervalRow], x_label: str) -> Markup:
    """Dots with their intervals in labelled groups, over an axis that shows 0 and 1."""
    values = [v for row in rows for dot in row.dots for v in (dot.low, dot.value, dot.high)]
    known = [value for value in values if value is not None]
    height = TOP + BOTTOM + sum(len(row.dots) * ROW_HEIGHT + GROUP_GAP for row in rows)
    frame = _Frame((min([0.0, *known]) - 0.04, max([1.0, *known]) + 0.04), (0.0, 1.0), height)
    parts = frame.x_axis(x_label)
    parts.append(f'<path class="zero" d="M{frame.x(0):.1f} {TOP}V{height - BOTTOM}"/>')
    y = TOP + GROUP_GAP / 2
    for row in rows:
        middle = y + len(row.dots) * ROW_HEIGHT / 2
        parts.append(f'<text class="group" x="8" y="{middle + 4:.1f}">{escape(row.label)}</text>')
        for dot in row.dots:
            parts += _dot(frame, dot, y + ROW_HEIGHT / 2)
            y += ROW_HEIGHT
        y += GROUP_GAP
    return _svg(title, parts, height)


def point_map(title: str, points: Sequence[Noted]) -> Markup:
    """Points whose distances mean something and whose axes do not: one scale for both.

    Each is a path of no length, which stays a round dot of the same size on a phone.
    """
    xs, ys = [point.x for point in points], [point.y for point in points]
    scale = min(
        (MAP_WIDTH - 2 * MAP_EDGE) / (max(xs) - min(xs) or 1.0),
        (MAP_HEIGHT - 2 * MAP_EDGE) / (max(ys) - min(ys) or 1.0),
    )
    left, top = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    parts = [
        f'<path class="{escape(point.kind)}" d="M{MAP_WIDTH / 2 + scale * (point.x - left):.1f} '
        f'{MAP_HEIGHT / 2 - scale * (point.y - top):.1f}h0"><title>{point.note}</title></path>'
        for point in points
    ]
    return _svg(title, parts, MAP_HEIGHT, MAP_WIDTH)


def _dot(frame: _Frame, dot: Dot, y: float) -> list[str]:
    parts = []
    if dot.low is not None and dot.high is not None:
        span = f"M{frame.x(dot.low):.1f} {y:.1f}H{frame.x(dot.high):.1f}"
        parts.append(f'<path class="span {escape(dot.kind)}" d="{span}"/>')
    place = f'cx="{frame.x(dot.value):.1f}" cy="{y:.1f}"'
    parts.append(f'<circle class="dot {escape(dot.kind)}" {place} r="4.5"/>')
    return parts


# --- axes ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Frame:
    """Maps values to pixels and draws the axes round them."""

    x_range: Point
    y_range: Point
    height: float = HEIGHT

    def x(self, value: float) -> float:
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.height - BOTTOM - (value - low) / (high - low) * (self.height - TOP - BOTTOM)

    def axes(
        self, x_label: str, y_label: str, y_ticks: Sequence[tuple[float, str]] | None = None
    ) -> list[str]:
        if y_ticks is None:
            y_ticks = [(v, _tick(v)) for v in _nice_ticks(*self.y_range, 4)]
        parts = []
        for value, text in y_ticks:
            y = self.y(value)
            parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
        middle = (TOP + self.height - BOTTOM) / 2
        place = f'transform="translate(12 {middle:.1f}) rotate(-90)" text-anchor="middle"'
        parts.append(f'<text class="label" {place}>{escape(y_label)}</text>')
        return [*parts, *self.x_axis(x_label)]

    def x_axis(self, x_label: str) -> list[str]:
        bottom = self.height - BOTTOM
        parts = [f'<path class="axis" d="M{LEFT} {bottom}H{WIDTH - RIGHT}"/>']
        for value in _nice_ticks(*self.x_range, 5):
            x, text = self.x(value), _tick(value)
            parts.append(f'<path class="axis" d="M{x:.1f} {bottom}v4"/>')
            parts.append(f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{text}</text>')
        place = f'x="{(LEFT + WIDTH - RIGHT) / 2}" y="{self.height - 8}" text-anchor="middle"'
        parts.append(f'<text class="label" {place}>{escape(x_label)}</text>')
        return parts


def _svg(title: str, parts: Sequence[str], height: float = HEIGHT, width: float = WIDTH) -> Markup:
    name = escape(title)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'role="img" aria-label="{name}"><title>{name}</title>'
    )
    return Markup(head + "".join(parts) + "</svg>")


def _steps(frame: _Frame, edges: Sequence[float], heights: Sequence[float]) -> str:
    path = f"M{frame.x(edges[0]):.1f} {frame.y(0):.1f}"
    for right, height in zip(edges[1:], heights, strict=True):
        path += f"V{frame.y(height):.1f}H{frame.x(right):.1f}"
    return f"{path}V{frame.y(0):.1f}"


def _widened(low: float, high: float) -> Point:
    """A range of some width, with a little air."""
    if high > low:
        return low, high + 0.04 * (high - low)
    air = abs(low) * 0.5 or 0.5
    return low - air, high + air


def _nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers in a range: multiples of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.8)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * i, 12) for i in range(first, last + 1)]


def _tick(value: float) -> str:
    """A round number without trailing zeros."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"
    return text.replace("-", MINUS)


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    powers = list(range(math.ceil(low), math.floor(high) + 1))
    if len(powers) < 2:
        return [(v, significant(10.0**v, 2)) for v in (low, (low + high) / 2, high)]
    every = -(-len(powers) // 5)
    return [(p, _tick(10.0**p)) for p in powers[::every]]
