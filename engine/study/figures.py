"""The charts of a study as files: SVG and PNG for documents, one page to look into them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from engine.artifacts.files import atomic_path
from engine.errors import SettingsError
from engine.study.charts import Chart

__all__ = ["PAGE", "write_figures"]

PAGE = "study.html"
PNG_SCALE = 2.0
_CONFIG: dict[str, Any] = {
    "background": "#ffffff",
    "font": "Liberation Sans, Arial, Helvetica, sans-serif",
    "axis": {"labelColor": "#56606e", "titleColor": "#1d2530", "gridColor": "#e9e6df"},
    "header": {"labelFontWeight": "bold", "labelColor": "#1d2530"},
    "view": {"stroke": "#dedbd3"},
}


def write_figures(charts: Sequence[Chart], title: str, about: str, folder: Path) -> list[Path]:
    """Write NAME.svg and NAME.png of every chart and `study.html`; returns the paths.

    Pictures are the same bytes for the same numbers. Raises SettingsError where the package that
    draws is not installed.
    """
    try:
        import vl_convert
    except ImportError:
        raise SettingsError(
            "the charts of a study need vl-convert-python: pip install 'nn-cift-engine[study]'"
        ) from None
    written = []
    for chart in charts:
        spec = {**chart.spec, "title": {"text": chart.title, "anchor": "start"}, "config": _CONFIG}
        with atomic_path(folder / f"{chart.name}.svg") as path:
            path.write_text(vl_convert.vegalite_to_svg(spec), encoding="utf-8")
        with atomic_path(folder / f"{chart.name}.png") as path:
            path.write_bytes(vl_convert.vegalite_to_png(spec, scale=PNG_SCALE))
        written += [folder / f"{chart.name}.svg", folder / f"{chart.name}.png"]
    library = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    specs = {chart.name: {**chart.spec, "config": _CONFIG} for chart in charts}
    loader = FileSystemLoader(Path(__file__).parent)
    page = Environment(loader=loader, autoescape=True).get_template("page.html")
    with atomic_path(folder / PAGE) as path:
        path.write_text(
            page.render(
                title=title,
                about=about,
                charts=charts,
                specs=_json(specs),
                library=_library(library),
            ),
            encoding="utf-8",
        )
    return [*written, folder / PAGE]


def _library(source: str) -> Markup:
    """The charts' script as it is; only what would end its element is written another way."""
    return Markup(re.sub("</(?=script)", r"<\\/", source, flags=re.IGNORECASE))


def _json(value: Any) -> Markup:
    """JSON that holds no markup, whatever its strings hold; what it means is the same."""
    return Markup(json.dumps(value).replace("<", "\\u003c"))
