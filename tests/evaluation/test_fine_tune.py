"""QLoRA: exactly which tokens are learned, and the same adapter after any kill."""

import numpy as np
import pytest
import torch

from engine.artifacts.parts import finished_part
from engine.config import ModelConfig
from engine.errors import InputError
from engine.evaluation import fine_tune
from engine.evaluation.fine_tune import TrainingJob, train_adapters
from engine.evaluation.prompts import PromptBuilder
from engine.example import Example
from engine.models.language_model import LanguageModel
from engine.models.lora import LoraModel
from engine.models.prompt_tokenizer import Suffix
from tests.evaluation.subsets import evaluation_settings, write_inputs
from tests.tiny_models import build_tiny_language_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return build_tiny_language_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def inputs(tmp_path):
    return write_inputs(tmp_path / "inputs")


JOB = TrainingJob("adapters/a.safetensors", "mine", 3, 9)


def weights(root):
    return (root / JOB.path).read_bytes()


def test_the_loss_is_that_of_labels_which_mask_prompt_and_padding(tiny):
    """The step's loss equals transformers' own, with label -100 on all but the response."""
    model = LoraModel(ModelConfig(path=str(tiny)), 4, 8, 0.0, None, seed=0)
    prompts = PromptBuilder(model.tokenizer, "plain", "unused")
    texts = [("a question", "yes"), ("another one, longer", "no, not at all")]
    rows = [
        prompts.training_row(_example(prompt, answer), max_tokens=100) for prompt, answer in texts
    ]
    longest = max(len(row.prompt) + len(row.response) for row in rows)
    ids = torch.zeros((2, longest), dtype=torch.long)
    labels = torch.full((2, longest), -100)
    for line, (row, (prompt, answer)) in enumerate(zip(rows, texts, strict=True)):
        whole = [*row.prompt, *row.response]
        ids[line, : len(whole)] = torch.tensor(whole)
        labels[line, len(row.prompt) : len(whole)] = torch.tensor(row.response)
        # what is learned is the answer and its end; what is read is the prompt
        tokenize, eos = model.tokenizer.tokenize, model.tokenizer.eos
        assert row.response == [*tokenize(f" {answer}"), eos]
        assert row.prompt == [model.tokenizer.bos, *tokenize(prompt), *tokenize("\nAnswer:")]
    sizes = torch.tensor([[len(row.prompt) + len(row.response)] for row in rows])
    mask = torch.arange(longest)[None] < sizes
    plain = model._model(input_ids=ids, attention_mask=mask.long(), labels=labels).loss
    ours = model.train_step(model.optimizer(), rows, 0.0, 2, 10_000, mean_over="tokens")
    assert ours == pytest.approx(float(plain.detach()), rel=1e-5)


def _example(prompt, answer):
    return Example("i", "k", prompt, "", answer)


def test_training_lowers_the_loss_and_is_the_same_twice(tiny, inputs, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        train_adapters([JOB], evaluation_settings(tiny, epochs=8), inputs, tmp_path / name)
    assert weights(tmp_path / "one") == weights(tmp_path / "two")
    long = finished_part(tmp_path / "one" / JOB.path)
    (tmp_path / "short").mkdir()
    train_adapters([JOB], evaluation_settings(tiny, epochs=1), inputs, tmp_path / "short")
    short = finished_part(tmp_path / "short" / JOB.path)
    assert long.usage["last_loss"] < 0.9 * short.usage["last_loss"]
    assert long.usage["rows"] == 9 and long.usage["left_out"] == 0


@pytest.mark.parametrize("kill_at", [1, 2, 4, 5])
def test_a_killed_training_goes_on_to_the_same_bytes(tiny, inputs, tmp_path, monkeypatch, kill_at):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    for folder in (undisturbed, killed):
        folder.mkdir()
    train_adapters([JOB], evaluation_settings(tiny), inputs, undisturbed)
    monkeypatch.setattr(fine_tune, "STEPS_PER_CHECKPOINT", 2)
    steps = []
    plain_step = LoraModel.train_step

    def step(self, *args, **rest):
        steps.append(None)
        if len(steps) == kill_at + 1:
            raise KeyboardInterrupt
        return plain_step(self, *args, **rest)

    monkeypatch.setattr(LoraModel, "train_step", step)
    with pytest.raises(KeyboardInterrupt):
        train_adapters([JOB], evaluation_settings(tiny), inputs, killed)
    assert finished_part(killed / JOB.path) is None
    train_adapters([JOB], evaluation_settings(tiny), inputs, killed)
    assert weights(killed) == weights(undisturbed)
    # 6 steps in all; of those before the kill at most one is done again
    assert len(steps) - 1 <= 6 + 1


def test_an_adapter_does_not_depend_on_what_was_trained_before_it(tiny, inputs, tmp_path):
    other = TrainingJob("adapters/b.safetensors", "mine", 4, 9)
    for name, jobs in (("alone", [JOB]), ("after", [other, JOB])):
        (tmp_path / name).mkdir()
        train_adapters(jobs, evaluation_settings(tiny), inputs, tmp_path / name)
    assert weights(tmp_path / "alone") == weights(tmp_path / "after")
    assert (tmp_path / "after" / other.path).read_bytes() != weights(tmp_path / "after")


def test_a_subset_of_answers_too_long_is_refused(tiny, inputs, tmp_path):
    with pytest.raises(InputError, match=r"evaluation\.qlora\.max_tokens 16"):
        train_adapters([JOB], evaluation_settings(tiny, max_tokens=16), inputs, tmp_path)


def test_adapters_go_into_the_model_that_answers(tiny, inputs, tmp_path):
    """Its answers change with the adapter, and are the plain model's again without."""
    train_adapters([JOB], evaluation_settings(tiny, epochs=8), inputs, tmp_path)
    model = LanguageModel(ModelConfig(path=str(tiny)))
    ask = [Suffix(model.tokenize("say 3 xxx\nAnswer:"), model.tokenize(" 3 is said"))]
    plain = model.response_probabilities([], ask, 1).values[0]
    model.load_adapter(tmp_path / JOB.path)
    trained = model.response_probabilities([], ask, 1).values[0]
    assert np.log(trained).mean() > np.log(plain).mean() + 0.5
    model.load_adapter(None)
    assert np.array_equal(model.response_probabilities([], ask, 1).values[0], plain)


def test_workers_get_equal_shares_of_the_rows():
    jobs = [TrainingJob(f"{i}", "mine", 0, rows) for i, rows in enumerate([200, *[60] * 10])]
    shares = fine_tune._share(jobs, 2)
    assert sorted(job.path for share in shares for job in share) == sorted(j.path for j in jobs)
    loads = [sum(job.rows for job in share) for share in shares]
    assert abs(loads[0] - loads[1]) <= 60
