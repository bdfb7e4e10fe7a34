"""What every student must do, whatever it is: one suite, all students, all kinds of answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.components import component_names
from engine.config import NetworkConfig, StudentConfig
from engine.config.facts import STUDENTS
from engine.errors import InputError, ModelError
from engine.influence.predict import mean_influence, predict_influence, top_candidates
from engine.kernels.ranks import rank_correlation
from engine.network.training_set import TrainingSet
from engine.students.choice import fit_student, targets_of
from engine.students.network import NetworkStudent
from engine.students.student import ProductStudent, Student, load_student, student_class
from tests.students.problems import NUM_ASKED, NUM_CANDIDATES, problem

NAMES = component_names(STUDENTS, installed=False)
KINDS = ("vectors", "block", "pairs", "rows")
NETWORK = NetworkConfig.model_validate({"epochs": 40, "patience": 10})
CASES = [
    (name, kind)
    for name in NAMES
    for kind in KINDS
    if student_class(name).learns_from(problem(kind)[0])
]


def fitted(name: str, data: TrainingSet, seed: int = 0, **settings: Any) -> Student:
    return fit_student(name, "raw", data, StudentConfig(**settings), NETWORK, seed)


def all_pairs(truth: dict[str, Any]) -> np.ndarray:
    return np.argwhere(np.ones_like(truth["matrix"], bool))


def predictions(student: Student, data: TrainingSet, truth: dict[str, Any]) -> np.ndarray:
    full = student.predict_pairs(truth["candidates"], targets_of(data, student), all_pairs(truth))
    return full.reshape(truth["matrix"].shape)


def test_every_student_learns_something() -> None:
    assert {name for name, _ in CASES} == set(NAMES)
    assert {kind for _, kind in CASES} == set(KINDS)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_it_predicts_candidates_that_it_has_not_seen(name: str, kind: str) -> None:
    data, truth = problem(kind)
    found = predictions(fitted(name, data), data, truth)
    assert found.dtype == np.float32 and np.isfinite(found).all()
    unseen = slice(NUM_ASKED, NUM_CANDIDATES)
    order = rank_correlation(
        found[unseen].ravel().astype(float), truth["matrix"][unseen].ravel().astype(float)
    )
    least = {
        "vectors": 0.8,
        "vector_network": 0.7,
        "kernel": 0.45,
        "linear": 0.35,
        "cosine": 0.1,
        "network": 0.2,
    }
    assert order > least[name]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_what_is_saved_predicts_the_same_and_is_the_same_bytes(
    name: str, kind: str, tmp_path: Path
) -> None:
    data, truth = problem(kind)
    first, second = fitted(name, data), fitted(name, data)
    first.save(tmp_path / "a.safetensors")
    second.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    again = load_student(tmp_path / "a.safetensors")
    assert type(again) is type(first) and again.pairwise == (kind != "rows")
    assert again.reads_target_vectors == first.reads_target_vectors
    np.testing.assert_array_equal(predictions(again, data, truth), predictions(first, data, truth))
    assert again.num_parameters == first.num_parameters > 0


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_matrix_means_and_top_are_those_of_its_pairs(name: str, kind: str) -> None:
    data, truth = problem(kind)
    student = fitted(name, data)
    expected = predictions(student, data, truth)
    model = student.network if isinstance(student, NetworkStudent) else student
    columns = targets_of(data, student)
    columns = np.ones((1, data.dim), np.float32) if columns is None else columns
    matrix = predict_influence(model, truth["candidates"], columns)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=2e-5 * scale)
    means = mean_influence(model, truth["candidates"], columns)
    np.testing.assert_allclose(means, matrix.mean(axis=1), rtol=0, atol=1e-5 * scale)
    top = top_candidates(model, truth["candidates"], columns, 5)
    best = np.take_along_axis(matrix, top.ids.T, axis=0).T
    assert (best == top.influence).all()
    assert (top.influence == np.sort(matrix, axis=0)[-5:][::-1].T).all()


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_equal_answers_are_predicted_as_that(name: str, kind: str) -> None:
    data, truth = problem(kind)
    if kind == "vectors":
        pytest.skip("vectors that are all alike: in test_vectors")
    flat = dataclasses.replace(data, labels=np.full_like(data.labels, 0.25))
    assert predictions(fitted(name, flat), flat, truth) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_threads_and_cuts_change_no_bit(name: str, kind: str) -> None:
    data, truth = problem(kind)
    student = fitted(name, data)
    if not isinstance(student, ProductStudent):
        pytest.skip("of networks: tests/influence/test_predict.py")
    many = np.tile(truth["candidates"], (16, 1))  # 3,200 rows, four blocks
    columns = targets_of(data, student)
    columns = np.ones((1, data.dim), np.float32) if columns is None else columns
    alone = predict_influence(student, many, columns, threads=1)
    assert predict_influence(student, many, columns, threads=3).tobytes() == alone.tobytes()
    factors = np.asarray(student.candidate_factors(many))
    cut = [np.asarray(student.candidate_factors(many[s : s + 1024])) for s in range(0, 3200, 1024)]
    assert np.concatenate(cut).tobytes() == factors.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_no_student_is_refused(name: str, tmp_path: Path) -> None:
    del name
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="is not a saved"):
        load_student(tmp_path / "x.safetensors")


@pytest.mark.parametrize("change", ["nan", "few", "shape"])
def test_what_cannot_be_learned_is_one_sentence(change: str) -> None:
    data, _ = problem("block")
    if change == "nan":
        data.labels[3] = np.nan
        sentence = "1 of 1800 teacher labels are not finite numbers"
    elif change == "few":
        data = dataclasses.replace(data, pairs=data.pairs[:5], labels=data.labels[:5])
        sentence = "5 teacher labels are too few to fit a student"
    else:
        data = dataclasses.replace(data, labels=data.labels[:-1])
        sentence = "expected one per pair"
    with pytest.raises(InputError, match=sentence):
        data.check()
