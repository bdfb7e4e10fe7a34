"""Trials: what they draw, what they judge, what they say of subsets."""

import numpy as np
import pytest

from engine.config import NetworkConfig, SampleConfig
from engine.errors import SettingsError
from engine.study.data import StudyData
from engine.study.trial import _judged_pairs, run_trial, settings_of_trial

NETWORK = NetworkConfig.model_validate({"members": 1, "epochs": 20, "patience": 5})
SAMPLE = SampleConfig.model_validate({"fraction": 0.3, "audit": {"candidates": 8, "targets": 4}})


def synthetic(num_candidates=80, num_targets=30, dim=6, pairwise=True):
    """Labels that are a function of the embeddings."""
    chooser = np.random.default_rng(0)
    candidates = chooser.normal(size=(num_candidates, dim)).astype(np.float32)
    targets = chooser.normal(size=(num_targets, dim)).astype(np.float32)
    labels = (candidates[:, :1] + (targets[:, 0] if pairwise else 0)).astype(np.float32)
    labels = labels if pairwise else labels[:, :1]
    few = slice(None) if pairwise else slice(0, 1)
    hashes = [
        chooser.integers(2**63, size=n).astype(np.uint64) for n in (num_candidates, num_targets)
    ]
    return StudyData(
        candidates,
        targets if pairwise else targets[:0],
        labels,
        hashes[0],
        hashes[1][few],
        np.arange(num_candidates) % 4,
        (np.arange(num_targets) % 3)[few],
    )


def test_what_is_saved_is_what_is_mapped(tmp_path):
    data = synthetic()
    data.save(tmp_path)
    again = StudyData.open(tmp_path)
    assert again.pairwise and np.array_equal(again.labels, data.labels)
    assert np.array_equal(again.candidate_hashes, data.candidate_hashes)


@pytest.mark.parametrize("unit", ["pair", "point"])
def test_a_trial_learns_what_can_be_learned(unit):
    row = run_trial(synthetic(), NETWORK, SAMPLE, unit, seed=0, fractions=(0.1, 0.3))
    assert row["q4 network mse_std"] < 0.5 < row["q4 mean mse_std"]
    assert row["q4 network spearman"] > 0.7
    of_all = synthetic().labels.var()
    assert row["q4 mean mse_std"] == pytest.approx(row["q4 mean mse"] / of_all, rel=1e-5)
    assert {"q3 cosine r2", "q2 zero mse", "q4 ridge mse_std", "fit_cpu_s"} <= row.keys()
    assert 0 <= row["overlap 0.1"] <= 1 and 0 < row["value 0.3"] <= 1.0 + 1e-6


def test_a_trial_is_the_same_twice_and_another_seed_draws_another_sample():
    data = synthetic()
    first, second, other = (run_trial(data, NETWORK, SAMPLE, "pair", seed) for seed in (1, 1, 2))
    del first["fit_cpu_s"], second["fit_cpu_s"]
    assert first == second
    assert other["q4 network mse"] != first["q4 network mse"]


def test_a_teacher_of_rows():
    row = run_trial(synthetic(pairwise=False), NETWORK, SAMPLE, "point", 0, fractions=(0.2,))
    assert row["q4 network spearman"] > 0.7 and "q1 network mse" not in row
    assert row["overlap 0.2"] > 0.4


def test_judged_pairs_were_never_learned_and_lie_in_their_quadrants():
    data = synthetic()
    data.labels[3, :] = np.nan
    learned = np.array([[c, t] for c in range(0, 40, 2) for t in range(0, 20, 2)])
    pairs, quadrants = _judged_pairs(data, learned, seed=0, count=50)
    taken = set(map(tuple, learned.tolist()))
    for (c, t), quadrant in zip(pairs.tolist(), quadrants, strict=True):
        assert (c, t) not in taken and c != 3
        seen = (c < 40 and c % 2 == 0, t < 20 and t % 2 == 0)
        assert quadrant == {(1, 1): 1, (1, 0): 2, (0, 1): 3, (0, 0): 4}[seen]


def test_settings_of_a_trial_fill_in_the_preset_anew():
    network, sample = settings_of_trial(
        {"network.hidden": [50, 10], "sample.fraction": 0.2},
        NetworkConfig.model_validate({}),
        SampleConfig(),
    )
    assert network.hidden == (50, 10) and network.members == 1 and sample.fraction == 0.2
    assert settings_of_trial({}, NetworkConfig.model_validate({}), SampleConfig())[0].members == 5


def test_too_few_labels_say_so():
    with pytest.raises(SettingsError, match="too few to learn from"):
        run_trial(synthetic(), NETWORK, SampleConfig(fraction=0.01), "pair", 0)
