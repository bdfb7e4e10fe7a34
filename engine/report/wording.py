"""Numbers and texts as a reader wants to see them: the filters of the report's template.

Numbers have thousands separators and few digits; what is undefined is a dash. Corpus text is never
trusted: control, invisible and direction-changing characters are shown by their code point.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

__all__ = [
    "ShownText",
    "count",
    "decimal",
    "duration",
    "excerpt",
    "interval",
    "percent",
    "ratio",
    "shown_text",
    "significant",
    "spelled_out",
    "times",
    "visible",
]

NOTHING = "–"
MINUS = "\N{MINUS SIGN}"
PREVIEW_CHARACTERS = 220
# C0 but tab and newline, C1, soft hyphen, zero width space and marks of direction, overrides and
# isolates, line separators, invisible operators, byte order mark, lone surrogates, private tags.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_SPACES = re.compile("[ \t\r\n]+")


def count(value: float | None) -> str:
    """12,345."""
    return NOTHING if value is None else f"{value:,.0f}".replace("-", MINUS)


def decimal(value: float | None, digits: int = 2) -> str:
    """0.17, with a real minus sign and never -0.00."""
    if value is None:
        return NOTHING
    text = f"{value:,.{digits}f}"
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text.replace("-", MINUS)


def significant(value: float | None, digits: int = 3) -> str:
    """Three significant digits of any size: 0.0316, 116, 12,345, 1.2e-09."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # once rounded: 0.09999 is 0.100
    if exponent < -4:
        return f"{value:.{digits - 1}e}".replace("-", MINUS)
    return decimal(value, max(0, digits - 1 - exponent))


def percent(share: float | None) -> str:
    """30 %, 2.5 %, 0.23 %: two significant digits, and all digits of what is near 100 %."""
    if share is None:
        return NOTHING
    value = 100 * share
    if value == 0 or abs(value) >= 99.95:
        return f"{decimal(value, 0)}\N{NO-BREAK SPACE}%"
    digits = 1 if abs(value) >= 90 else max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{decimal(value, min(digits, 6))}\N{NO-BREAK SPACE}%"


def duration(seconds: float | None) -> str:
    """4.2 ms, 35 s, 2.1 min, 3.5 h, 12 days."""
    if seconds is None:
        return NOTHING
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s")):
        if abs(seconds) >= (2 if size == 86400 else 1) * size:
            return _with_unit(seconds / size, unit)
    return _with_unit(1000 * seconds, "ms") if seconds else "0\N{NO-BREAK SPACE}s"


def _with_unit(value: float, unit: str) -> str:
    return f"{significant(value, 2 if abs(value) < 100 else 3)}\N{NO-BREAK SPACE}{unit}"


def interval(bounds: Sequence[float] | None, digits: int = 2) -> str:
    """0.00 to 0.33."""
    if bounds is None:
        return NOTHING
    low, high = bounds
    return f"{decimal(low, digits)} to {decimal(high, digits)}"


def times(factor: float) -> str:
    """How many times as much: 1.4, 12, 310."""
    return significant(factor, 2 if factor < 100 else 3)


def ratio(factor: float | None) -> str:
    """One share against another: 0.32, 1.4, 12."""
    if factor is None:
        return NOTHING
    return significant(factor, 2 if factor < 100 else 3)


# --- corpus text ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShownText:
    """A text of any length, ready for the page.

    Attributes:
        preview: its beginning, or all of it.
        whole: more of it for readers who ask, or None when the preview has all.
        num_characters: of the text itself.
        is_cut: whether `whole` stops before the end.
    """

    preview: Markup
    whole: Markup | None
    num_characters: int
    is_cut: bool


def visible(text: str) -> Markup:
    """Escaped for HTML; characters that nobody can see, or that reorder others, by code point."""
    pieces = []
    start = 0
    for match in _INVISIBLE.finditer(text):
        pieces.append(escape(text[start : match.start()]))
        pieces.append(Markup(f"<i>U+{ord(match.group()):04X}</i>"))
        start = match.end()
    return Markup("").join([*pieces, escape(text[start:])])


def spelled_out(text: str) -> Markup:
    """As `visible`, where there is room for text alone and none for elements."""
    return escape(_INVISIBLE.sub(lambda match: f"[U+{ord(match.group()):04X}]", text))


def excerpt(text: str, max_bytes: int) -> str:
    """The beginning of a text on one line, which takes at most `max_bytes` once it is escaped."""
    line = _SPACES.sub(" ", text[: 4 * max_bytes]).strip()
    kept = line[: _fitting(line[:max_bytes], max_bytes)]
    return kept if len(kept) == len(line) and len(text) <= 4 * max_bytes else f"{kept}…"


def shown_text(text: str, max_bytes: int) -> ShownText:
    """A text cut so that what is shown of it takes about `max_bytes` of the page."""
    limit = max(max_bytes, PREVIEW_CHARACTERS)
    kept = text[: _fitting(text[:limit], limit)]
    if len(text) <= PREVIEW_CHARACTERS + 40 and len(kept) == len(text):
        return ShownText(visible(text), None, len(text), False)
    start = kept[:PREVIEW_CHARACTERS]
    if " " in start[PREVIEW_CHARACTERS // 2 :]:
        start = start[: start.rindex(" ")]
    return ShownText(visible(start), visible(kept), len(text), len(kept) < len(text))


def _fitting(text: str, max_bytes: int) -> int:
    """How many leading characters take at most `max_bytes` once they are escaped."""
    if len(visible(text).encode("utf-8", "replace")) <= max_bytes:
        return len(text)
    size = 0
    for position, character in enumerate(text):
        size += len(visible(character).encode("utf-8", "replace"))
        if size > max_bytes:
            return position
    return len(text)
