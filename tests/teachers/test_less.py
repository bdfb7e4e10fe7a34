"""LESS against one backward pass per example, a dense matrix of signs, and hand-made numbers."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import feather
from safetensors import safe_open
from transformers import AutoTokenizer

from engine.artifacts.rows import TableParts
from engine.config import TeacherConfig, parse_config
from engine.errors import InputError
from engine.example import ANSWER_MARK, Example, content_key
from engine.kernels.adam import AdamStep
from engine.stages.pipeline import run
from engine.teachers.less import LessSettings, LessTeacher
from engine.teachers.teacher import Usage, load_teacher, teacher_class
from tests.oracles import less as oracle
from tests.tiny_models import build_tiny_language_model

SMALL = {
    "lora_rank": 2, "lora_alpha": 4, "lora_targets": ["q_proj", "v_proj"], "warmup_epochs": 2,
    "warmup_batch_size": 4, "learning_rate": 0.02, "projection_dim": 256,
}  # fmt: skip


def example(instruction: str, output: str) -> Example:
    return Example(instruction, content_key(instruction, "", output), instruction, "", output)


POOL = [example(f"question {i * i}", "answer " + "ab" * (i + 1)) for i in range(6)]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_language_model(tmp_path_factory.mktemp("lm"))


def settings(model_dir: Path, max_tokens: int = 128, batch_size: int = 4, **less) -> TeacherConfig:
    return TeacherConfig.model_validate(
        {
            "name": "less",
            "model": {"path": str(model_dir), "dtype": "float32"},
            "max_tokens": max_tokens,
            "batch_size": batch_size,
            "less": {**SMALL, **less},
        }
    )


@pytest.fixture(scope="module")
def prepared(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("less") / "prepared.safetensors"
    usage = LessTeacher.prepare(settings(model_dir), 5, POOL, path)
    tokens = sum(len(e.text) + 2 - 1 for e in POOL)  # bytes, bos and eos, which is not read
    assert usage == Usage(2 * len(POOL), 2 * tokens, 0)
    return path


@pytest.fixture(scope="module")
def teacher(model_dir: Path, prepared: Path) -> LessTeacher:
    found = load_teacher(settings(model_dir), 5, prepared)
    assert isinstance(found, LessTeacher)
    return found


@pytest.mark.parametrize("form", ["corrected", "reference"])
def test_adam_step_by_hand(form: str):
    m, v = torch.tensor([0.1, -0.2, 0.0]), torch.tensor([0.04, 0.01, 0.0])
    g = torch.tensor([[0.5, 0.3, 1e-3], [0.0, 0.0, 0.0]])
    ours = AdamStep(m, v, 3, form).of(g).numpy()
    np.testing.assert_allclose(ours, oracle.adam_step(g, m, v, 3, form), rtol=1e-5)
    if form == "reference":  # m' = 0.14, v' = 0.04021
        assert ours[0, 0] == pytest.approx(0.14 / math.sqrt(0.04021), rel=1e-5)


def test_scores_equal_the_oracle(teacher: LessTeacher, prepared: Path, model_dir: Path):
    """One backward pass and one dense matrix product per example, in float64."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False).input_ids)

    names = list(teacher._model.matrices)
    sizes = [matrix.numel() for matrix in teacher._model.matrices.values()]
    signs = oracle.projection_matrix(teacher._projection, sizes)
    np.testing.assert_allclose(np.abs(signs), 1.0, atol=1e-5)
    sides: dict[str, list[list[np.ndarray]]] = {"candidate": [], "target": []}
    with safe_open(prepared, "pt") as file:
        for row in POOL:
            prompt = [256, *ids(f"{row.prompt}\n{ANSWER_MARK.strip()}")]
            response = [*ids(f" {row.output}"), 257]
            for vectors in sides.values():
                vectors.append([])
            for epoch, steps in enumerate((2, 4)):
                weights, m, v = (
                    {name: file.get_tensor(f"{epoch}/{kind}/{name}") for name in names}
                    for kind in ("weights", "first_moments", "second_moments")
                )
                teacher._model.load(weights)
                found = oracle.gradients(
                    teacher._model._model, prompt, response, teacher._model.matrices.values()
                )
                flat = np.concatenate([g.flatten().numpy() for g in found]).astype(np.float64)
                moments = [
                    np.concatenate([moment[name].flatten().numpy() for name in names])
                    for moment in (m, v)
                ]
                sides["target"][-1].append(signs @ flat)
                step = oracle.adam_step(flat, *moments, steps, "corrected")
                sides["candidate"][-1].append(signs @ step)
    features = {side: teacher.features(side, POOL).values for side in sides}
    rates = [0.02 * (1 / 2 + 1) / 2, 0.02 * (2 / 3 + 1 / 3) / 2]
    for i, candidate in enumerate(sides["candidate"]):
        answer = teacher.score(POOL[i], features["candidate"][i], POOL, features["target"])
        expected = [oracle.score(candidate, target, rates) for target in sides["target"]]
        np.testing.assert_allclose(answer.values, expected, atol=2e-3)  # float16 features
        assert answer.usage == Usage() and answer.problems == [None] * len(POOL)


