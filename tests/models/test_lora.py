"""Gradients of a batch, row by row, equal one plain backward pass per row."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel

from engine.config import ModelConfig
from engine.errors import ModelError
from engine.models.lora import LoraModel, learning_rates
from engine.models.prompt_tokenizer import TrainingRow
from tests.oracles.less import gradients
from tests.tiny_models import VOCAB_SIZE, build_tiny_language_model

ROWS = [
    TrainingRow([256, 1, 2, 3], [4, 5, 257]),
    TrainingRow([256, *range(30, 60)], [8] * 9 + [257]),
    TrainingRow([256], [257]),
    TrainingRow([256, 9, 10], [11, 257]),
    TrainingRow([256, 7, 7], list(range(100, 400, 20))[:8]),
]


def load(path: Path, targets: tuple[str, ...] = ("q_proj", "o_proj"), **changes) -> LoraModel:
    model = LoraModel(ModelConfig(path=str(path), **changes), 3, 6.0, 0.1, targets, seed=1)
    generator = torch.Generator().manual_seed(0)
    for matrix in model.matrices.values():  # B starts at zero, and so would all gradients of A
        matrix.data.normal_(0.0, 0.2, generator=generator)
    return model


@pytest.fixture(scope="module")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_language_model(tmp_path_factory.mktemp("lm"))


@pytest.fixture(scope="module")
def tiny(tiny_dir: Path) -> LoraModel:
    return load(tiny_dir)


def batched(model: LoraModel, rows: list[TrainingRow]) -> list[np.ndarray]:
    found: dict[int, np.ndarray] = {}
    model.example_gradients(rows, lambda number, g: found.update({number: g.cpu().numpy()}))
    return [found[number] for number in range(len(found))]


def assert_equal_to_oracle(model: LoraModel, rows: list[TrainingRow], atol: float = 1e-5) -> None:
    ours = batched(model, rows)
    for i, row in enumerate(rows):
        expected = gradients(model._model, [*row.prompt], [*row.response], model.matrices.values())
        assert len(expected) == len(ours)
        for values, matrix in zip(ours, expected, strict=True):
            np.testing.assert_allclose(values[i], matrix.flatten().numpy(), atol=atol)


def test_equals_one_row_at_a_time(tiny: LoraModel):
    """Labels shifted by one, padding, and the head on response positions only, all at once."""
    assert_equal_to_oracle(tiny, ROWS)
    assert all(matrix.grad is None or matrix.requires_grad for matrix in tiny.matrices.values())


def test_padding_adds_nothing(tiny: LoraModel):
    alone = batched(tiny, ROWS[:1])
    beside_a_long_row = batched(tiny, ROWS[:2])
    for few, many in zip(alone, beside_a_long_row, strict=True):
        np.testing.assert_allclose(few[0], many[0], atol=1e-5)


def test_the_loss_is_that_of_transformers(tiny: LoraModel):
    row = ROWS[1]
    labels = torch.tensor([[-100] * len(row.prompt) + [*row.response]])
    ids = torch.tensor([[*row.prompt, *row.response]])
    plain = tiny._model(input_ids=ids, labels=labels).loss
    assert tiny._backward([row], [1.0]) == pytest.approx(float(plain.detach()), rel=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "gemma2"])
def test_other_architectures(tiny_dir: Path, tmp_path: Path, kind: str):
    """Layers of another layout (GPT-2's Conv1D), and logits that are changed after the head."""
    for file in tiny_dir.glob("token*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    sizes = {"vocab_size": VOCAB_SIZE, "initializer_range": 0.3, "pad_token_id": None}
    sizes |= {"bos_token_id": 256, "eos_token_id": 257}
    if kind == "gpt2":
        GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, **sizes)).save_pretrained(
            tmp_path
        )
        model = load(tmp_path, ("c_attn", "mlp.c_proj"))
    else:
        config = Gemma2Config(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, final_logit_softcapping=2.0, **sizes,
        )  # fmt: skip
        Gemma2ForCausalLM(config).save_pretrained(tmp_path)
        model = load(tmp_path, ("q_proj", "down_proj"))
    assert_equal_to_oracle(model, ROWS, atol=1e-4)


def test_answers_are_as_likely_as_the_model_says_and_exact_where_it_would_say_them(tiny_dir: Path):
    model, generator = load(tiny_dir), load(tiny_dir)
    prompt = [256, 5, 6, 7]
    said = []
    with torch.inference_mode():
        for _ in range(6):  # greedy, one token at a time
            logits = generator._model(input_ids=torch.tensor([[*prompt, *said]])).logits
            said.append(int(logits[0, -1].argmax()))
        rows = [*ROWS, TrainingRow(prompt, said), TrainingRow(prompt, [*said[:-1], said[-1] ^ 1])]
        expected = []
        for row in rows:
            ids = torch.tensor([[*row.prompt, *row.response]])
            labels = torch.tensor([[-100] * len(row.prompt) + row.response])
            expected.append(-float(generator._model(input_ids=ids, labels=labels).loss))
    values, exact = model.read_answers(rows, 3, 120)
    np.testing.assert_allclose(values, expected, atol=1e-4)
    assert exact[-2] and not exact[-1]


