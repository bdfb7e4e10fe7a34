"""Cached, batched, head-sliced probabilities equal the plain forward pass of one prompt."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from engine.config import ModelConfig
from engine.errors import ModelError
from engine.models.language_model import LanguageModel
from engine.models.prompt_tokenizer import Suffix
from tests.tiny_models import VOCAB_SIZE, build_tiny_language_model

PREFIX = [256, *range(40, 60)]
SUFFIXES = [
    Suffix([1, 2, 3], [4, 5, 257]),
    Suffix([7], [8] * 30),
    Suffix([9, 10], [257]),
    Suffix([1, 2, 3], [4, 5, 257], prefix_length=11),
    Suffix([1, 2, 3], [4, 5, 257], prefix_length=0),
    Suffix([9] * 12, [10, 11, 257], prefix_length=11),
]
SMALL = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
    "pad_token_id": None,
}


@pytest.fixture(scope="module")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_language_model(tmp_path_factory.mktemp("lm"))


@pytest.fixture(scope="module")
def tiny(tiny_dir: Path) -> LanguageModel:
    return LanguageModel(ModelConfig(path=str(tiny_dir)))


def _plain(model: torch.nn.Module, prefix: list[int], suffix: Suffix) -> np.ndarray:
    prompt = [*prefix[: suffix.prefix_length], *suffix.query]
    ids = torch.tensor([[*prompt, *suffix.response]])
    with torch.inference_mode():
        p = model(ids, use_cache=False).logits[0].softmax(-1)
    return np.array([p[k - 1, ids[0, k]] for k in range(len(prompt), ids.shape[1])])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_equals_one_prompt_at_a_time(tiny: LanguageModel, tiny_dir: Path, batch_size: int):
    model = LlamaForCausalLM.from_pretrained(tiny_dir)
    answer = tiny.response_probabilities(PREFIX, SUFFIXES, batch_size)
    for suffix, values in zip(SUFFIXES, answer.values, strict=True):
        np.testing.assert_allclose(values, _plain(model, PREFIX, suffix), atol=1e-5)


def test_counts_the_prefix_once_and_no_padding(tiny: LanguageModel):
    answer = tiny.response_probabilities(PREFIX, SUFFIXES[:3], 16)
    assert answer.num_tokens == len(PREFIX) + (3 + 2) + (1 + 29) + (2 + 0)


def test_the_cache_is_not_changed_by_a_batch(tiny: LanguageModel):
    first = tiny.response_probabilities(PREFIX, SUFFIXES[:2] * 3, 2).values
    for one, other in zip(first[:2] * 2, first[2:], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_same_call_gives_the_same_bytes(tiny: LanguageModel):
    answers = [tiny.response_probabilities(PREFIX, SUFFIXES, 2).values for _ in range(2)]
    assert [v.tobytes() for v in answers[0]] == [v.tobytes() for v in answers[1]]


def test_no_suffixes(tiny: LanguageModel):
    answer = tiny.response_probabilities(PREFIX, [], 4)
    assert answer.values == [] and answer.num_tokens == 0


def test_bfloat16_is_close(tiny: LanguageModel, tiny_dir: Path):
    half = LanguageModel(ModelConfig(path=str(tiny_dir), dtype="bfloat16"))
    for low, full in zip(
        half.response_probabilities(PREFIX, SUFFIXES, 4).values,
        tiny.response_probabilities(PREFIX, SUFFIXES, 4).values,
        strict=True,
    ):
        assert low.dtype == np.float32
        np.testing.assert_allclose(low, full, atol=0.1)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_next_tokens_equal_one_prompt_at_a_time(tiny: LanguageModel, tiny_dir: Path, batch_size):
    model = LlamaForCausalLM.from_pretrained(tiny_dir)
    prompts = [[256, *range(40, 60)], [256, 7], [*range(100, 180)], [3] * 20]
    answer = tiny.next_token_probabilities(prompts, [5, 257, 49], batch_size)
    with torch.inference_mode():
        plain = [model(torch.tensor([p])).logits[0, -1].softmax(-1)[[5, 257, 49]] for p in prompts]
    np.testing.assert_allclose(answer.values, np.stack(plain), atol=1e-5)
    assert answer.values.dtype == np.float32
    assert answer.num_tokens == sum(map(len, prompts))
    assert tiny.next_token_probabilities([], [5, 257, 49], batch_size).values.shape == (0, 3)


def test_next_tokens_do_not_tie_in_bfloat16(tiny_dir: Path):
    half = LanguageModel(ModelConfig(path=str(tiny_dir), dtype="bfloat16"))
    values = half.next_token_probabilities([PREFIX], range(VOCAB_SIZE), 1).values[0]
    assert len(set(values.tolist())) == VOCAB_SIZE
    np.testing.assert_allclose(values.sum(), 1.0, rtol=1e-5)


def test_parameters_are_counted_once(tiny: LanguageModel, tiny_dir: Path):
    model = LlamaForCausalLM.from_pretrained(tiny_dir)
    assert tiny.num_parameters == sum(weight.numel() for weight in model.parameters())
    assert tiny.name == str(tiny_dir)


def _bigram_model(directory: Path, tiny_dir: Path) -> torch.Tensor:
    """A model that reads its last token only; returns its table P[current, next]."""
    size = 320
    config = LlamaConfig(
        **{**SMALL, "hidden_size": size, "head_dim": 80, "num_hidden_layers": 1},
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    table = torch.randn(VOCAB_SIZE, VOCAB_SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "o_proj" in name or "down_proj" in name:
                weight.zero_()  # the layer passes its input on
        model.model.embed_tokens.weight.copy_(torch.eye(VOCAB_SIZE, size))
        model.lm_head.weight.zero_()
        model.lm_head.weight[:, :VOCAB_SIZE] = table.T / size**0.5  # RMSNorm scales a one-hot
    shutil.copytree(tiny_dir, directory, ignore=shutil.ignore_patterns("model*", "config*"))
    model.save_pretrained(directory)
    return table.softmax(-1)


def test_logits_at_one_position_predict_the_next_token(tiny_dir: Path, tmp_path: Path):
    table = _bigram_model(tmp_path / "bigram", tiny_dir)
    model = LanguageModel(ModelConfig(path=str(tmp_path / "bigram")))
    query, response = [5, 6], [7, 8, 257]
    (values,) = model.response_probabilities([256], [Suffix(query, response)], 1).values
    shifted = [table[6, 7], table[7, 8], table[8, 257]]
    unshifted = [table[7, 7], table[8, 8], table[257, 257]]
    np.testing.assert_allclose(values, shifted, rtol=1e-3)
    assert not np.allclose(values, unshifted, rtol=0.1)


def _mistral() -> torch.nn.Module:
    return MistralForCausalLM(MistralConfig(**SMALL, sliding_window=6))


def _gemma() -> torch.nn.Module:
    return Gemma2ForCausalLM(
        Gemma2Config(**SMALL, sliding_window=6, final_logit_softcapping=2.0, bos_token_id=256)
    )


def _gpt2() -> torch.nn.Module:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCAB_SIZE, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3)
    )


@pytest.mark.parametrize("build", [_mistral, _gemma, _gpt2])
def test_other_architectures(build: Callable[[], torch.nn.Module], tiny_dir: Path, tmp_path: Path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build().eval()
    folder = tmp_path / "model"
    shutil.copytree(tiny_dir, folder, ignore=shutil.ignore_patterns("*model*", "config*", "gen*"))
    model.save_pretrained(folder)
    ours = LanguageModel(ModelConfig(path=str(folder)))
    answer = ours.response_probabilities(PREFIX, SUFFIXES, 2)
    for suffix, values in zip(SUFFIXES, answer.values, strict=True):
        np.testing.assert_allclose(values, _plain(model, PREFIX, suffix), atol=1e-5)
    (values,) = ours.next_token_probabilities([PREFIX], [257], 2).values
    np.testing.assert_allclose(values, _plain(model, PREFIX, Suffix([], [257])), atol=1e-5)


def test_a_model_without_a_prefix_cache_is_refused(tiny_dir: Path, tmp_path: Path):
    folder = tmp_path / "mamba"
    shutil.copytree(tiny_dir, folder, ignore=shutil.ignore_patterns("*model*", "config*", "gen*"))
    config = MambaConfig(vocab_size=VOCAB_SIZE, hidden_size=32, num_hidden_layers=1, state_size=4)
    MambaForCausalLM(config).save_pretrained(folder)
    with pytest.raises(ModelError, match=r"MambaForCausalLM.*prefix"):
        LanguageModel(ModelConfig(path=str(folder)))


def test_special_tokens(tiny: LanguageModel):
    assert (tiny.bos, tiny.eos, tiny.context_size) == (256, 257, 2048)
    ids = tiny.tokenize("</s>")
    assert 257 not in ids and len(ids) == 4  # a row's text cannot end its own response


def test_pieces_are_not_given_a_space_in_front(tiny_dir: Path, tmp_path: Path):
    shutil.copytree(tiny_dir, tmp_path / "lm")
    alphabet = ["\u2581", "\n", "a", "b", "Q", ":", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
    ).save_pretrained(tmp_path / "lm")
    model = LanguageModel(ModelConfig(path=str(tmp_path / "lm")))
    assert model.tokenize("Q: a") == [4, 5, 0, 2]
    assert model.tokenize(" a") == [0, 2]
    assert model.tokenize("\n\nQ:") == [1, 1, 4, 5]
    assert model.bos is None


def _with_chat_template(tiny_dir: Path, folder: Path, template: str) -> LanguageModel:
    shutil.copytree(tiny_dir, folder)
    (folder / "chat_template.jinja").write_text(template)
    return LanguageModel(ModelConfig(path=str(folder)))


TURNS = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] | trim }}"


def test_chat_frame(tiny_dir: Path, tmp_path: Path):
    template = "{{ date_string }}\n" + TURNS + "</s>\n{% endfor %}"
    model = _with_chat_template(tiny_dir, tmp_path / "lm", template)
    frame = model.chat_frame()
    assert frame.before == [*model.tokenize("26 Jul 2024\n"), 256, *model.tokenize("user: ")]
    assert frame.between == [257, *model.tokenize("\n"), 256, *model.tokenize("assistant: ")]
    assert frame.end == [257]


def test_chat_frame_without_an_end(tiny_dir: Path, tmp_path: Path):
    model = _with_chat_template(tiny_dir, tmp_path / "lm", TURNS + "\n{% endfor %}")
    assert model.chat_frame().end == [257]


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ messages[0]['content'] }}", "does not show one question"),
        ("{{ raise_exception('no users') }}", "chat template fails: no users"),
    ],
)
def test_a_chat_template_that_does_not_fit(tiny_dir: Path, tmp_path: Path, template, problem):
    with pytest.raises(ModelError, match=problem):
        _with_chat_template(tiny_dir, tmp_path / "lm", template).chat_frame()


def test_no_chat_template(tiny: LanguageModel):
    with pytest.raises(ModelError, match="has no chat template"):
        tiny.chat_frame()


def test_a_model_that_cannot_end_is_refused(tiny_dir: Path, tmp_path: Path):
    shutil.copytree(tiny_dir, tmp_path / "lm")
    file = tmp_path / "lm" / "tokenizer_config.json"
    file.write_text(file.read_text().replace('"eos_token": "</s>"', '"eos_token": null'))
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        LanguageModel(ModelConfig(path=str(tmp_path / "lm")))
