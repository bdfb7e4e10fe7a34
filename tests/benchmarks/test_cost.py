"""The cost table: its arithmetic by hand, and its counts beside those of a real run."""

import numpy as np
import pytest

from benchmarks import cost
from benchmarks.unit_costs import UnitCost, teacher_prices
from engine.config import NetworkConfig, SampleConfig, TeacherConfig, parse_config
from engine.example import Example, content_key
from engine.stages.pipeline import run


def fixed(seconds):
    """A unit cost without any spread."""
    return UnitCost((seconds, seconds), (1, 1))


def examples(count):
    made = []
    for i in range(count):
        texts = (f"question {i} {'x' * i}", "", f"answer {i}")
        made.append(Example(f"r{i}", content_key(*texts), *texts))
    return made


SIZE = (1_000, 1_000)
SHARED = {"embed": fixed(0.01), "step": fixed(0.001), "predicted": fixed(1e-8)}
FIT = NetworkConfig.model_validate({"members": 1, "validation_fraction": 0.0, "batch_size": 100})


def projected(name, prices):
    config = TeacherConfig.model_validate({"name": name})
    return cost.projection(name, config, prices, SHARED, 10.0, {SIZE: 5.0}, SIZE, FIT)


def test_delift_is_charged_by_the_pair():
    row = projected("delift", {"target": fixed(0.1), "pair": fixed(0.2)})
    assert row["full_s"] == pytest.approx(1_000 * 0.1 + 10**6 * 0.2 + 5)
    drawn = cost.draw("delift", SIZE, audited=True)
    answers = len(np.unique(drawn.targets)) * 0.1 + len(drawn.quadrant) * 0.2
    # 50 x 50 pairs are asked, of which a tenth is held out; steps of 100 pairs, 10 epochs
    fit = 10 * np.ceil(2_250 / 100) * 0.001
    assert row["nn_cift_s"] == pytest.approx(2_000 * 0.01 + answers + fit + 10**6 * 1e-8 + 5)
    assert row["reduction"] == pytest.approx(1 - row["nn_cift_s"] / row["full_s"])
    assert row["interval"] == pytest.approx([row["reduction"]] * 2)
    assert row["without_audit"] > row["reduction"] > 0.99


def test_less_is_charged_by_the_point_and_its_warm_up_on_both_sides():
    prices = {"warmup": fixed(2.0), "candidate": fixed(1.0), "target": fixed(1.0)}
    row = projected("less", {**prices, "pair": fixed(1e-6)})
    warmup = 4 * 0.05 * 1_000 * 2.0
    assert row["full_s"] == pytest.approx(2_000 + 1 + warmup + 5)
    asked = cost.asked("less", cost.draw("less", SIZE, audited=True), SIZE)
    assert asked["candidate"] == 50 + 40 and asked["target"] == 1_000
    assert row["teacher_s"] == pytest.approx(1_090 + asked["pair"] * 1e-6 + warmup)


def test_selectit_has_no_targets():
    row = projected("selectit", {"candidate": fixed(1.0)})
    assert row["full_s"] == pytest.approx(1_005) and row["N"] is None
    assert row["teacher_s"] == pytest.approx(50 + 24)  # an audit of a third of the calls
    assert row["embed_s"] == pytest.approx(10)


def test_an_encoder_as_cheap_as_the_networks_saves_nothing():
    row = projected(
        "delift_se", {k: fixed(0.01) for k in ("candidate", "target")} | {"pair": fixed(0)}
    )
    assert row["reduction"] < 0


@pytest.mark.parametrize("teacher", ["delift", "delift_se"])
def test_the_counts_are_those_of_a_run(small_job, tmp_path, monkeypatch, teacher):
    job = {**small_job, "run_dir": str(tmp_path)}
    job["sample"] = {**job["sample"], "fraction": 0.1}
    if teacher == "delift_se":
        job["teacher"] = {"name": teacher, "model": job["embedding"]["model"]}
    counts = run(parse_config(job), until="sample").artifact("3-sample").counts
    sample = SampleConfig.model_validate(job["sample"]).model_dump()
    drawn = cost.draw(teacher, (300, 60), audited=True, **sample)
    assert len(drawn.quadrant) == counts["pairs"]
    assert int((drawn.quadrant == 0).sum()) == counts["training_pairs"]
    assert len(np.unique(drawn.candidates[drawn.quadrant == 0])) == counts["training_candidates"]


@pytest.mark.parametrize("name", ["delift", "less", "selectit", "delift_se"])
def test_every_teacher_has_its_prices(small_job, name):
    model = small_job["embedding" if name == "delift_se" else "teacher"]["model"]
    less = {"lora_rank": 4, "warmup_epochs": 1, "projection_dim": 64}
    config = TeacherConfig.model_validate({"name": name, "model": model, "less": less})
    prices = teacher_prices(config, examples(16), examples(16), pairs_of=2)
    kinds = {
        "delift": {"target", "pair"},
        "less": {"warmup", "candidate", "target", "pair"},
        "selectit": {"candidate"},
        "delift_se": {"candidate", "target", "pair"},
    }
    assert set(prices) == kinds[name]
    prices.pop("warmup", None)  # a difference of two times, here too short to be above the noise
    assert all(price.mean > 0 for price in prices.values())
    assert prices.get("candidate", prices.get("target")).units == (8, 8)


def test_the_interval_of_a_unit_cost_holds_its_mean():
    price = UnitCost(tuple(np.linspace(1, 2, 10)), (8,) * 10)
    low, high = np.quantile(price.draws(np.random.default_rng(0)), [0.025, 0.975])
    assert low < price.mean < high and price.mean == pytest.approx(15 / 80)
