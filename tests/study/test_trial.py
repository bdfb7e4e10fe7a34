"""Trials: what they draw, what they judge, what they say of subsets."""

import dataclasses

import numpy as np
import pytest

from engine.config import NetworkConfig, SampleConfig, StudentConfig
from engine.errors import SettingsError
from engine.study.data import StudyData
from engine.study.trial import TrialSettings, _judged_pairs, run_trial, settings_of_trial

NETWORK = NetworkConfig.model_validate({"members": 1, "epochs": 20, "patience": 5})
SAMPLE = SampleConfig.model_validate({"fraction": 0.3, "audit": {"candidates": 8, "targets": 4}})

TRIAL = TrialSettings(StudentConfig(name="network"), NETWORK, SAMPLE, ("text",))


def trial_of(**values):
    return dataclasses.replace(TRIAL, **values)


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
        labels,
        {"text": candidates},
        {"text": targets} if pairwise else {},
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
    block = SAMPLE.model_copy(update={"design": "block"} if unit == "point" else {})
    row = run_trial(synthetic(), trial_of(sample=block), unit, seed=0, fractions=(0.1, 0.3))
    assert row["q4 student mse_std"] < 0.5 < row["q4 mean mse_std"]
    assert row["q4 student spearman"] > 0.7
    of_all = synthetic().labels.var()
    assert row["q4 mean mse_std"] == pytest.approx(row["q4 mean mse"] / of_all, rel=1e-5)
    assert {"q3 cosine r2", "q2 zero mse", "q4 linear mse_std", "fit_cpu_s"} <= row.keys()
    assert 0 <= row["overlap 0.1"] <= 1 and 0 < row["value 0.3"] <= 1.0 + 1e-6


def test_a_trial_is_the_same_twice_and_another_seed_draws_another_sample():
    data = synthetic()
    first, second, other = (run_trial(data, TRIAL, "pair", seed) for seed in (1, 1, 2))
    del first["fit_cpu_s"], second["fit_cpu_s"]
    assert first == second
    assert other["q4 student mse"] != first["q4 student mse"]


def test_a_teacher_of_rows():
    row = run_trial(synthetic(pairwise=False), TRIAL, "point", 0, fractions=(0.2,))
    assert row["q4 student spearman"] > 0.7 and "q1 student mse" not in row
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
    default = trial_of(network=NetworkConfig.model_validate({}), sample=SampleConfig())
    values = {"network.hidden": [50, 10], "sample.fraction": 0.2, "student.name": "kernel"}
    found = settings_of_trial({**values, "features": ["text", "length"]}, default)
    assert found.network.hidden == (50, 10) and found.network.members == 1
    assert found.sample.fraction == 0.2 and found.student.name == "kernel"
    assert found.features == ("text", "length")
    assert settings_of_trial({}, default).network.members == 5


@pytest.mark.parametrize("name", ["auto", "kernel", "linear", "vectors"])
def test_students_are_an_axis_of_a_study(name):
    data = synthetic()
    if name == "vectors":  # a teacher whose labels are cosines of vectors
        sides = [s["text"] / np.linalg.norm(s["text"], axis=1, keepdims=True)
                 for s in (data.candidate_sources, data.target_sources)]  # fmt: skip
        data = dataclasses.replace(
            data,
            labels=sides[0] @ sides[1].T,
            candidate_vectors=sides[0],
            target_vectors=sides[1],
        )
    settings = trial_of(student=StudentConfig(name=name))
    row = run_trial(data, settings, "point", 0, fractions=(0.2,))
    assert row["unseen student spearman"] > 0.8 and row["unseen student within"] > 0.7
    assert row["chosen"] == name or name == "auto"
    assert row["asked_targets"] == 30 and "q4 student mse" not in row


def test_too_few_labels_say_so():
    with pytest.raises(SettingsError, match="too few to learn from"):
        run_trial(synthetic(), trial_of(sample=SampleConfig(fraction=0.01)), "pair", 0)
