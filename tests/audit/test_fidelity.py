"""The audit's numbers against scipy and hand computation."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import scipy.stats

from engine.audit.fidelity import Fidelity, Score, fidelity
from engine.audit.verdict import verdict
from engine.config import NetworkConfig, StudentConfig
from engine.errors import InputError
from engine.kernels.ranks import Ranker, correlation
from engine.network.ridge import Ridge
from engine.network.training_set import TrainingSet
from engine.students.choice import fit_student
from tests.network.problems import planted, unseen_block


def audit(data: TrainingSet, scores: np.ndarray, noise: float, **values: Any) -> Fidelity:
    """Audit a made-up student that sees the teacher through noise, beside two real baselines."""
    pairs = unseen_block(scores)
    labels = scores[pairs[:, 0], pairs[:, 1]].astype(np.float32)
    error = noise * labels.std() * np.random.default_rng(1).normal(size=len(labels))
    student = values.pop("student", (labels + error).astype(np.float32))
    asked = values.get("pairs", pairs)
    known = dataclasses.replace(data, text_dim=data.dim)
    others = {
        name: fit_student(
            name, "raw", known, StudentConfig(), NetworkConfig.model_validate({}), 0
        ).predict_pairs(data.candidates, data.targets, asked)
        for name in ("cosine", "linear")
    }
    arguments = {
        "predicted": {"student": student, **others},
        "labels": labels,
        "quadrants": np.full(len(labels), 4),
        "pairs": pairs,
        "training_labels": data.labels,
        "num_resamples": 200,
        **values,
    }
    return fidelity(**arguments)


def test_scores_agree_with_scipy() -> None:
    data, scores = planted()
    pairs = unseen_block(scores)
    labels = scores[pairs[:, 0], pairs[:, 1]].astype(np.float32)
    predictions = np.random.default_rng(0).normal(size=len(labels)).astype(np.float32) + labels
    measured = audit(data, scores, 0.0, student=predictions).quadrants[4]
    student, mean, zero = (measured.scores[name] for name in ("student", "mean", "zero"))
    truth, guess = labels.astype(float), predictions.astype(float)
    mse = np.mean((guess - truth) ** 2)
    assert student.mse == pytest.approx(mse)
    assert student.mse_std == pytest.approx(mse / data.labels.astype(float).var())
    assert student.r2 == pytest.approx(1 - mse / truth.var())
    assert student.spearman == pytest.approx(scipy.stats.spearmanr(guess, truth).statistic)
    assert zero.mse == pytest.approx(np.mean(truth**2))
    assert mean.mse == pytest.approx(np.mean((truth - data.labels.astype(float).mean()) ** 2))
    assert (mean.spearman, mean.within, mean.within_interval) == (None, None, None)
    guess, truth = (
        values - np.array([values[pairs[:, 1] == t].mean() for t in pairs[:, 1]])
        for values in (guess, truth)
    )
    assert student.within == pytest.approx(scipy.stats.spearmanr(guess, truth).statistic)
    assert student.within_r2 == pytest.approx(1 - np.mean((guess - truth) ** 2) / truth.var())
    assert (mean.within_r2, zero.within_r2) == pytest.approx((0, 0), abs=1e-12)
    assert (measured.num_pairs, measured.num_candidates, measured.num_targets) == (700, 50, 14)


def test_weighted_ranks_are_the_ranks_of_repeated_values() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, size=(2, 40)).astype(float)
    weights = rng.integers(0, 4, size=40)
    w = weights.astype(float)
    ours = correlation(Ranker(x).ranks(w), Ranker(y).ranks(w), w)
    theirs = scipy.stats.spearmanr(np.repeat(x, weights), np.repeat(y, weights)).statistic
    assert ours == pytest.approx(theirs)


def test_ridge_solves_the_regression_on_both_embeddings() -> None:
    data, _ = planted(per_candidate=7)
    labels = data.labels.astype(float)
    model = Ridge.fit(data.candidates, data.targets, data.pairs, labels, seed=0)
    design = np.hstack([data.candidates[data.pairs[:, 0]], data.targets[data.pairs[:, 1]]])
    design = design.astype(float)
    centred = design - design.mean(axis=0)
    gram = centred.T @ centred
    alpha = model.penalty * np.trace(gram) / len(gram)
    weights = np.linalg.solve(gram + alpha * np.eye(len(gram)), centred.T @ labels)
    expected = labels.mean() + centred @ weights
    ours = model.predict(data.candidates, data.targets, data.pairs)
    np.testing.assert_allclose(ours, expected, rtol=1e-8)


def test_intervals_resample_candidates_and_targets() -> None:
    """Labels that depend on the candidate alone have as many facts as candidates, not pairs."""
    data, scores = planted()
    rng = np.random.default_rng(0)
    by_candidate = np.repeat(rng.normal(size=(len(scores), 1)), scores.shape[1], axis=1)
    guess = by_candidate + 2 * rng.normal(size=(len(scores), 1))
    pairs = unseen_block(scores)
    predictions = guess[pairs[:, 0], pairs[:, 1]].astype(np.float32)
    found = audit(data, by_candidate, 0.0, student=predictions)
    score = found.quadrants[4].scores["student"]
    assert score.within_interval is not None
    assert score.within is not None
    low, high = score.within_interval
    assert low < score.within < high
    assert high - low > 0.3  # as 50 independent facts; 700 would give 0.14
    means = found.candidate_means
    assert means is not None and means.spearman_interval["student"] is not None
    low, high = means.spearman_interval["student"]
    assert high - low > 0.3
    surer = audit(data, by_candidate, 0.0, student=predictions, confidence=0.99)
    wider = surer.quadrants[4].scores["student"].within_interval
    assert wider is not None and wider[0] < score.within_interval[0]
    leads = surer.quadrants[4].scores["linear"].within_lead_interval
    assert leads == found.quadrants[4].scores["linear"].within_lead_interval


def test_same_seed_same_numbers() -> None:
    data, scores = planted()
    assert audit(data, scores, 0.5) == audit(data, scores, 0.5)
    assert audit(data, scores, 0.5) != audit(data, scores, 0.5, seed=1)


def test_split_half_is_high_for_candidate_effects_and_none_for_noise() -> None:
    data, scores = planted()
    rng = np.random.default_rng(0)
    noise = rng.normal(size=scores.shape)
    effects = np.repeat(rng.normal(size=(len(scores), 1)), scores.shape[1], axis=1)
    for matrix, low, high in ((noise, -0.4, 0.4), (effects, 0.99, 1.01)):
        means = audit(data, matrix, 0.1).candidate_means
        assert means is not None
        assert means.split_half is not None
        assert low < means.split_half < high
        if means.split_half > 0:
            reliability = 2 * means.split_half / (1 + means.split_half)
            assert means.ceiling == pytest.approx(reliability**0.5)


@pytest.mark.parametrize("num_pairs", [0, 1, 2, 14])
def test_few_pairs_and_constant_labels_give_json_without_nan(num_pairs: int) -> None:
    data, scores = planted()
    pairs = unseen_block(scores)[:num_pairs]
    for labels in (scores[pairs[:, 0], pairs[:, 1]], np.full(num_pairs, 0.1)):
        values = labels.astype(np.float32)
        report = audit(
            data,
            scores,
            0.0,
            student=values,
            labels=values,
            quadrants=np.full(num_pairs, 4),
            pairs=pairs,
        )
        json.dumps(report.to_dict(), allow_nan=False)
        assert not verdict(report).trusted
        assert all(verdict(report).reasons)


def test_refuses_what_cannot_be_audited() -> None:
    data, scores = planted()
    with pytest.raises(InputError, match="as many of each"):
        audit(data, scores, 0.0, student=np.zeros(3, np.float32))
    with pytest.raises(InputError, match="student hold values"):
        audit(data, scores, 0.0, student=np.full(700, np.nan, np.float32))
    with pytest.raises(InputError, match="expected 1 to 4"):
        audit(data, scores, 0.0, quadrants=np.zeros(700, np.int64))


def test_targets_with_one_candidate_say_nothing_within() -> None:
    data, scores = planted()
    pairs = unseen_block(scores)
    alone = np.array([[pairs[0, 0], 99]])
    labels = scores[pairs[:, 0], pairs[:, 1]]
    student = labels + np.random.default_rng(0).normal(size=len(labels))

    def measured(extra: float | None) -> Score:
        ends = [] if extra is None else [extra]
        return (
            fidelity(
                predicted={"student": np.append(student, ends)},
                labels=np.append(labels, ends),
                quadrants=np.full(len(labels) + len(ends), 4),
                pairs=pairs if extra is None else np.concatenate([pairs, alone]),
                training_labels=data.labels,
                num_resamples=2,
            )
            .quadrants[4]
            .scores["student"]
        )

    assert measured(7.0).within == measured(None).within
    assert measured(7.0).within_r2 == measured(None).within_r2


def test_rows_without_targets_are_audited_without_a_cosine() -> None:
    rng = np.random.default_rng(0)
    candidates = rng.normal(size=(300, 16)).astype(np.float32)
    labels = (candidates[:, 0] + 0.1 * rng.normal(size=300)).astype(np.float32)
    pairs = np.stack([np.arange(300), np.zeros(300, dtype=np.int64)], axis=1)
    measured = fidelity(
        predicted={"student": labels[200:], "linear": candidates[200:, 0]},
        labels=labels[200:],
        quadrants=np.full(100, 4),
        pairs=pairs[200:],
        training_labels=labels[:200],
        pairwise=False,
    )
    scores = measured.quadrants[4].scores
    assert set(scores) == {"student", "mean", "zero", "linear"}
    assert scores["student"].r2 == pytest.approx(1.0)
    assert scores["linear"].r2 is not None and scores["linear"].r2 > 0.9
    assert scores["linear"].within_r2_interval is not None  # candidates alone are resampled
    assert scores["linear"].within == scores["linear"].spearman
    assert scores["linear"].within_r2 == pytest.approx(scores["linear"].r2)
    judged = verdict(measured, 4)
    assert judged.trusted and len(judged.reasons) == 3, "there is one order, and no cosine"
    assert not any("target" in reason for reason in judged.reasons)
    means = measured.candidate_means
    assert means is not None and means.split_half is None
    assert means.spearman["student"] == pytest.approx(1.0)


def test_top_overlap_by_hand() -> None:
    # means 0..9 over two targets: the teacher's best three are 7, 8, 9
    pairs = np.stack([np.repeat(np.arange(10), 2), np.tile([0, 1], 10)], axis=1)
    labels = np.repeat(np.arange(10), 2).astype(np.float32)
    guess = labels.copy()
    guess[pairs[:, 0] == 7] = -1  # so the student takes 6, 8, 9: two of four in common
    measured = fidelity(
        predicted={"student": guess},
        labels=labels,
        quadrants=np.full(20, 4),
        pairs=pairs,
        training_labels=labels,
        num_resamples=10,
    )
    means = measured.candidate_means
    assert means is not None
    assert means.top_overlap["student"] == pytest.approx(2 / 4)
    assert "mean" not in means.top_overlap  # a constant has no top
    assert means.chance_overlap == pytest.approx(3 / 17)
