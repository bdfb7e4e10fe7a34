"""What Tune is asked to try, and what becomes of a trial's settings."""

import pytest

from engine.config import StudyConfig
from engine.errors import SettingsError
from engine.study.study import _price
from engine.study.tune import _draws, _flat, _space, _trackers

SEARCH = {
    "network.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "network.input_dropout": {"low": 0.2, "high": 0.5},
    "network.hidden": [[50], [100]],
}


def study(**values):
    return StudyConfig.model_validate({"search": SEARCH, "samples": 40, **values})


def test_points_are_drawn_once_for_all_seeds_and_the_same_again():
    points = _draws(study(), 3)
    assert points == _draws(study(), 3) != _draws(study(), 4)
    rates = sorted(point["network.learning_rate"] for point in points)
    assert 1e-4 <= rates[0] < 1e-3 < rates[-1] <= 1e-2
    assert sum(rate < 1e-3 for rate in rates) > 8  # half of a log scale
    assert all(0.2 <= point["network.input_dropout"] <= 0.5 for point in points)
    assert {tuple(point["network.hidden"]) for point in points} == {(50,), (100,)}
    space = _space(study(seeds=[0, 5]), 3)
    assert space["drawn"] == {"grid_search": points} and space["seed"] == {"grid_search": [0, 5]}


def test_what_was_drawn_is_a_setting_like_any_other():
    assert _flat({"sample.fraction": 0.1, "drawn": {"network.members": 1}, "seed": 0}) == {
        "network.members": 1,
        "sample.fraction": 0.1,
        "seed": 0,
    }


@pytest.mark.parametrize("search", [{"low": 2, "high": 1}, {"low": 0, "high": 1, "log": True}])
def test_a_range_must_be_one(search):
    with pytest.raises(ValueError, match="low"):
        study(search={"network.learning_rate": search})


@pytest.mark.parametrize("tracker", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed(tracker, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, tracker, None)
    with pytest.raises(SettingsError, match=f"pip install {tracker}"):
        _trackers(study(tracker=tracker))
    assert _trackers(study()) == []


def test_a_trial_costs_its_share_of_all_answers():
    sizes = {"candidates": 90, "targets": 10, "full_teacher_cpu_s": 110.0, "prepared_cpu_s": 10.0}
    row = {"labels": 45, "asked_candidates": 9, "asked_targets": 5}
    assert _price(row, sizes, "pair") == pytest.approx(10 + 100 * 45 / 900)
    assert _price(row, sizes, "point") == pytest.approx(10 + 100 * 14 / 100)
