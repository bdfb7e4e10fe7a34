"""Known bad rows: the marks, and chance by hand."""

from __future__ import annotations

import numpy as np
import pytest

from engine.artifacts.run_directory import Artifact
from engine.errors import SettingsError
from engine.report.known_bad import chance, known_bad, mark_of
from tests.report.synthetic_run import write_run


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return write_run(tmp_path_factory.mktemp("run"))["ingest"]


def test_chance_by_hand() -> None:
    # 2 of 4 are drawn, 2 are bad: P(0) = 1/6, P(1) = 4/6, P(2) = 1/6
    assert chance(4, 2, 2, 0).p_value == pytest.approx(2 / 6)
    assert chance(4, 2, 2, 1).p_value == pytest.approx(1.0)
    assert chance(4, 2, 2, 2).mean == 1.0
    assert (chance(4, 2, 2, 2).low, chance(4, 2, 2, 2).high) == (0, 2)


@pytest.mark.parametrize(("bad", "draws", "found"), [(0, 5, 0), (10, 5, 5), (5, 10, 5)])
def test_chance_at_the_ends(bad: int, draws: int, found: int) -> None:
    assert chance(10, bad, draws, found).p_value == pytest.approx(1.0)


def test_counts_by_kind_and_by_mean(corpus: Artifact) -> None:
    # planted are 0, 10, .. 50 of 60, kinds in turn; the selection is 40 .. 59
    means = np.arange(60, dtype=np.float32)
    found = known_bad(corpus, "planted", np.arange(40, 60), means)
    assert (found.in_pool, found.selected, found.chance.mean) == (6, 2, 2.0)
    by_kind = [(kind.kind, kind.in_pool, kind.selected) for kind in found.kinds]
    assert by_kind == [("empty_talk", 3, 1), ("wrong_answer", 3, 1)]
    assert [kind.expected for kind in found.kinds] == pytest.approx([1.0, 1.0])
    # the best 6, 15 and 30 rows are 54.., 45.. and 30..
    tops = [(top.rows, top.bad, top.expected) for top in found.top]
    assert [t[:2] for t in tops] == [(6, 0), (15, 1), (30, 3)]
    assert tops[0][2] == pytest.approx(0.6)


def test_an_unknown_column_names_those_that_are_there(corpus: Artifact) -> None:
    with pytest.raises(SettingsError, match=r"no column 'plantd' .* found planted, source"):
        known_bad(corpus, "plantd", np.arange(3), np.zeros(60, np.float32))


@pytest.mark.parametrize(
    ("value", "mark"),
    [
        (None, None),
        ("", None),
        (" ", None),
        (0, None),
        (False, None),
        ([], None),
        ("x", "x"),
        (1, "1"),
        (True, "true"),
        (["a"], '["a"]'),
    ],
)
def test_marks(value: object, mark: str | None) -> None:
    assert mark_of({"column": value}, "column") == mark
