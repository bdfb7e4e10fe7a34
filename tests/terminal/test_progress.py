"""Bars and lines: what they say, and how often. Time is made up."""

import re
from itertools import pairwise

import pytest

from engine.terminal.progress import Progress, hours


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def lines_of(capsys):
    return capsys.readouterr().err.splitlines()


def test_what_an_earlier_run_had_finished_is_not_counted_as_speed(clock, capsys):
    progress = Progress("embed", 1000, "rows", done=900, clock=clock)
    clock.now += 10
    progress.advance(10)
    assert progress._line() == "  embed: 910 of 1,000 rows (91 %), 1.0 rows/s, 0:02 h left"


def test_before_the_first_unit_it_says_how_long_it_has_waited(clock, capsys):
    progress = Progress("embed", 1000, "rows", clock=clock)
    clock.now += 40
    progress.tick()
    assert lines_of(capsys) == ["  embed: 0 of 1,000 rows (0 %), since 40 s"]


def test_lines_come_every_ten_seconds_and_rarely_in_a_day(clock, capsys):
    """Also while nothing is finished: the ticks come from a thread."""
    progress = Progress("score", 10**6, "pairs", clock=clock)
    times, start = [], clock.now
    for _ in range(24 * 3600):
        clock.now += 1
        progress.tick()
        if lines_of(capsys):
            times.append(clock.now - start)
    pauses = [after - before for before, after in pairwise(times)]
    assert times[0] == 10 and max(pauses[:50]) <= 11
    assert max(pauses) <= 300 and min(pauses) >= 10
    assert 300 < len(times) < 600


def test_a_slow_unit_is_told_by_the_minute(clock):
    progress = Progress("train", 10, "adapters", clock=clock)
    clock.now += 600
    progress.advance(1)
    assert progress._line().endswith("0.1 adapters/min, 1:30 h left")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (1, "0:01"), (60, "0:01"), (61, "0:02"), (3600, "1:00"), (180_000, "50:00")],
)
def test_hours(seconds, text):
    assert hours(seconds) == text


def test_the_end_is_said_where_something_was_said_before(clock, capsys):
    with Progress("embed", 10, "rows", clock=clock) as progress:
        progress.advance(10)
    assert not lines_of(capsys)
    with Progress("embed", 10, "rows", clock=clock) as progress:
        clock.now += 20
        progress.advance(4)
        clock.now += 2
        progress.advance(6)
    first, last = lines_of(capsys)
    assert "4 of 10" in first and re.fullmatch(r"  embed: 10 of 10 rows \(100 %\), .* rows/s", last)


def test_a_terminal_has_a_bar_with_the_same_numbers(clock, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with Progress("embed", 1000, "rows", done=500, clock=clock) as progress:
        clock.now += 100
        progress.advance(100)
    printed = capsys.readouterr().err
    assert "60%" in printed and "600 of 1,000, 1.0 rows/s, 0:07 h left" in printed
