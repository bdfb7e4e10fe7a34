"""Models on a CUDA device say what they say on a CPU, up to rounding, and the same bytes again."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.config import ModelConfig, TeacherConfig
from engine.example import Example
from engine.models.encoder import Encoder
from engine.teachers.teacher import load_teacher, teacher_class
from tests.tiny_models import build_tiny_encoder, build_tiny_language_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
TEXTS = [f"What is {n} and {n}? It is {2 * n}." * (1 + n % 5) for n in range(40)]
EXAMPLES = [
    Example(str(n), f"{n:032x}", f"What is {n} and {n}?", "", f"It is {2 * n}.") for n in range(24)
]


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A context in which models are loaded onto the CPU."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield patch


def test_vectors(tmp_path: Path, without_gpu: pytest.MonkeyPatch):
    config = ModelConfig(path=str(build_tiny_encoder(tmp_path)))
    expected = Encoder(config).encode(TEXTS, 8).vectors
    without_gpu.undo()
    encoder = Encoder(config)
    assert encoder._model.device.type == "cuda"
    found = encoder.encode(TEXTS, 8).vectors
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert encoder.encode(TEXTS, 8).vectors.tobytes() == found.tobytes()


@pytest.mark.parametrize("name", ["delift", "selectit", "less"])
def test_scores(tmp_path: Path, without_gpu: pytest.MonkeyPatch, name: str):
    model = str(build_tiny_language_model(tmp_path / "lm"))
    config = TeacherConfig.model_validate(
        {"name": name, "model": {"path": model, "dtype": "float32"}, "batch_size": 4}
    )
    prepared = tmp_path / "prepared" if name == "less" else None
    if prepared is not None:  # on the CPU: what is compared is what follows from it
        teacher_class(name).prepare(config, 0, EXAMPLES, prepared)
    expected = scores_of(config, prepared)
    without_gpu.undo()
    found = scores_of(config, prepared)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert scores_of(config, prepared).tobytes() == found.tobytes()


def scores_of(config: TeacherConfig, prepared: Path | None) -> np.ndarray:
    """Of eight candidates for sixteen targets, or of the candidates where there are no targets."""
    teacher = load_teacher(config, 0, prepared)
    candidates, targets = EXAMPLES[:8], EXAMPLES[8:]
    features = {
        side: teacher.features(side, {"candidate": candidates, "target": targets}[side]).values
        for side in teacher_class(config.name).feature_sides
    }
    mine = features.get("candidate")
    theirs = features.get("target")
    rows = [
        teacher.score(
            candidate,
            None if mine is None else mine[number].astype(np.float32),
            targets,
            None if theirs is None else theirs.astype(np.float32),
        ).values
        for number, candidate in enumerate(candidates)
    ]
    return np.stack(rows)
