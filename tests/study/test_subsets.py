"""What subsets are said to have in common with the teacher's."""

import numpy as np
import pytest

from engine.study.subsets import subset_agreement
from tests.study.test_trial import synthetic


def test_a_perfect_prediction_agrees_with_the_teacher_fully():
    data = synthetic()
    found, ranking = subset_agreement(data, data.labels, (0.1, 0.5), 0)
    for share in ("0.1", "0.5"):
        assert found[f"overlap {share}"] == found[f"value {share}"] == pytest.approx(1.0)
    assert len(set(ranking.tolist())) == len(ranking) == 40
    worse, _ = subset_agreement(data, -data.labels, (0.1,), 0)
    assert worse["overlap 0.1"] < 0.5 and worse["value 0.1"] < 1


def test_rows_drawn_at_random_overlap_as_chance_has_it():
    data = synthetic(num_candidates=400)
    found = [subset_agreement(data, data.labels, (0.25,), seed)[0] for seed in range(40)]
    overlaps = [one["random overlap 0.25"] for one in found]
    assert np.mean(overlaps) == pytest.approx(0.25 / 1.75, abs=0.02) and len(set(overlaps)) > 5
    assert 0.9 < np.mean([one["random value 0.25"] for one in found]) < 1


def test_the_cosine_selects_in_the_networks_place():
    data = synthetic()
    left, right = (
        side / np.linalg.norm(side, axis=1, keepdims=True)
        for side in (data.candidates, data.targets)
    )
    by_hand, _ = subset_agreement(data, left @ right.T, (0.2,), 0)
    assert by_hand["cosine overlap 0.2"] == by_hand["overlap 0.2"]
    assert by_hand["cosine value 0.2"] == by_hand["value 0.2"]


def test_a_teacher_of_rows_has_no_cosine():
    data = synthetic(pairwise=False)
    found, ranking = subset_agreement(data, data.labels, (0.2,), 0)
    assert found["overlap 0.2"] == 1.0 and "random value 0.2" in found
    assert not any(name.startswith("cosine") for name in found)
    assert np.array_equal(ranking, np.argsort(-data.labels[:, 0], kind="stable")[:16])
