"""The proof on a tiny model: what is trained, what is never trained twice, what the table says."""

import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks import proof, target_recovery
from tests.benchmarks.test_target_recovery import TOPICS, rows, unit
from tests.tiny_models import build_tiny_language_model

TARGETS = [{**row, "id": f"t{row['id']}", "set": "gsm8k"} for row in rows(12)]


@pytest.fixture
def small(monkeypatch):
    for name, value in {
        "BUDGET": 6, "LONGEST": 24, "NUM_TARGETS": 6, "NUM_TESTS": 5, "ASKED": 0.3,
        "CORE": {"zero-shot": 1, "random": 2, "cosine": 1, "rds": 1, "NN-CIFT rds": 2},
        "FURTHER_SETS": (),
        "TRAINING": proof.TRAINING.model_copy(update={"epochs": 1}),
    }.items():  # fmt: skip
        monkeypatch.setattr(proof, name, value)


@pytest.fixture
def pool():
    """Three topics; a teacher and features that see them, with some noise."""
    candidates, targets = rows(240), [TARGETS[i] for i in range(6) if i % 3 == 0]
    chooser, found = np.random.default_rng(0), []
    for items in (candidates, targets):
        found.append(unit(items) + chooser.normal(0, 0.1, (len(items), 3)).astype(np.float32))
    made = target_recovery.Pool.__new__(target_recovery.Pool)
    target_recovery.Rows.__init__(made, "gsm8k", candidates, targets, (found[0], found[1]))
    fits = chooser.random((240, 1)).astype(np.float32)
    lengths = [np.zeros((len(side), 2), np.float32) for side in found]
    made.features = (
        np.concatenate([found[0], fits, lengths[0]], axis=1),
        np.concatenate([found[1], fits[: len(targets)], lengths[1]], axis=1),
    )
    made.vectors = dict.fromkeys(target_recovery.TEACHERS, (found[0], found[1]))
    return made


@pytest.mark.parametrize("arm", [a for a in (*proof.CORE, *proof.FURTHER) if a != "zero-shot"])
def test_every_arm_ranks_different_rows(pool, small, arm):
    if arm == "BM25":
        pytest.importorskip("bm25s")
    choosing = proof.Choosing(pool, [row["source"] for row in rows(240)])
    picks, asked = choosing.ranking(arm, 0)
    assert len(np.unique(picks)) == len(picks) >= 2 * proof.BUDGET
    assert picks.min() >= 0 and picks.max() < 240
    right = pool.measures(pool.tally(picks[: proof.BUDGET]))[0]
    if arm not in ("random", "balanced", "longest"):
        assert right == 1.0, "apples alone are wanted"
    expected = {"rds": 240, "delift_se": 240, "RDS+ as published": 240}.get(arm, 0)
    assert asked == expected or (arm.startswith("NN-CIFT") and 72 <= asked <= 84)
    if arm.endswith("gate"):
        fits = pool.features[0][:, proof.FIT]
        assert fits[picks].min() >= np.quantile(fits, proof.DROPPED)


def test_who_selects_does_not_test():
    many = [{**TARGETS[0], "id": f"x{i}"} for i in range(250)]
    selecting, testing = proof.split(many)
    assert len(selecting) == len(testing) == 100 and not set(selecting) & set(testing)


@pytest.fixture
def work(small, tmp_path, monkeypatch):
    """Subsets of a set, and data in the place of the corpus."""
    pool, path = rows(60), build_tiny_language_model(tmp_path / "lm")
    monkeypatch.setattr(target_recovery, "pool_rows", lambda: pool)
    monkeypatch.setattr(target_recovery, "target_rows", lambda: TARGETS)
    monkeypatch.setattr(proof, "MODEL", {"path": str(path)})
    monkeypatch.setattr(proof, "STYLE", "plain")

    def subset(start):
        told = {"asked": 3, "bad": 0.1, "right": 0.5, "cpu_seconds": 1.0}
        return {"rows": [*range(start, start + 6)], "by_tokens": [*range(start, start + 4)], **told}

    arms = {"random": [subset(0), subset(6)], "cosine": [subset(12)], "rds": [subset(18)]}
    arms["NN-CIFT rds"] = [subset(24), subset(30)]
    (tmp_path / proof.SUBSETS).write_text(json.dumps({"gsm8k": arms}))
    return tmp_path


