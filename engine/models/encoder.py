"""A sentence encoder: texts to vectors, with any model that sentence-transformers can load.

Faster and steadier than `SentenceTransformer.encode`: texts are tokenised once, sorted by token
length (not by characters), and a huge text is cut before the tokenizer sees it. The model's own
modules run on the batches, so the vectors are the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import ModelConfig
from engine.errors import SettingsError
from engine.models.resolve import check_hub_files, loading, resolve

__all__ = ["Encoded", "Encoder"]

# Natural text has about 4 characters a token; a text is cut at 16 times the token limit.
_USUAL_CHARACTERS = 4
_CHARACTERS_PER_TOKEN = 16
_DEFAULT_MAX_TOKENS = 512
_UNSET_LENGTH = 1 << 24


@dataclass(frozen=True, slots=True)
class Encoded:
    """Answer of `Encoder.encode`.

    Attributes:
        vectors: (n, D) float32, in the order of the texts.
        num_truncated: texts of which the model saw only the beginning.
        num_tokens: tokens read, special tokens included, padding not.
    """

    vectors: NDArray[np.float32]
    num_truncated: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class _Tokenised:
    """Texts ready for the model: tokens per text, and how to make a batch of some of them."""

    lengths: list[int]
    truncated: list[bool]
    collate: Callable[[list[int]], Mapping[str, Any]]


class Encoder:
    """A sentence encoder on the GPU when there is one.

    Args:
        config: the model, its precision and its CPU threads.
        max_tokens: longest text in tokens; None, or more than the model reads, is its own limit.

    Raises ModelError when the model cannot be found or loaded, SettingsError when it is to be
    quantised, which is for language models.
    """

    def __init__(self, config: ModelConfig, max_tokens: int | None = None) -> None:
        if config.quantization:
            raise SettingsError(
                f"model {config.path}: quantization {config.quantization} is for language models, "
                "this is a sentence encoder; remove it and set dtype: bfloat16 to save memory"
            )
        torch.set_num_threads(config.threads)
        with loading(config):
            self._model = _load(config)
        own_limit = _own_limit(self._model)
        self.max_tokens = own_limit if max_tokens is None else min(max_tokens, own_limit)
        self._prompt: str = self._model.prompts.get(self._model.default_prompt_name) or ""
        probe = self._tokenise([self._prompt + "a"])  # "" may be no token at all, which some refuse
        self._dim = int(self._embed(probe.collate([0]), normalize=False).shape[1])

    @property
    def dim(self) -> int:
        """D, size of one embedding."""
        return self._dim

    def encode(self, texts: Sequence[str], batch_size: int, normalize: bool = True) -> Encoded:
        """Embed texts; L2-normalised unless `normalize` is off.

        Batches hold texts of neighbouring length (token length, then position), so the result is
        a function of the texts and the batch size only, and batch mates matter through rounding
        only. One forward pass per batch. An empty text is embedded like any other.
        """
        characters = _CHARACTERS_PER_TOKEN * self.max_tokens
        tokenised = self._tokenise([self._prompt + text[:characters] for text in texts])
        vectors = np.empty((len(texts), self._dim), np.float32)
        for batch in _batches(tokenised.lengths, batch_size):
            vectors[batch] = self._embed(tokenised.collate(batch), normalize)
        num_truncated = sum(
            cut or len(text) > characters
            for cut, text in zip(tokenised.truncated, texts, strict=True)
        )
        return Encoded(vectors, num_truncated, sum(tokenised.lengths))

    def _tokenise(self, texts: list[str]) -> _Tokenised:
        """Token ids of all texts at once; texts longer than max_tokens lose their end."""
        from transformers import PreTrainedTokenizerBase

        tokenizer = self._model.tokenizer
        if not isinstance(tokenizer, PreTrainedTokenizerBase) or not tokenizer.is_fast:
            return self._tokenise_by_batch(texts)
        if not texts:
            return _Tokenised([], [], lambda batch: {})
        encoded = tokenizer(texts, truncation=True, max_length=self.max_tokens, padding=False)
        columns = dict(encoded)

        def collate(batch: list[int]) -> Mapping[str, Any]:
            rows = {name: [column[i] for i in batch] for name, column in columns.items()}
            padded: Mapping[str, Any] = tokenizer.pad(rows, padding=True, return_tensors="pt")
            return padded

        lengths = [len(ids) for ids in columns["input_ids"]]
        truncated = [bool(row.overflowing) for row in encoded.encodings]
        return _Tokenised(lengths, truncated, collate)

    def _tokenise_by_batch(self, texts: list[str]) -> _Tokenised:
        """For encoders without a fast tokenizer: their own preprocessing, tokens estimated."""
        lengths = [1 + len(text) // _USUAL_CHARACTERS for text in texts]

        def collate(batch: list[int]) -> Mapping[str, Any]:
            features: Mapping[str, Any] = self._model.preprocess([texts[i] for i in batch])
            return features

        return _Tokenised(lengths, [False] * len(texts), collate)

    @torch.inference_mode()
    def _embed(self, features: Mapping[str, Any], normalize: bool) -> NDArray[np.float32]:
        """Vectors (B, D) of one batch, through all modules of the model."""
        moved = {
            name: value.to(self._model.device) if isinstance(value, Tensor) else value
            for name, value in features.items()
        }
        vectors: Tensor = self._model(moved)["sentence_embedding"].float()
        if normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        return np.asarray(vectors.cpu().numpy(), dtype=np.float32)


def _load(config: ModelConfig) -> Any:
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    resolved = resolve(config)
    check_hub_files(resolved, config.path)
    model = SentenceTransformer(
        resolved.source,
        device="cuda" if torch.cuda.is_available() else "cpu",
        revision=resolved.revision,
        trust_remote_code=resolved.trust_remote_code,
        local_files_only=resolved.is_local,
        model_kwargs={"dtype": getattr(torch, config.dtype), "use_safetensors": True},
    )
    return model.eval()


def _own_limit(model: Any) -> int:
    """Most tokens that the encoder reads; tokenizers without a limit report a huge number."""
    text_config = getattr(model.config, "get_text_config", lambda: None)()
    positions = getattr(text_config, "max_position_embeddings", None)
    limits = [limit for limit in (model.max_seq_length, positions) if limit]
    return min([limit for limit in limits if limit < _UNSET_LENGTH], default=_DEFAULT_MAX_TOKENS)


def _batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Positions, sorted by length, then position."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
