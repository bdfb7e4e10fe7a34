"""Generation: greedy is the plain loop over next tokens, whatever the batch."""

import numpy as np
import pytest
import torch

from engine.config import ModelConfig
from engine.models.generating_model import GeneratingModel, Sampling
from engine.models.prompt_tokenizer import Suffix
from tests.tiny_models import build_tiny_language_model

PROMPTS = ["one", "a longer prompt, by far", "two", "x"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return GeneratingModel(
        ModelConfig(path=str(build_tiny_language_model(tmp_path_factory.mktemp("m"))))
    )


def by_hand(model, ids, count, stop):
    """One forward pass per token."""
    ids = list(ids)
    start = len(ids)
    with torch.inference_mode():
        for _ in range(count):
            token = int(model._model(torch.tensor([ids])).logits[0, -1].argmax())
            if token in stop:
                break
            ids.append(token)
    return model._tokenizer.text(ids[start:])


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_greedy_is_one_forward_pass_per_token(model, batch_size):
    prompts = [model.tokenize(text) for text in PROMPTS]
    plain = [by_hand(model, ids, 12, {model.eos}) for ids in prompts]
    assert model.generate(prompts, 12, batch_size) == plain


def test_generation_stops_where_it_is_told(model):
    ids = model.tokenize(PROMPTS[1])
    with torch.inference_mode():
        first = int(model._model(torch.tensor([ids])).logits[0, -1].argmax())
    assert model.generate([ids], 12, 1, stop=[first]) == [""]


def test_sampling_depends_on_its_seed_alone(model):
    prompts = [model.tokenize(text) for text in PROMPTS]
    before = torch.random.get_rng_state()
    drawn = [
        model.generate(prompts, 12, 2, (), Sampling(seed, temperature=3.0)) for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("sampling", [None, Sampling(3, temperature=2.0)])
def test_an_answer_is_a_generation_and_a_scored_response(model, batch_size, sampling):
    prompts = [model.tokenize(text) for text in PROMPTS]
    responses = [[*model.tokenize(text), model.eos] for text in ("yes", "a long one", "", "no")]
    texts, likely = model.answer(prompts, responses, 12, batch_size, (), sampling)
    assert texts == model.generate(prompts, 12, batch_size, (), sampling)
    suffixes = [Suffix(*pair) for pair in zip(prompts, responses, strict=True)]
    apart = model.response_probabilities([], suffixes, batch_size)
    assert likely.num_tokens == apart.num_tokens
    for ours, theirs in zip(likely.values, apart.values, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)


def test_responses_of_one_token_need_no_second_pass(model):
    prompts, responses = [model.tokenize("a"), model.tokenize("bb")], [[5], [7]]
    _, likely = model.answer(prompts, responses, 1, 2)
    suffixes = [Suffix(*pair) for pair in zip(prompts, responses, strict=True)]
    apart = model.response_probabilities([], suffixes, 2)
    assert np.stack(likely.values) == pytest.approx(np.stack(apart.values))