def command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["proof.py", *words])
    proof.main()


def test_a_training_is_never_done_twice_and_any_part_is_a_table(work, monkeypatch, capsys):
    command(monkeypatch, "train", "--work", str(work), "--most", "3")
    first = pq.read_table(work / proof.TRAININGS).to_pylist()
    assert [(row["arm"], row["axis"], row["seed"]) for row in first] == [
        ("zero-shot", "rows", 0), ("random", "rows", 0), ("cosine", "rows", 0),
    ]  # fmt: skip
    command(monkeypatch, "train", "--work", str(work))
    capsys.readouterr()
    command(monkeypatch, "train", "--work", str(work))
    assert "gsm8k" not in capsys.readouterr().err, "nothing is left to do"
    done = pq.read_table(work / proof.TRAININGS).to_pylist()
    assert done[:3] == first and len(done) == 7 + 6
    keys = [(row["arm"], row["axis"], row["seed"]) for row in done]
    assert len(set(keys)) == len(keys)
    zero = done[0]
    assert zero["rows"] == zero["tokens"] == 0 and len(zero["log_likelihood"]) == 5
    for row in done[1:]:
        assert row["rows"] == (6 if row["axis"] == "rows" else 4) and row["tokens"] > 0
        assert row["log_likelihood"] != zero["log_likelihood"], "something was learned"
    command(monkeypatch, "table", "--work", str(work), "--json", str(work / "proof.json"))
    assert "NN-CIFT rds" in capsys.readouterr().out
    lines = json.loads((work / "proof.json").read_text())["rows"]
    (line,) = (x for x in lines if x["arm"] == "NN-CIFT rds" and x["axis"] == "rows")
    own = [np.mean(row["log_likelihood"]) for row in done if row["arm"] == "NN-CIFT rds"][:2]
    assert line["seeds"] == 2 and line["log_likelihood"] == pytest.approx(np.mean(own))
    assert "less_teacher" in line and not line["differs"], "two seeds are no finding"


def test_a_killed_training_gives_the_same_in_any_order(work, monkeypatch):
    command(monkeypatch, "train", "--work", str(work), "--most", "5")
    known = pq.read_table(work / proof.TRAININGS).to_pylist()
    (work / proof.TRAININGS).unlink()
    subsets = json.loads((work / proof.SUBSETS).read_text())
    chosen = list(proof.wanted(subsets))[4]
    trainer = proof.Trainer(proof.MODEL, target_recovery.pool_rows(), TARGETS)
    again = trainer.done(chosen)
    assert again["log_likelihood"] == known[4]["log_likelihood"], "what came before leaves no trace"


def test_differences_are_paired_and_corrected():
    chooser = np.random.default_rng(0)
    base = chooser.normal(-2, 1, 40)

    def row(arm, seed, lift):
        values = base + lift + chooser.normal(0, 0.02, 40)
        told = {"target": "gsm8k", "arm": arm, "axis": "rows", "seed": seed, "tokens": 10}
        return {**told, "log_likelihood": values.tolist(), "exact": [True] * 40}

    trainings = [row(arm, s, lift) for arm, lift in
                 (("random", 0), ("rds", 0.5), ("NN-CIFT rds", 0.49), ("longest", 0))
                 for s in range(3)]  # fmt: skip
    lines = {line["arm"]: line for line in proof.compared(trainings, {})}
    assert lines["rds"]["differs"] and lines["NN-CIFT rds"]["differs"]
    assert not lines["longest"]["differs"] and "p" not in lines["random"]
    low, high = lines["NN-CIFT rds"]["less_teacher_interval"]
    assert low < -0.01 < high and high - low < 0.1
    assert set(TOPICS) == {"apples", "rivers", "clouds"}
