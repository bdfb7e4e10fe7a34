"""The student of vectors: its public face, what it learns of what, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import engine
from engine.config import StudentConfig
from engine.errors import InputError, ModelError, SettingsError
from engine.kernels.product import unit_rows
from engine.kernels.ranks import order_within_targets
from engine.network.training_set import TrainingSet
from engine.students.kernel_ridge import PENALTIES, WIDTHS, Gram, KernelRidge, width_of
from engine.students.vectors import STRETCHES, VectorStudent, stretched
from tests.students.problems import problem


def rows_and_vectors(count: int = 80, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(count, 8)).astype(np.float32)
    vectors = np.tanh(rows @ rng.normal(size=(8, 5))) + noise * rng.normal(size=(count, 5))
    return rows, vectors.astype(np.float32)


def test_the_names_of_a_notebook() -> None:
    rows, vectors = rows_and_vectors()
    student = engine.VectorStudent.fit(rows[:60], vectors[:60], similarity="cosine", seed=0)
    found = student.predict(rows[60:])
    assert found.shape == (20, 5) and found.dtype == np.float32
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = (found * unit[60:]).sum(axis=1) / np.linalg.norm(found, axis=1)
    assert cosine.mean() > 0.9
    influence = engine.predict_influence(student, rows[60:], vectors[:7])
    np.testing.assert_allclose(influence, found @ unit[:7].T, atol=1e-5)
    means = engine.mean_influence(student, rows[60:], vectors[:7])
    np.testing.assert_allclose(means, influence.mean(axis=1), atol=1e-6)


def test_what_is_not_known_is_shorter_and_not_stretched() -> None:
    """The expected score is linear in the vector, so the shrunk vector is the best guess."""
    rows, vectors = rows_and_vectors()
    student = engine.VectorStudent.fit(rows, vectors)
    near, far = student.predict(rows), student.predict(rows + 40)
    assert np.linalg.norm(far, axis=1).max() < np.linalg.norm(near, axis=1).mean()
    np.testing.assert_allclose(
        far, np.broadcast_to(student.regression.offset, far.shape), atol=1e-3
    )


def labelled(noise: float) -> TrainingSet:
    """All pairs of 60 candidates and 20 targets, whose vectors are known up to noise."""
    rows, vectors = rows_and_vectors(80, noise)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = np.argwhere(np.ones((60, 20), bool))
    labels = (unit[:60] @ unit[60:].T).ravel()
    return TrainingSet(
        rows[:60],
        rows[60:],
        pairs,
        labels,
        candidate_vectors=unit[:60],
        target_vectors=unit[60:],
    )


def test_candidates_compete_at_lengths_that_are_stretched_back(tmp_path: Path) -> None:
    data = labelled(noise=0.5)
    student = VectorStudent.of_training_set(data, StudentConfig(), 0, "rbf")
    assert student.stretch == max(STRETCHES), "here it takes nothing from the order"
    plain, factors = student.predict(data.candidates), student.candidate_factors(data.candidates)
    np.testing.assert_allclose(unit_rows(factors), unit_rows(plain), atol=1e-6)
    lengths = np.linalg.norm(factors, axis=1)
    before = np.linalg.norm(plain, axis=1)
    np.testing.assert_allclose(lengths, before**0.25, rtol=1e-5)
    assert lengths.std() / lengths.mean() < before.std() / before.mean()
    without = student.left_out_factors
    assert without is not None and without.shape == factors.shape
    np.testing.assert_allclose(
        np.linalg.norm(without, axis=1),
        np.linalg.norm(student.regression.left_out[:60], axis=1) ** 0.25,  # type: ignore[index]
        rtol=1e-5,
    )
    on_tensors = student.candidate_factors(torch.from_numpy(data.candidates))
    np.testing.assert_allclose(on_tensors.numpy(), factors, atol=1e-5)
    student.save(tmp_path / "student.safetensors")
    again = VectorStudent.load(tmp_path / "student.safetensors")
    assert again.stretch == student.stretch and again.facts()["stretch"] == student.stretch
    np.testing.assert_array_equal(again.candidate_factors(data.candidates), factors)


def test_vectors_are_stretched_no_further_than_the_order_bears() -> None:
    """Where all vectors point one way, what is not known would be near to everything."""
    data = labelled(noise=0.0)
    common = np.zeros((1, 5), np.float32)
    common[0, 0] = 1.5
    rng = np.random.default_rng(0)
    known = rng.random(60) < 0.5  # the others have features that say nothing of their vectors
    features = np.where(known[:, None], data.candidates, 3 * rng.normal(size=(60, 8)))
    sides = [unit_rows(v + common) for v in (data.candidate_vectors, data.target_vectors)]
    far = replace(
        data,
        candidates=features.astype(np.float32),
        candidate_vectors=sides[0],
        target_vectors=sides[1],
        labels=(sides[0] @ sides[1].T).ravel(),
    )
    student = VectorStudent.of_training_set(far, StudentConfig(), 0, "rbf")
    c, t = far.pairs.T

    def order(power: float) -> float:
        without = student.regression.left_out
        assert without is not None
        found = stretched(without[:60], power) @ sides[1].T
        return sum(order_within_targets(found[c, t], far.labels, far.pairs)) / 2

    assert order(student.stretch) >= max(order(p) for p in (*STRETCHES, 0.0)) - 0.01
    assert order(0.75) < order(0.0) - 0.01 and student.stretch < 0.75


def test_leave_one_out_is_that_of_fits_without_the_row() -> None:
    rows, vectors = rows_and_vectors(40, noise=0.3)
    whole = KernelRidge.fit(rows, vectors, "rbf")
    errors = []
    for left_out in range(len(rows)):
        rest = np.delete(np.arange(len(rows)), left_out)
        centred = rows - whole.centre
        gram = Gram("rbf", whole.width)
        system = gram(centred[rest].astype(float), centred[rest].astype(float))
        mean = vectors[rest].astype(float).mean(axis=0)
        weights = np.linalg.solve(
            system + whole.penalty * np.eye(len(rest)), vectors[rest].astype(float) - mean
        )
        own = gram(centred[[left_out]].astype(float), centred[rest].astype(float))
        errors.append(vectors[left_out] - (mean + own @ weights)[0])
    spread = np.square((vectors - vectors.mean(axis=0)) * 40 / 39).mean()
    assert whole.leave_one_out == pytest.approx(np.square(errors).mean() / spread, rel=0.1)
    assert whole.penalty in PENALTIES
    assert any(
        whole.width == pytest.approx(w * width_of(centred.astype(float)), rel=1e-4) for w in WIDTHS
    )


@pytest.mark.parametrize(("kernel", "landmarks"), [("rbf", 4096), ("rbf", 25), ("linear", 4096)])
def test_left_out_is_what_is_predicted_without_the_row(kernel: Any, landmarks: int) -> None:
    rows, vectors = rows_and_vectors(60, noise=0.3)
    whole = KernelRidge.fit(rows, vectors, kernel, max_landmarks=landmarks, left_out=True)
    assert whole.left_out is not None
    own = np.square(np.asarray(whole.predict(rows)) - vectors).mean()
    without = np.square(whole.left_out - vectors).mean()
    assert without > 1.2 * own, "a row's own answer helps"
    for row in (0, 17, 59):  # landmarks and centre as they were, the answer of the row taken out
        dealt = vectors.copy()
        dealt[row] = whole.left_out[row]
        again = KernelRidge.fit(
            rows, dealt, kernel, max_landmarks=landmarks, penalty=whole.penalty, left_out=True
        )
        if again.width == pytest.approx(whole.width):
            # an answer that says what is expected anyway changes nothing
            np.testing.assert_allclose(again.left_out[row], whole.left_out[row], atol=2e-3)
            np.testing.assert_allclose(again.predict(rows)[row], whole.left_out[row], atol=2e-3)


def test_landmarks_come_near_to_all_rows_and_cost_less() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(3000, 6)).astype(np.float32)
    vectors = np.tanh(rows @ rng.normal(size=(6, 4))).astype(np.float32)
    test = rng.normal(size=(200, 6)).astype(np.float32)
    full = engine.VectorStudent.fit(rows, vectors, similarity="dot").predict(test)
    few = engine.VectorStudent.fit(rows, vectors, similarity="dot", max_landmarks=600)
    assert few.regression.landmarks.shape == (600, 6)
    error = np.square(few.predict(test) - full).mean() / full.var()
    assert error < 0.02
    other = engine.VectorStudent.fit(rows, vectors, similarity="dot", max_landmarks=600, seed=1)
    assert not np.array_equal(other.regression.landmarks, few.regression.landmarks)


def test_rows_and_vectors_that_are_all_alike() -> None:
    rows, vectors = np.ones((20, 4), np.float32), np.ones((20, 3), np.float32)
    student = engine.VectorStudent.fit(rows, vectors)
    np.testing.assert_allclose(student.predict(rows), 3**-0.5, atol=1e-5)


@pytest.mark.parametrize("both_sides", [False, True])
def test_targets_may_pass_through_the_student_as_well(both_sides: bool) -> None:
    data, truth = problem("vectors")
    student = engine.VectorStudent.fit(
        data.candidates, data.candidate_vectors, targets_too=both_sides
    )
    targets = truth["targets"] if both_sides else truth["vectors"]
    found = engine.predict_influence(student, truth["candidates"], targets)
    expected = student.predict(truth["candidates"]) @ np.asarray(student.target_factors(targets)).T
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_tensors_are_predicted_on_their_device() -> None:
    rows, vectors = rows_and_vectors()
    student = engine.VectorStudent.fit(torch.from_numpy(rows), torch.from_numpy(vectors))
    on_device = student.predict(torch.from_numpy(rows))
    assert isinstance(on_device, torch.Tensor)
    np.testing.assert_allclose(on_device.numpy(), student.predict(rows), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (lambda r, v: (r, v[:-1]), InputError, "features of 80 rows and vectors of 79"),
        (lambda r, v: (r * np.nan, v), InputError, r"features: row 0 \(80 of 80 rows\) holds NaN"),
        (lambda r, v: (r, v[:, 0]), InputError, "vectors must be a matrix"),
        (lambda r, v: (r[:1], v[:1]), InputError, "1 labelled row is too few"),
    ],
)
def test_refusals_are_one_sentence(change: Any, error: type[Exception], sentence: str) -> None:
    rows, vectors = change(*rows_and_vectors())
    with pytest.raises(error, match=sentence):
        engine.VectorStudent.fit(rows, vectors)


def test_features_in_the_place_of_vectors_are_told() -> None:
    rows, vectors = rows_and_vectors()
    student = engine.VectorStudent.fit(rows, vectors)
    with pytest.raises(SettingsError, match=r"pass the teacher's vectors of the targets \(N, V\)"):
        engine.predict_influence(student, rows, rows)
    with pytest.raises(SettingsError, match='similarity must be "cosine" or "dot"'):
        engine.VectorStudent.fit(rows, vectors, similarity="euclid")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="holds NaN or infinity"):
        engine.predict_influence(student, rows * np.inf, vectors)