def test_the_mean_of_shares_is_the_cosine_of_the_mean(model_dir: Path, prepared: Path):
    """By hand from the gradients as they are: short targets have long ones."""
    joining = load_teacher(settings(model_dir, aggregation="cos_of_mean"), 5, prepared)
    gradients = joining.features("target", POOL).values
    lengths = np.linalg.norm(gradients.reshape(6, 2, 256), axis=2)
    assert gradients.dtype == np.float32 and np.ptp(lengths) > 0.1 * lengths.max()
    bad = np.full((1, 512), np.nan, np.float32)
    everything = np.concatenate([gradients, bad])
    joined = joining.joined(everything, everything)
    assert np.isnan(joined[6]).all()  # takes no part
    # a target that is asked about later is measured by the mean of the others
    np.testing.assert_array_equal(joining.joined(gradients[:1], gradients)[0], joined[0])
    assert np.isnan(joining.joined(gradients, bad)).all()
    rates = [0.02 * (1 / 2 + 1) / 2, 0.02 * (2 / 3 + 1 / 3) / 2]
    steps = joining.features("candidate", POOL).values.astype(np.float32)
    mean = gradients.mean(axis=0).reshape(2, 256)
    for candidate, step in zip(POOL, steps, strict=True):
        shares = joining.score(candidate, step, POOL, joined[:6]).values
        expected = oracle.score(step.reshape(2, 256), mean, rates)
        assert shares.mean() == pytest.approx(expected, abs=1e-3)  # steps are in float16
        each = [oracle.score(step.reshape(2, 256), g.reshape(2, 256), rates) for g in gradients]
        assert abs(np.mean(each) - expected) > 0.01


