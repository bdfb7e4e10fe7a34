"""DELIFT (SE) against numpy."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from engine.config import ModelConfig, TeacherConfig
from engine.errors import InputError
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
    teacher = DeliftEmbeddingTeacher(FakeEncoder, similarity, 4)
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


def test_rbf_by_hand():
    teacher = DeliftEmbeddingTeacher(FakeEncoder, "rbf", 4, mean_squared_distance=250.0)
    asked = [example(name) for name in ("same", "far", "bad")]
    ours = teacher.features("candidate", [example("c")]).values[0]
    np.testing.assert_array_equal(ours, VECTORS["c"])  # not normalised
    theirs = teacher.features("target", asked).values
    answer = teacher.score(example("c"), ours, asked, theirs)
    np.testing.assert_allclose(answer.values[:2], [1.0, math.exp(-50 / 25)], rtol=1e-6)
    assert np.isnan(answer.values[2]) and "not finite" in str(answer.problems[2])


def rbf_settings(directory: Path) -> TeacherConfig:
    model = {"path": str(build_tiny_encoder(directory))}
    return TeacherConfig.model_validate({"name": "delift_se", "model": model, "similarity": "rbf"})


def test_rbf_is_scaled_by_all_pairs_of_the_rows_it_was_given(tmp_path: Path):
    config = rbf_settings(tmp_path / "encoder")
    rows = [example(f"row number {i * i}") for i in range(6)]
    teacher_type = teacher_class("delift_se")
    assert teacher_type.preparation_share(config) == 0.05
    usage = teacher_type.prepare(config, 0, rows, tmp_path / "one.json")
    teacher_type.prepare(config, 0, rows[::-1], tmp_path / "two.json")
    assert usage.calls == 6 and usage.tokens > 6
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    texts = [row.text for row in rows]
    vectors = Encoder(config.model).encode(texts, 16, normalize=False).vectors.astype(float)
    distances = np.square(vectors[:, None] - vectors[None]).sum(axis=2)
    mean = distances[np.triu_indices(6, 1)].mean()
    teacher = load_teacher(config, seed=0, prepared=tmp_path / "one.json")
    features = teacher.features("target", rows).values
    answer = teacher.score(rows[0], features[0], rows, features)
    np.testing.assert_allclose(answer.values, np.exp(-distances[0] / (0.1 * mean)), atol=1e-4)


@pytest.mark.parametrize("names", [[], ["one"], ["same", "same"]])
def test_rbf_needs_rows_that_differ(tmp_path: Path, names: list[str]):
    config = rbf_settings(tmp_path / "encoder")
    rows = [example(name) for name in names]
    with pytest.raises(InputError, match=f"rbf .* got {len(names)} rows"):
        teacher_class("delift_se").prepare(config, 0, rows, tmp_path / "prepared.json")
    assert not (tmp_path / "prepared.json").exists()


def test_a_bad_embedding_is_nan_with_a_problem():
    teacher = DeliftEmbeddingTeacher(FakeEncoder, "cosine", 4)
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
    assert first == {  # answers are stored under it
        "teacher": "delift_se",
        "model": "a/b@main",
        "dtype": "float32",
        "threads": 1,
        "max_tokens": 2048,
        "batch_size": 16,
        "version": 1,
        "similarity": "cosine",
    }
    config = TeacherConfig.model_validate({"name": "delift_se"})
    assert teacher_class("delift_se").preparation_share(config) == 0.0
    assert first == identity(instruction="of delift only")
    assert first != identity(similarity="dot")
    assert first != identity(batch_size=2)
    assert first != identity(model={"path": "a/b", "revision": "c"})
