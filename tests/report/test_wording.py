"""Numbers and texts as a reader sees them."""

from __future__ import annotations

import pytest

from engine.report.wording import (
    count,
    decimal,
    duration,
    excerpt,
    interval,
    percent,
    ratio,
    shown_text,
    significant,
    spelled_out,
    visible,
)

NBSP = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (count(1234567), "1,234,567"),
        (count(None), "–"),
        (decimal(-0.0004), "0.00"),
        (decimal(-0.126), "−0.13"),
        (decimal(1234.5, 1), "1,234.5"),
        (significant(0.031579), "0.0316"),
        (significant(12345.6), "12,346"),
        (significant(0.0), "0"),
        (significant(1.23e-9), "1.23e−09"),
        (percent(0.3), f"30{NBSP}%"),
        (percent(0.00776), f"0.78{NBSP}%"),
        (percent(0.996), f"99.6{NBSP}%"),
        (percent(1.0), f"100{NBSP}%"),
        (percent(0.0), f"0{NBSP}%"),
        (duration(0.0042), f"4.2{NBSP}ms"),
        (duration(35.4), f"35{NBSP}s"),
        (duration(125), f"2.1{NBSP}min"),
        (duration(90000), f"25{NBSP}h"),
        (duration(10 * 86400), f"10{NBSP}days"),
        (duration(0.0), f"0{NBSP}s"),
        (interval([-0.05, 0.1]), "−0.05 to 0.10"),
        (interval(None), "–"),
        (ratio(0.0783), "0.078"),
        (ratio(123.4), "123"),
        (ratio(None), "–"),
    ],
)
def test_numbers(shown: str, expected: str) -> None:
    assert shown == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<script>'\"&", "&lt;script&gt;&#39;&#34;&amp;"),
        ("a\u202eb\x00", "a<i>U+202E</i>b<i>U+0000</i>"),
        ("\u2066x\u2069\u200b\ufeff", "<i>U+2066</i>x<i>U+2069</i><i>U+200B</i><i>U+FEFF</i>"),
        ("\ud800", "<i>U+D800</i>"),
        ("tab\tline\n", "tab\tline\n"),
        ("family \U0001f468\u200d\U0001f469", "family \U0001f468\u200d\U0001f469"),
        ("שלום", "שלום"),
    ],
)
def test_visible(text: str, expected: str) -> None:
    assert str(visible(text)) == expected


def test_a_short_text_is_shown_whole() -> None:
    shown = shown_text("short <b>", 5000)
    assert (str(shown.preview), shown.whole, shown.is_cut) == ("short &lt;b&gt;", None, False)


def test_a_long_text_is_shortened_at_a_space_and_kept() -> None:
    text = "word " * 200
    shown = shown_text(text, 5000)
    assert text.startswith(str(shown.preview)) and str(shown.preview).endswith("word")
    assert (str(shown.whole), shown.num_characters, shown.is_cut) == (text, 1000, False)


@pytest.mark.parametrize("text", ["<" * 100_000, "\u202e" * 100_000, "語" * 100_000])
def test_what_is_shown_of_a_text_is_bounded_in_bytes(text: str) -> None:
    shown = shown_text(text, 3000)
    assert shown.is_cut
    assert len(str(shown.whole).encode()) <= 3000
    assert len(str(shown.preview).encode()) <= 3000


def test_spelled_out_is_text_alone() -> None:
    assert str(spelled_out("<b>\u202e\x00")) == "&lt;b&gt;[U+202E][U+0000]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("short", "short"), ("  two\r\n\n lines\t", "two lines"), ("abcdefghijk", "abcdefghij…")],
)
def test_an_excerpt_is_one_line(text: str, expected: str) -> None:
    assert excerpt(text, 10) == expected


@pytest.mark.parametrize("text", ["<" * 100_000, "\u202e" * 100_000, "語" * 100_000, " " * 10**6])
def test_an_excerpt_is_bounded_in_bytes(text: str) -> None:
    shown = excerpt(text, 60)
    assert shown.endswith("…") and len(visible(shown).encode()) <= 63
