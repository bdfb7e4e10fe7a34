"""The predictor's benchmark, tiny: every way computes the same matrix, and the tables are whole."""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.compiled_loops import CompiledLoops
from benchmarks.pairwise import (
    COLUMNS,
    Sample,
    compiled_ways,
    exact_scores,
    extrapolated,
    main,
    our_ways,
    plain_ways,
    problem_of,
)

HAS_COMPILER = bool(shutil.which("gcc") or shutil.which("cc"))


@pytest.mark.parametrize("tile", [(3, 64), (8, 7)])
def test_every_way_computes_the_same_matrix(tile: tuple[int, int]):
    flags = argparse.Namespace(dim=12, hidden=9, seed=1)
    problem = problem_of(flags, 70, 150)  # multiples of no tile
    ways = [*our_ways(*problem, threads=1), *plain_ways(*problem, 70, 150, tile)]
    if HAS_COMPILER:
        ways += compiled_ways(CompiledLoops(), *problem)
    exact = exact_scores(*problem)
    sample = Sample(*problem, seed=0)
    assert exact.std() > 0.01
    matrices = {way.name: way.run() for way in ways}
    for way in ways:
        matrix = matrices[way.name]
        if way.name.startswith("peak"):
            assert matrix is None
            continue
        columns = 70 if way.name == "per_pair_loop" else 150
        assert matrix.shape == (70, columns) and matrix.dtype == np.float32, way.name
        assert np.abs(matrix - exact[:, :columns]).max() < 2e-5 * exact.std(), way.name
        assert sample.difference(matrix) < 2e-5
        assert sample.difference(matrix + np.float32(exact.std())) == pytest.approx(1, abs=0.1)
    same = ["ours_in_place", "ours_kernel"]
    same += ["compiled_c_int"] if HAS_COMPILER else []  # the same integers, in another order
    for name in same:
        np.testing.assert_array_equal(matrices["ours"], matrices[name])


def test_what_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "results" / "pairwise.json"
    main(["--quick", "--threads", "2", "--json", str(path)])
    text = path.read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    result = json.loads(text)
    assert list(result) == ["name", "provenance", "settings", "rows"]
    tables = {table: [row for row in result["rows"] if row["table"] == table] for table in COLUMNS}
    compiled = {"compiled_c_float", "compiled_c_int", "peak_float", "peak_int"}
    assert {row["way"] for row in tables["pairs"]} == {
        "ours", "ours_in_place", "ours_kernel", "per_pair_loop", "concatenation", "torch_broadcast",
        *(compiled if HAS_COMPILER else {"compiled_c"}),
    }  # fmt: skip
    for row in tables["pairs"]:
        if row["way"] != "compiled_c":
            low, high = row["pairs_per_s_range"]
            assert 0 < low <= row["pairs_per_s"] <= high
            assert (row["difference"] is None) == row["way"].startswith("peak")
            assert row["difference"] is None or row["difference"] < 1e-4
    assert [(row["way"], row["threads"]) for row in tables["threads"]] == [
        ("ours", 2),
        ("ours_in_place", 2),
        ("ours_kernel", 2),
    ]
    assert [row["rows"] for row in tables["means"]] == [1000]
    assert tables["means"][0]["difference"] < 1e-5
    assert [(row["rows"], row["targets"], row["k"]) for row in tables["top"]] == [(1000, 100, 50)]
    assert [row["rows"] for row in tables["matrix"]] == [250, 500, 1000]
    measured = tables["top"] + tables["matrix"][:2]
    assert all(row["exact"] for row in measured)
    for row in measured + tables["means"]:
        assert 0 < row["rss_before_gib"] <= row["peak_rss_gib"]
    assert tables["matrix"][2]["note"].startswith("extrapolated ")
    printed = capsys.readouterr().out
    assert all(f"\n{table}\n\n| {columns[0]} " in printed for table, columns in COLUMNS.items())


def test_what_is_extrapolated():
    def row(rows: int, seconds: float) -> dict:
        return {"table": "matrix", "rows": rows, "threads": 2, "k": 64, "wall_s": seconds}

    sizes = (100, 1000, 3000)
    found = extrapolated([row(m, 2e-6 * m**2 + 1e-4 * m) for m in sizes], 10_000)
    assert found is not None
    assert found["wall_s"] == pytest.approx(2e-6 * 1e8 + 1e-4 * 1e4)
    assert found["note"] == "extrapolated from 1000 and 3000"
    # the larger size was slower than pairs explain: no cost per row, and none below zero
    noisy = extrapolated([row(1000, 1.0), row(2000, 6.0)], 4000)
    assert noisy is not None and noisy["wall_s"] == pytest.approx(24.0)
    assert noisy["note"] == "extrapolated by pairs from 2000"
    assert extrapolated([row(1000, 1.0)], 4000) is None
