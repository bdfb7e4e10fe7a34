"""The selection benchmark, tiny: all ways reach the same value, and sizes are measured."""

import pytest

from benchmarks.selection import dense_table, measure_sparse, partitions_table


def test_all_ways_reach_the_same_value():
    table = dense_table(120, repeats=1)
    assert [row["way"] for row in table] == ["ours", "submodlib LazyGreedy", "apricot lazy"]
    for row in table:
        assert row.get("note") == "not installed" or row["value"] == pytest.approx(
            table[0]["value"], rel=1e-4
        )


def test_a_size_is_measured():
    row = measure_sparse(500)
    assert (row["rows"], row["picks"]) == (500, 150)
    assert row["wall_s"] > 0 and row["peak_rss_gib"] > 0


def test_partitions_are_measured():
    (row,) = partitions_table(2000, [4])
    assert 0.97 < row["ratio"] <= 1.001 and row["by_gain"] <= row["ratio"] + 1e-9
