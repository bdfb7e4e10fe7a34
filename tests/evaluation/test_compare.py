"""Arms compared: hand-computed means, intervals against slow loops, and their coverage."""

import json

import numpy as np
import pyarrow as pa
import pytest

from engine.evaluation.compare import (
    against,
    difference,
    holm,
    markdown,
    relative_differences,
    summarise,
)

MEASURES = ("rouge1", "similarity", "similarity_floor", "judge", "log_likelihood")


def table(cells):
    """Lines of {(arm, method, seed): values of every row}; all measures take the same values."""
    lines = []
    for (arm, method, seed), values in cells.items():
        for number, value in enumerate(values):
            line = {"arm": arm, "method": method, "seed": seed, "id": f"r{number}"}
            lines.append(line | dict.fromkeys(MEASURES, float(value)))
    return pa.Table.from_pylist(lines)


def only(rows, **wanted):
    (row,) = [row for row in rows if all(row[k] == v for k, v in wanted.items())]
    return row


def test_means_are_over_rows_then_seeds_and_the_spread_over_seeds():
    found = summarise(
        table({("A", "icl", 0): [1, 3], ("A", "icl", 1): [5, 7], ("B", "icl", 0): [2, 2]})
    )
    a, b = only(found, arm="A"), only(found, arm="B")
    assert (a["seeds"], a["test_rows"]) == (2, 2)
    assert a["rouge1"] == {"mean": 4.0, "spread": pytest.approx(np.std([2, 6], ddof=1))}
    assert b["rouge1"] == {"mean": 2.0, "spread": None}


def test_rows_without_a_value_are_left_out_of_both_sides():
    nan = float("nan")
    cells = {("Random", "icl", 0): [1, 1, nan, 1], ("A", "icl", 0): [2, nan, 9, 4]}
    row = only(against(table(cells), "Random"), arm="A", measure="judge")
    assert row["difference"] == pytest.approx((1 + 3) / 2) and row["rows"] == 2
    assert only(summarise(table(cells)), arm="A")["judge"]["mean"] == 5.0


def test_a_measure_that_nobody_has_is_left_out():
    nan = [float("nan")] * 2
    found = table({("Random", "icl", 0): [1, 2], ("A", "icl", 0): [1, 2]})
    found = found.set_column(found.column_names.index("judge"), "judge", pa.array(nan + nan))
    assert "judge" not in only(summarise(found), arm="A")
    assert not [row for row in against(found, "Random") if row["measure"] == "judge"]


def test_a_seed_without_any_value_is_left_out():
    nan = [float("nan")] * 2
    cells = {("Random", "icl", 0): [1, 3], ("Random", "icl", 1): nan, ("A", "icl", 0): [2, 2]}
    row = only(summarise(table(cells)), arm="Random")
    assert row["judge"] == {"mean": 2.0, "spread": None}
    found = relative_differences(table(cells), {}, "Random")
    json.dumps([summarise(table(cells)), against(table(cells), "Random"), found], allow_nan=False)


def test_equal_answers_do_not_differ_at_all():
    values = [3.0, 1.0, 4.0, 1.0]
    row = against(table({("Random", "icl", 0): values, ("A", "icl", 0): values}), "Random")[0]
    assert row["difference"] == 0 and row["interval"] == [0, 0] and not row["differs"]


def by_loop(mine, theirs, draws, seed):
    """Every draw one by one: rows for both sides, seeds for each, their spread scaled up."""
    chooser, differences = np.random.default_rng(seed), []
    for _ in range(draws):
        rows = chooser.integers(mine.shape[1], size=mine.shape[1])
        sides = []
        for side in (mine, theirs):
            n = len(side)
            drawn = side[chooser.integers(n, size=n)][:, rows].mean()
            centre = side[:, rows].mean()
            sides.append(centre + (drawn - centre) * np.sqrt(n / (n - 1)))
        differences.append(sides[0] - sides[1])
    return np.quantile(differences, [0.025, 0.975])


def test_the_interval_is_that_of_a_slow_bootstrap():
    chooser = np.random.default_rng(5)
    mine, theirs = chooser.normal(1, 2, (3, 40)), chooser.normal(0, 2, (2, 40))
    cells = {("A", "qlora", s): row for s, row in enumerate(mine)}
    cells |= {("Random", "qlora", s): row for s, row in enumerate(theirs)}
    row = against(table(cells), "Random")[0]
    slow = by_loop(mine, theirs, 4_000, 1)
    assert row["interval"] == pytest.approx(slow, abs=0.1 * (slow[1] - slow[0]))


