"""The prefilter's benchmark, tiny: what it counts, and what it makes of two sizes."""

import numpy as np
import pytest
import torch

from benchmarks import prefilter
from benchmarks.pool import CORPUS, WINDOW, windows
from benchmarks.prefilter import extrapolated, found, measure
from engine import InfluenceNetwork


def test_found_by_hand():
    ids, true = np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), np.array([[4, 1], [9, 5]])
    assert found(ids, true) == pytest.approx((1.0 + 0.5) / 2)


def test_a_million_rows_by_hand():
    def row(rows, method, seconds, **more):
        return {"network": "a", "rows": rows, "method": method, "seconds": seconds, **more}

    rows = [
        row(100_000, "exact", 1.0),
        row(100_000, "pools", 0.3, find_seconds=0.1),
        row(200_000, "exact", 4.0),
        row(200_000, "pools", 0.6, find_seconds=0.2),
    ]
    exact, pools = extrapolated(rows)
    assert exact["seconds"] == pytest.approx(100)  # 25 times as many pairs
    assert pools["seconds"] == pytest.approx(0.2 * 25 + 0.4 * 5)  # scouts, and what is linear
    assert pools["times_exact"] == pytest.approx(100 / 7)
    assert extrapolated(rows[:2]) == []


def test_ways_find_what_they_say(monkeypatch):
    monkeypatch.setattr(prefilter, "LISTS", 8)
    generator = torch.Generator().manual_seed(0)
    network = InfluenceNetwork(8, (10,), generator=generator).eval()
    rows = np.random.default_rng(0).standard_normal((400, 8), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    by_method = {row["method"]: row for row in measure("a", network, rows, 0.9, 1, 1, True)}
    assert by_method["exact"]["recall"] == by_method["pools"]["recall"] == 1.0
    assert by_method["pools"]["told"] == 1.0  # too few targets: everything was compared
    assert by_method["low rank 16, Flat, fetch 256"]["recall"] > 0.9
    assert by_method["embeddings, Flat, fetch 64"]["recall"] < 0.9


@pytest.mark.skipif(not CORPUS.is_file(), reason="no ../shared/data beside this checkout")
def test_windows_are_short_and_many():
    texts = list(windows(CORPUS))
    assert max(map(len, texts)) <= WINDOW and len(set(texts)) >= 200_000
