"""Quantised models: loaded, close to the full one, and clear about what they cannot do."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from engine.config import ModelConfig
from engine.errors import ModelError, SettingsError
from engine.models.encoder import Encoder
from engine.models.language_model import LanguageModel
from engine.models.prompt_tokenizer import Suffix
from tests.tiny_models import build_tiny_encoder, build_tiny_language_model

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
PROMPTS = [[256, *b"Two and two are"], [256, *b"The colour of the sky is"], [256, *b"x"]]
TOKENS = list(range(48, 58))


@pytest.fixture(scope="module")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_language_model(tmp_path_factory.mktemp("lm"))


@pytest.fixture(scope="module")
def full(tiny_dir: Path) -> LanguageModel:
    return LanguageModel(ModelConfig(path=str(tiny_dir)))


@needs_bitsandbytes
@pytest.mark.parametrize(
    ("quantization", "dtype", "correlation"),
    [("nf4", "float32", 0.8), ("nf4", "bfloat16", 0.8), ("int8", "bfloat16", 0.95)],
)
def test_close_to_the_full_model(tiny_dir: Path, full, quantization, dtype, correlation):
    config = ModelConfig(path=str(tiny_dir), dtype=dtype, quantization=quantization)
    model = LanguageModel(config)
    assert model.num_parameters == full.num_parameters
    everything = list(range(300))
    ours = np.log(model.next_token_probabilities(PROMPTS, everything, 2).values)
    exact = np.log(full.next_token_probabilities(PROMPTS, everything, 2).values)
    assert not np.allclose(ours, exact, atol=1e-3)
    assert np.corrcoef(ours.ravel(), exact.ravel())[0, 1] > correlation
    weights = {type(weight).__name__ for weight in model._model.parameters()}
    assert ("Params4bit" if quantization == "nf4" else "Int8Params") in weights


@needs_bitsandbytes
@pytest.mark.parametrize(("quantization", "tolerance"), [("nf4", 1e-5), ("int8", 1e-3)])
def test_batch_mates_matter_through_rounding_only(tiny_dir: Path, quantization, tolerance):
    model = LanguageModel(ModelConfig(path=str(tiny_dir), quantization=quantization))
    together = model.next_token_probabilities(PROMPTS, TOKENS, 3).values
    alone = [model.next_token_probabilities([p], TOKENS, 1).values[0] for p in PROMPTS]
    np.testing.assert_allclose(together, alone, atol=tolerance)
    suffixes = [Suffix([1, 2], [3, 257]), Suffix([4], [5] * 9)]
    answer = model.response_probabilities(PROMPTS[0], suffixes, 2)
    assert [len(values) for values in answer.values] == [2, 9]


@pytest.mark.parametrize("missing", ["bitsandbytes", "accelerate"])
def test_what_is_missing_is_said(tiny_dir: Path, monkeypatch: pytest.MonkeyPatch, missing: str):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: (
            None
            if name == missing
            else object()
            if name in ("bitsandbytes", "accelerate")
            else find_spec(name, *rest)
        ),
    )
    with pytest.raises(ModelError, match=f"nf4 needs {missing}; pip install bitsandbytes"):
        LanguageModel(ModelConfig(path=str(tiny_dir), quantization="nf4"))


def test_an_encoder_is_not_quantised(tmp_path: Path):
    config = ModelConfig(path=str(build_tiny_encoder(tmp_path)), quantization="int8")
    with pytest.raises(SettingsError, match="quantization int8 is for language models"):
        Encoder(config)
