"""The network of vectors: what it is made of, when it contends, and a run with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import engine
from engine.config import NetworkConfig, StudentConfig, parse_config
from engine.errors import SettingsError
from engine.network.fit import fit_network
from engine.stages.pipeline import run
from engine.students.choice import choose
from engine.students.student import load_student
from engine.students.vector_network import VectorNetworkStudent
from tests.students.problems import problem

NETWORK = NetworkConfig.model_validate({"epochs": 60, "patience": 10})


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_it_says_what_its_network_says(preset: str) -> None:
    data, truth = problem("vectors")
    settings = StudentConfig(targets="exact", vector_units=60)
    network = NetworkConfig.model_validate({"preset": preset, "epochs": 5})
    known = VectorNetworkStudent.training_set(data)
    assert len(known.labels) == len(data.candidates) + len(data.targets), "both sides teach it"
    fitted = fit_network(
        known.candidates,
        None,
        known.pairs,
        known.labels,
        VectorNetworkStudent.training_settings(settings, network),
    )
    student = VectorNetworkStudent.learn(data, settings, network, 0)
    with torch.no_grad():
        expected = fitted(torch.from_numpy(known.candidates)).numpy()
    rows = np.concatenate((data.candidates, data.targets))
    np.testing.assert_allclose(student.predict(rows), expected, atol=1e-5)
    np.testing.assert_allclose(student.predict(torch.from_numpy(rows)), expected, atol=1e-5)
    assert student.num_parameters == sum(p.numel() for p in fitted.parameters())
    assert student.facts() == {"hidden": [60]}
    with pytest.raises(SettingsError, match=r"pass the teacher's vectors of the targets \(N, V\)"):
        engine.predict_influence(student, truth["candidates"], truth["targets"])


@pytest.mark.parametrize("targets", ["exact", "student"])
def test_it_contends_where_there_are_enough_rows(
    targets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _ = problem("vectors")
    settings = StudentConfig(targets=targets, vector_units=100)
    assert "vector_network" not in {
        one.student for one in choose(data, settings, NETWORK, 0).contenders
    }
    monkeypatch.setattr("engine.students.vector_network.VECTOR_NETWORK_ROWS", 90)
    found = choose(data, settings, NETWORK, 0)
    (own,) = (one for one in found.contenders if one.student == "vector_network")
    assert own.labels == "raw" and own.score > 0.5
    assert found.student == "vectors", "preferred where it is not surely behind"
    without_members = NETWORK.model_copy(update={"members": 1})
    alone = StudentConfig(targets=targets, contenders=("vector_network", "cosine"), folds=2)
    assert choose(data, alone, without_members, 0).student == "vector_network"


def test_a_run_with_it(
    small_job: dict[str, Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = {**small_job["teacher"], "name": "rds"}
    student = {"name": "vector_network", "vector_units": 50, "targets": "exact"}
    job = {**small_job, "run_dir": str(tmp_path / "run"), "teacher": teacher, "student": student}
    directory = run(parse_config(job))
    fit = directory.artifact("5-student")
    assert fit.counts["student"] == "vector_network" and fit.counts["epochs"] > 0
    student = load_student(fit.path("student"))
    assert isinstance(student, VectorNetworkStudent) and student.reads_target_vectors
    assert fit.counts["parameters"] == student.num_parameters
    factors = np.load(next((directory.path / "6-influence/factors-candidates").glob("*.npy")))
    assert factors.shape == (300, student.vector_size)
