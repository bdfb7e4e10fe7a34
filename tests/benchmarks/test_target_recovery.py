"""Target recovery's baselines on a dozen rows: measures by hand, files that are kept."""

import json
import sys

import numpy as np
import pytest

from benchmarks import target_recovery
from benchmarks.target_recovery import Rows, rows_of_baselines

TOPICS = ("apples", "rivers", "clouds")


def rows(count: int) -> list[dict]:
    """Rows of three topics in turn, each with its word; every sixth is known to be bad."""
    return [
        {
            "id": f"r{i}",
            "instruction": f"tell of {TOPICS[i % 3]}",
            "input": "",
            "output": f"{TOPICS[i % 3]} {'and more ' * (i % 5)}",
            "source": "many" if i % 3 else "few",
            "category": TOPICS[i % 3],
            "known_bad": "odd" if i % 6 == 0 else "",
        }
        for i in range(count)
    ]


def unit(items: list[dict]) -> np.ndarray:
    """The topic, as an embedding."""
    found = np.zeros((len(items), 3), np.float32)
    found[np.arange(len(items)), [TOPICS.index(row["category"]) for row in items]] = 1
    return found


@pytest.fixture
def pool() -> Rows:
    candidates = rows(60)
    targets = [row for row in rows(6) if row["category"] != "clouds"]
    return Rows("some", candidates, targets, (unit(candidates), unit(targets)))


def test_measures_by_hand(pool: Rows):
    # two apples, one of them bad, one river, one cloud; half apples, half rivers are wanted
    right, mix_error, bad = pool.measures(pool.tally(np.array([0, 3, 1, 2])))
    assert (right, bad) == (0.75, 0.25)
    assert mix_error == pytest.approx((0 + 0.25 + 0.25) / 2)


def test_what_asks_for_the_topics_finds_them(pool: Rows, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("bm25s")
    monkeypatch.setattr(target_recovery, "SHARES", (0.1, 0.2))
    sources = [row["source"] for row in rows(60)]
    losses = np.arange(60, dtype=np.float32)
    found = list(rows_of_baselines(pool, list(target_recovery.BASELINES), sources, losses))
    assert {row["picks"] for row in found} == {6, 12}
    assert len(found) == 2 * len(target_recovery.BASELINES)
    of = {(row["method"], row["objective"]): row for row in found if row["picks"] == 6}
    for method in ("BM25", "TF-IDF", "cosine"):
        assert of[method, "round robin"]["right"] == 1
        assert of[method, "round robin"]["mix_error"] == 0
    # half of the balanced draw is from `few`, which holds all apples and no other topic
    assert of["random, balanced by source", "random"]["right"] >= 0.5
    top = of["perplexity", "top"]
    assert top["bad"] == pytest.approx(1 / 6)  # rows 54 to 59
    assert of["perplexity", "middle"]["right"] == pytest.approx(4 / 6)  # rows 27 to 32


def test_the_table_keeps_what_it_has(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys):
    """Embeddings of `ask` are read; the second time no baseline is asked again."""
    pytest.importorskip("bm25s")
    candidates = rows(60)
    targets = [{**row, "set": "gsm8k"} for row in rows(6)]
    for name, value in {
        "CHUNK": 32, "SHARES": (0.1, 0.2), "pool_rows": lambda: candidates,
        "target_rows": lambda: targets,
    }.items():  # fmt: skip
        monkeypatch.setattr(target_recovery, name, value)
    np.savez(tmp_path / "rows-000.npz", text=unit(candidates[:32]))
    np.savez(tmp_path / "text-rows-001.npz", text=unit(candidates[32:]))
    np.savez(tmp_path / "targets.npz", text=unit(targets))
    words = ["target_recovery.py", "baselines", "--work", str(tmp_path), "--sets", "gsm8k"]
    monkeypatch.setattr(sys, "argv", [*words, "--json", str(tmp_path / "out.json")])
    target_recovery.main()
    first = capsys.readouterr().out
    assert "BM25" in first and "perplexity" not in first
    monkeypatch.setattr(target_recovery, "rows_of_baselines", None)
    target_recovery.main()
    assert capsys.readouterr().out == first
    saved = json.loads((tmp_path / "out.json").read_text())
    assert saved["name"] == "target_recovery-baselines" and len(saved["rows"]) == 2 * 8
    monkeypatch.setattr(sys, "argv", [*words, "--losses"])
    with pytest.raises(SystemExit, match="0 of 60 losses"):
        target_recovery.main()