def three_seeds(chooser, worth, spread):
    """(3, 60): a seed is worth `spread` more or less to all rows."""
    return worth + chooser.normal(0, spread, (3, 1)) + chooser.normal(0, 1, (3, 60))


def test_seeds_that_differ_are_not_taken_for_arms_that_differ():
    """Nothing between two arms but their seeds: 5 % of the trials may say otherwise."""
    wrong = 0
    for trial in range(200):
        chooser = np.random.default_rng(trial)
        sides = [three_seeds(chooser, 0.0, 0.5) for _ in range(2)]
        wrong += difference(*sides, draws=400).p < 0.05
    assert wrong <= 24  # 18 here; three seeds are few. What seeds add unscaled: 32


def test_p_by_hand_and_by_what_it_should_find():
    chooser = np.random.default_rng(0)
    same = chooser.normal(size=(3, 50))
    assert difference(same, same).p == 1
    assert difference(same + 5, same).p == pytest.approx(2 / 10_001)
    assert difference(same - 5, same).p == pytest.approx(2 / 10_001)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_a_difference_wants_three_seeds_and_to_hold_among_all_arms():
    chooser = np.random.default_rng(0)
    base = chooser.normal(size=50)
    cells = {("Random", "icl", s): base + chooser.normal(0, 0.1, 50) for s in range(3)}
    cells |= {("Better", "icl", s): base + 1 + chooser.normal(0, 0.1, 50) for s in range(3)}
    cells |= {("Once", "icl", 0): base + 1}
    found = {row["arm"]: row for row in against(table(cells), "Random", draws=2_000)}
    assert found["Better"]["differs"] and not found["Once"]["differs"]
    assert found["Once"]["seeds"] == [1, 3] and found["Once"]["interval"][0] > 0
    # among many arms that are the same a chance difference is none
    many = {**cells}
    for number in range(40):
        for s in range(3):
            many[(f"Same {number}", "icl", s)] = base + chooser.normal(0, 1, 50)
    rows = [row for row in against(table(many), "Random", draws=2_000) if row["measure"] == "judge"]
    assert [row["arm"] for row in rows if row["differs"]] == ["Better"]


def test_intervals_hold_the_truth_as_often_as_they_say():
    held = 0
    for trial in range(200):
        chooser = np.random.default_rng(trial)
        rows = chooser.normal(0, 3, 60)  # what a row is worth to anybody: pairing removes it
        cells = {("A", "icl", 0): rows + chooser.normal(0.5, 1, 60)}
        cells[("Random", "icl", 0)] = rows + chooser.normal(0, 1, 60)
        low, high = against(table(cells), "Random", draws=400)[0]["interval"]
        held += low <= 0.5 <= high
        assert high - low < 1.5  # unpaired it would be above 2
    assert 180 <= held <= 199


def test_networks_against_teachers_and_what_chance_gives():
    cells = {
        ("X", "icl", 0): [10, 10], ("NN+X", "icl", 0): [11, 11],
        ("X", "qlora", 0): [20, 20], ("NN+X", "qlora", 0): [18, 18],
        ("Random", "icl", 0): [10, 10], ("Random", "icl", 1): [15, 15],
    }  # fmt: skip
    found = relative_differences(table(cells), {"NN+X": "X"}, "Random")
    assert found["mean"] == pytest.approx(0.1) and found["cells"] == 6
    assert found["by_pair"] == {"NN+X": pytest.approx(0.1)}
    assert found["by_measure"] == {m: pytest.approx(0.1) for m in ("rouge1", "similarity", "judge")}
    assert found["between_seeds"] == pytest.approx(0.5)
    assert found["log_likelihood"] == pytest.approx(1.5)


def test_the_table_has_the_arms_in_order_and_marks_differences():
    chooser = np.random.default_rng(0)
    base = chooser.normal(size=50)
    cells = {("Random", "icl", s): base for s in range(3)}
    found = table({**cells, **{("Better", "icl", s): base + 5 for s in range(3)}})
    text = markdown(
        summarise(found),
        against(found, "Random"),
        relative_differences(found, {}, "Random"),
        ["Better", "Random"],
    )
    lines = text.splitlines()
    assert lines[4].startswith("| Better | 3 |") and lines[5].startswith("| Random | 3 |")
    assert "| Better | +5.00* (+5.00 to +5.00)" in text