def test_candidates_are_as_good_as_for_the_sub_task_they_help_most(
    small_job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """cos_of_mean through the pipeline, beside what the stored features say."""

    def job(column: str):
        less = {**SMALL, "projection_dim": 64, "aggregation": "cos_of_mean"}
        sections = {
            "teacher": {**small_job["teacher"], "name": "less", "less": less},
            "influence": {"subtask_column": column},
            "sample": {"fraction": 1},
        }
        return parse_config({**small_job, **sections, "run_dir": str(tmp_path / "run")})

    directory = run(job("topic"), until="predict")
    (store,) = (directory.path / "4-teacher/store").glob("less-*")
    features: dict[str, dict[str, np.ndarray]] = {}
    for side in ("candidate", "target"):
        tables = [feather.read_table(path) for path in (store / f"features-{side}").glob("*.arrow")]
        table = pa.concat_tables(tables)
        rows = zip(table["key"].to_pylist(), table["feature"].to_pylist(), strict=True)
        features[side] = {key: np.array(value).reshape(2, 64) for key, value in rows}
    corpus = directory.artifact("1-corpus")
    tables = {
        name: list(TableParts(corpus, name).take(np.arange(size), ["key", "extra"]).to_pylist())
        for name, size in (("candidates", 300), ("targets", 60))
    }
    topics: dict[str, list[np.ndarray]] = {}
    for row in tables["targets"]:
        topics.setdefault(json.loads(row["extra"])["topic"], []).append(
            features["target"][row["key"]]
        )
    assert len(topics) > 4
    with safe_open(store / "prepared", "np") as file:
        rates = [epoch["learning_rate"] for epoch in json.loads(file.metadata()["epochs"])]
    expected = [
        max(
            oracle.score(features["candidate"][row["key"]], np.mean(some, axis=0), rates)
            for some in topics.values()
        )
        for row in tables["candidates"]
    ]
    found = np.load(directory.artifact("6-influence").path("means"))
    np.testing.assert_allclose(found, expected, atol=2e-4)
    # other sub-tasks: gradients are not paid for again, and answers are not mixed
    run(job("bad"), until="score", overwrite=True)
    assert directory.artifact("4-teacher").counts["asked_now"] == 0
    assert len(list(store.glob("pairs-*"))) == 2 and not (store / "pairs").exists()


def test_features_are_unit_vectors_in_float16(teacher: LessTeacher):
    features = teacher.features("target", POOL)
    assert features.values.dtype == np.float16 and features.values.shape == (6, 2 * 256)
    norms = np.linalg.norm(features.values.reshape(6, 2, 256).astype(np.float32), axis=2)
    np.testing.assert_allclose(norms, 1.0, atol=1e-3)
    assert features.usage.calls == 12 and features.usage.num_truncated == 0


def test_batches_matter_through_rounding_only(
    teacher: LessTeacher, model_dir: Path, prepared: Path
):
    one_by_one = load_teacher(settings(model_dir, batch_size=1), 5, prepared)
    for side in ("candidate", "target"):
        many = teacher.features(side, POOL).values
        np.testing.assert_allclose(one_by_one.features(side, POOL).values, many, atol=2e-3)
        np.testing.assert_array_equal(teacher.features(side, POOL[::-1]).values[::-1], many)


def test_a_score_does_not_depend_on_the_other_targets(teacher: LessTeacher):
    features = teacher.features("target", POOL).values
    ours = teacher.features("candidate", POOL[:1]).values[0].astype(np.float32)
    repeated = np.tile(features, (30, 1))
    together = teacher.score(POOL[0], ours, POOL * 30, repeated).values
    alone = [
        teacher.score(POOL[0], ours, [r], f[None]).values[0]
        for r, f in zip(POOL, features, strict=True)
    ]
    assert together.tolist() == alone * 30
    assert together.dtype == np.float32 and np.abs(together).max() <= 1.01


def test_prepare_gives_the_same_bytes(model_dir: Path, prepared: Path, tmp_path: Path):
    again, other = tmp_path / "again.safetensors", tmp_path / "other.safetensors"
    torch.manual_seed(123)
    LessTeacher.prepare(settings(model_dir), 5, POOL[::-1], again)
    assert again.read_bytes() == prepared.read_bytes()
    LessTeacher.prepare(settings(model_dir), 6, POOL, other)
    assert other.read_bytes() != prepared.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.safetensors", "other.safetensors"]


def test_prompts_are_cut_from_the_head_and_responses_never(model_dir: Path, prepared: Path):
    short = load_teacher(settings(model_dir, max_tokens=64), 5, prepared)
    mark = "\n##Answer:"
    room = 64 - 1 - len(mark) - len(" yes") - 1
    cut = example("?" * 200 + "x" * room, "yes")
    same = example("!" * 200 + "x" * room, "yes")
    rows = [cut, same, example("q", "r" * 200), example("q", " "), example("q", "r" * 10_000)]
    features = short.features("target", rows)
    assert np.isnan(features.values).all(axis=1).tolist() == [False, False, True, True, True]
    np.testing.assert_array_equal(features.values[0], features.values[1])
    assert features.problems[:2] == [None, None]
    assert "does not fit in max_tokens (64): it has 202 tokens" in str(features.problems[2])
    assert "empty" in str(features.problems[3]) and "does not fit" in str(features.problems[4])
    assert features.usage.num_truncated == 4  # two rows at two checkpoints
    answer = short.score(rows[0], features.values[2].astype(np.float32), rows, features.values)
    assert np.isnan(answer.values).all() and "no gradient" in str(answer.problems[0])


def test_a_gradient_of_zero_is_nan(teacher: LessTeacher, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(type(teacher._model), "example_gradients", lambda self, rows, receive: None)
    features = teacher.features("target", POOL[:2])
    assert np.isnan(features.values).all() and "zero" in str(features.problems[0])


def test_nothing_to_learn_from(model_dir: Path, tmp_path: Path):
    for examples in ([], [example("q", " ")]):
        with pytest.raises(InputError, match=r"warm-up.*warmup_fraction"):
            LessTeacher.prepare(settings(model_dir), 0, examples, tmp_path / "prepared")
    assert not list(tmp_path.iterdir())


def test_identity(model_dir: Path):
    def identity(less: dict[str, object] | None = None, **changes: object) -> dict[str, object]:
        config = {"name": "less", "model": {"path": "a/b"}, "less": less or {}, **changes}
        return teacher_class("less").identity(TeacherConfig.model_validate(config))

    first = identity()
    # paid answers of the published aggregation are stored under a name without it
    named = set(LessSettings().model_dump()) - {"aggregation"}
    assert named < set(first) and "aggregation" not in first
    assert first == identity(instruction="of delift", similarity="dot", selectit={"alpha": 1.0})
    for changed in (
        {"less": {"lora_rank": 4}}, {"less": {"adam_form": "reference"}},
        {"less": {"warmup_fraction": 0.5}}, {"less": {"aggregation": "cos_of_mean"}},
        {"batch_size": 2}, {"max_tokens": 99},
        {"model": {"path": "a/b", "revision": "c"}},
    ):  # fmt: skip
        assert first != identity(**changed)
    assert teacher_class("less").preparation_share(settings(model_dir)) == 0.05
