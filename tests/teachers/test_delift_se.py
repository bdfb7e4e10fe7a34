"""DELIFT (SE) against numpy."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from engine.config import ModelConfig, TeacherConfig
from engine.example import Example, content_key
from engine.models.encoder import Encoded, Encoder
from engine.teachers.delift_se import DeliftEmbeddingTeacher
from engine.teachers.teacher import Scores, Usage, load_teacher, teacher_class
from tests.tiny_models import build_tiny_encoder

VECTORS = {"c": [3.0, 4.0], "same": [3.0, 4.0], "far": [-4.0, 3.0], "bad": [math.nan, 0.0]}


class FakeEncoder:
    """Two-dimensional vectors by the first word of a text."""

    def encode(self, texts: Sequence[str], batch_size: int, normalize: bool = True) -> Encoded:
        vectors = np.array([VECTORS[text.split("\n")[0]] for text in texts], np.float32)
        if normalize:
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Encoded(vectors, 1, 7)


def example(instruction: str) -> Example:
    return Example(instruction, content_key(instruction, "", "y"), instruction, "", "y")


def scores(similarity: str, *targets: str) -> Scores:
    teacher = DeliftEmbeddingTeacher(FakeEncoder(), similarity, 4)
    asked = [example(name) for name in targets]
    ours = teacher.features("candidate", [example("c")]).values
    theirs = teacher.features("target", asked).values
    return teacher.score(example("c"), ours[0], asked, theirs)


@pytest.mark.parametrize(
    ("similarity", "same", "far"),
    [("cosine", 1.0, 0.0), ("dot", 25.0, 0.0), ("euclidean", 1.0, 1 / (1 + math.sqrt(50)))],
)
def test_similarities_by_hand(similarity: str, same: float, far: float):
    answer = scores(similarity, "same", "far")
    np.testing.assert_allclose(answer.values, [same, far], atol=1e-6)
    assert answer.values.dtype == np.float32 and answer.usage == Usage()


def test_a_bad_embedding_is_nan_with_a_problem():
    teacher = DeliftEmbeddingTeacher(FakeEncoder(), "cosine", 4)
    features = teacher.features("target", [example("same"), example("bad")])
    assert np.isnan(features.values[1]).all() and "not finite" in str(features.problems[1])
    assert features.problems[0] is None and features.usage == Usage(2, 7, 1)
    answer = scores("cosine", "bad", "same")
    assert np.isnan(answer.values).tolist() == [True, False]
    assert "not finite" in str(answer.problems[0]) and answer.problems[1] is None


def test_equals_numpy_on_a_real_encoder(tmp_path: Path):
    path = str(build_tiny_encoder(tmp_path))
    config = TeacherConfig.model_validate({"name": "delift_se", "model": {"path": path}})
    teacher = load_teacher(config, seed=0)
    assert (teacher.unit, teacher.feature_sides) == ("point", ("candidate", "target"))
    rows = [example(f"row number {i * i}") for i in range(6)]
    vectors = Encoder(ModelConfig(path=path)).encode([row.text for row in rows], 16).vectors
    features = teacher.features("target", rows).values
    answer = teacher.score(rows[0], features[0], rows, features)
    np.testing.assert_allclose(answer.values, vectors @ vectors[0], atol=1e-5)
    alone = [
        teacher.score(rows[0], features[0], [r], f[None])
        for r, f in zip(rows, features, strict=True)
    ]
    assert answer.values.tolist() == [a.values[0] for a in alone]


def test_identity(tmp_path: Path):
    def identity(**changes: object) -> dict[str, object]:
        config = {"name": "delift_se", "model": {"path": "a/b"}, **changes}
        return teacher_class("delift_se").identity(TeacherConfig.model_validate(config))

    first = identity()
    assert first == identity(instruction="of delift only")
    assert first != identity(similarity="dot")
    assert first != identity(batch_size=2)
    assert first != identity(model={"path": "a/b", "revision": "c"})