def test_adapters_are_float32_on_a_bfloat16_model(tiny_dir: Path):
    model = load(tiny_dir, dtype="bfloat16")
    assert {matrix.dtype for matrix in model.matrices.values()} == {torch.float32}
    rough, exact = batched(model, ROWS), batched(load(tiny_dir), ROWS)
    for ours, theirs in zip(rough, exact, strict=True):
        assert ours.dtype == np.float32
        assert np.linalg.norm(ours - theirs) < 0.1 * np.linalg.norm(theirs)


def test_gradients_through_4_bit_weights(tiny_dir: Path):
    pytest.importorskip("bitsandbytes")
    model = load(tiny_dir, quantization="nf4")
    assert {matrix.dtype for matrix in model.matrices.values()} == {torch.float32}
    assert_equal_to_oracle(model, ROWS, atol=1e-4)


def test_batches_by_length_within_limits(tiny: LoraModel):
    rows = [TrainingRow([1] * size, [2]) for size in (30, 10, 11, 40, 10, 100)]
    assert list(tiny.batches(rows, 2, 80)) == [[1, 4], [2], [0, 3], [5]]
    assert list(tiny.batches(rows, 8, 80)) == [[1, 4, 2], [0, 3], [5]]
    assert list(tiny.batches([], 8, 80)) == []


def test_fit_takes_the_steps_of_adam(tiny_dir: Path):
    """Two epochs without dropout, against a plain loop over HF's loss."""
    model = LoraModel(ModelConfig(path=str(tiny_dir)), 3, 6.0, 0.0, ("q_proj",), seed=1)
    other = LoraModel(ModelConfig(path=str(tiny_dir)), 3, 6.0, 0.0, ("q_proj",), seed=1)
    orders, rates = [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]], [0.01, 0.02, 0.03, 0.04]
    checkpoints = model.fit(ROWS, orders, 3, rates, 2, 64, seed=0)
    parameters = list(other.matrices.values())
    optimizer = torch.optim.Adam(parameters)
    groups = [[0, 1, 2], [3, 4], [4, 3, 2], [1, 0]]
    for step, (group, rate) in enumerate(zip(groups, rates, strict=True)):
        each = [
            gradients(other._model, [*ROWS[i].prompt], [*ROWS[i].response], parameters)
            for i in group
        ]
        for parameter, *found in zip(parameters, *each, strict=True):
            parameter.grad = torch.stack(found).mean(0)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        if step % 2 == 1:
            checkpoint = checkpoints[step // 2]
            assert checkpoint.num_steps == step + 1
            for (name, parameter), key in zip(other.matrices.items(), parameters, strict=True):
                state = optimizer.state[key]
                for ours, theirs in (
                    (checkpoint.weights, parameter.detach()),
                    (checkpoint.first_moments, state["exp_avg"]),
                    (checkpoint.second_moments, state["exp_avg_sq"]),
                ):
                    torch.testing.assert_close(ours[name], theirs, atol=1e-5, rtol=1e-3)
    assert [c.learning_rate for c in checkpoints] == pytest.approx([0.015, 0.035])


def test_fit_learns_and_load_goes_back(tiny_dir: Path):
    model = LoraModel(ModelConfig(path=str(tiny_dir)), 8, 16.0, 0.1, ("q_proj", "o_proj"), seed=1)
    before = model._backward(ROWS, [1.0] * len(ROWS))
    checkpoints = model.fit(ROWS, [[0, 1, 2, 3, 4]] * 20, 5, [0.01] * 20, 5, 64, seed=0)
    after = model._backward(ROWS, [1.0] * len(ROWS))
    assert after < 0.8 * before
    model.load(checkpoints[0].weights)
    assert after < model._backward(ROWS, [1.0] * len(ROWS)) < before
    assert not torch.equal(*(checkpoints[i].weights[next(iter(model.matrices))] for i in (0, 1)))


def test_learning_rates_rise_and_fall_and_are_never_zero():
    assert learning_rates(1.0, 0.0, 4) == pytest.approx([1, 3 / 4, 2 / 4, 1 / 4])
    assert learning_rates(1.0, 0.5, 4) == pytest.approx([1 / 3, 2 / 3, 1, 1 / 2])
    assert learning_rates(2.0, 0.03, 1) == [2.0]
    long = learning_rates(1.0, 0.03, 100)
    assert long.index(max(long)) == 3 and min(long) > 0


def test_a_missing_layer_is_named(tiny_dir: Path):
    with pytest.raises(ModelError, match=r"'c_attn'.*teacher\.less\.lora_targets.*q_proj"):
        load(tiny_dir, ("q_proj", "c_attn"))


def test_a_model_without_gradients_per_row_is_refused(tiny: LoraModel):
    layer = next(iter(tiny._layers.values()))
    forward = layer.forward
    layer.forward = lambda x: forward(x) + 0 * layer.lora_A["default"](x).sum()
    with pytest.raises(ModelError, match="exactly once"):
        tiny.example_gradients(ROWS, lambda number, g: None)
    layer.forward = forward
