"""A causal language model, asked one question: how likely is this reference answer?

The prompts of one call share a prefix (instruction and in-context example). Its keys and values
are computed once and reused for every suffix; the LM head runs on the positions that predict
response tokens only. Both shortcuts are compared with the plain forward pass when a model is
loaded, so an architecture that they do not fit is refused instead of scored wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import ModelConfig
from engine.errors import ModelError
from engine.models.resolve import loading, resolve

__all__ = ["LanguageModel", "ResponseProbabilities", "Suffix", "load_causal_model"]

# Rows of logits held at a time, in float32: 256 of them are 150 MB at 150,000 vocabulary entries.
_HEAD_ROWS = 256
_UNLIMITED_CONTEXT = 1 << 20
# Positions of a batch for each token in it: on a CPU a padded position costs as much as a token.
_MAX_PADDED = 1.2


@dataclass(frozen=True, slots=True)
class Suffix:
    """What follows the shared prefix in one prompt.

    Attributes:
        query: token ids that are read but not scored; never empty.
        response: token ids that are scored, the final eos included; never empty.
        prefix_length: how many of the prefix's tokens come before it; None is all of them.
    """

    query: Sequence[int]
    response: Sequence[int]
    prefix_length: int | None = None


@dataclass(frozen=True, slots=True)
class ResponseProbabilities:
    """Answer of `LanguageModel.response_probabilities`.

    Attributes:
        values: per suffix, in the order asked, (T,) float32 probabilities of its response tokens.
        num_tokens: tokens that went through the model, the prefix once, padding not counted.
    """

    values: list[NDArray[np.float32]]
    num_tokens: int


class LanguageModel:
    """A causal LM with its tokenizer, on the GPU when there is one.

    Raises ModelError when the model cannot be found or loaded, has no end-of-sequence token, or
    is built so that prefix caching does not reproduce its plain forward pass.
    """

    def __init__(self, config: ModelConfig) -> None:
        torch.set_num_threads(config.threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with loading(config):
            self._tokenizer, self._model = load_causal_model(config)
        self._model.to(self._device).eval()
        self._head = self._model.get_output_embeddings()
        self._finish_logits = _logits_finisher(self._model.config)
        if self._tokenizer.eos_token_id is None:
            raise ModelError(f"model {config.path}: its tokenizer has no end-of-sequence token")
        self._anchor = self._find_anchor()
        self._check_shortcuts(config)

    @property
    def bos(self) -> int | None:
        """Id that the tokenizer puts before a text; None when it puts none."""
        ids = list(self._tokenizer("a", add_special_tokens=True).input_ids)
        bos: int | None = self._tokenizer.bos_token_id
        return bos if bos is not None and ids and ids[0] == bos else None

    @property
    def eos(self) -> int:
        """Id that ends a response."""
        return int(self._tokenizer.eos_token_id)

    @property
    def context_size(self) -> int:
        """Most tokens that one prompt with its response may have."""
        config = self._model.config.get_text_config()
        size = getattr(config, "max_position_embeddings", None)
        return int(size) if size else _UNLIMITED_CONTEXT

    def tokenize(self, text: str) -> list[int]:
        """Ids of a piece of a prompt: no special token is added, none is read from the text.

        Pieces are joined id by id, so a tokenizer that puts a space before every text is kept
        from doing so: "Query:" is the same ids here as in the middle of a prompt.
        """
        if not self._anchor:
            return self._ids(text)
        ids = self._ids("\n" + text)
        size = len(self._anchor)
        return ids[size:] if ids[:size] == self._anchor else self._ids(text)

    @torch.inference_mode()
    def response_probabilities(
        self, prefix: Sequence[int], suffixes: Sequence[Suffix], batch_size: int
    ) -> ResponseProbabilities:
        """Probability of every response token given prefix, query and earlier response tokens.

        One pass over the prefix, then one over each suffix, `batch_size` at a time. Suffixes that
        see the same length of the prefix are batched by length, then position, right padded: a
        suffix's values depend on its batch mates through rounding only. Softmax in float32. The
        logits at position k - 1 predict token k.
        """
        assert all(suffix.query and suffix.response for suffix in suffixes), "query and response"
        lengths = [_prefix_length(suffix, prefix) for suffix in suffixes]
        used = max(lengths, default=0)
        layers = self._prefix_layers(prefix[:used])
        values = [np.empty(0, np.float32)] * len(suffixes)
        for batch in _batches(lengths, suffixes, batch_size):
            cropped = [
                (k[:, :, : lengths[batch[0]]], v[:, :, : lengths[batch[0]]]) for k, v in layers
            ]
            scored = self._score_batch(cropped, lengths[batch[0]], [suffixes[i] for i in batch])
            for i, probabilities in zip(batch, scored, strict=True):
                values[i] = probabilities
        num_tokens = used + sum(len(s.query) + len(s.response) - 1 for s in suffixes)
        return ResponseProbabilities(values, num_tokens)

    def _prefix_layers(self, prefix: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Keys and values (1, heads, P, d) of every layer after one pass over the prefix."""
        from transformers import DynamicCache

        if not prefix:
            return []
        cache = DynamicCache()
        ids = torch.tensor([list(prefix)], device=self._device)
        self._model.base_model(input_ids=ids, past_key_values=cache, use_cache=True)
        return [(layer.keys, layer.values) for layer in cache.layers]

    def _score_batch(
        self, layers: list[tuple[Tensor, Tensor]], prefix_length: int, suffixes: list[Suffix]
    ) -> list[NDArray[np.float32]]:
        """Probabilities of one batch whose suffixes all follow the same cached prefix."""
        hidden = self._hidden_states(layers, prefix_length, suffixes)
        rows = [row for row, s in enumerate(suffixes) for _ in s.response]
        columns = [len(s.query) - 1 + k for s in suffixes for k in range(len(s.response))]
        tokens = torch.tensor([t for s in suffixes for t in s.response], device=self._device)
        probabilities = self._probabilities(hidden[rows, columns], tokens).cpu().numpy()
        ends = np.cumsum([len(s.response) for s in suffixes])
        return [
            probabilities[end - len(s.response) : end]
            for end, s in zip(ends, suffixes, strict=True)
        ]

    def _hidden_states(
        self, layers: list[tuple[Tensor, Tensor]], prefix_length: int, suffixes: list[Suffix]
    ) -> Tensor:
        """Last hidden states (B, L, H) of right-padded suffixes; the last token is not needed."""
        inputs = [[*s.query, *s.response[:-1]] for s in suffixes]
        length = max(len(ids) for ids in inputs)
        ids = torch.zeros((len(inputs), length), dtype=torch.long)
        mask = torch.zeros((len(inputs), prefix_length + length), dtype=torch.long)
        for row, sequence in enumerate(inputs):
            ids[row, : len(sequence)] = torch.tensor(sequence)
            mask[row, : prefix_length + len(sequence)] = 1
        positions = torch.arange(prefix_length, prefix_length + length).expand(len(inputs), -1)
        output = self._model.base_model(
            input_ids=ids.to(self._device),
            attention_mask=mask.to(self._device),
            position_ids=positions.to(self._device),
            past_key_values=_expanded_cache(layers, len(inputs)),
            use_cache=bool(layers),
        )
        states: Tensor = output[0]
        return states

    def _probabilities(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Softmax probability (n,) float32 of `tokens` (n,) from hidden states (n, H)."""
        parts = []
        for start in range(0, len(tokens), _HEAD_ROWS):
            part, wanted = hidden[start : start + _HEAD_ROWS], tokens[start : start + _HEAD_ROWS]
            logits = self._finish_logits(self._head(part)).float()
            log_normaliser = logits.logsumexp(dim=-1)
            parts.append((logits.gather(1, wanted[:, None])[:, 0] - log_normaliser).exp())
        return torch.cat(parts)

    def _ids(self, text: str) -> list[int]:
        encoded = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return list(encoded.input_ids)

    def _find_anchor(self) -> list[int]:
        """Ids of a newline, when the tokenizer treats the start of a text specially; else []."""
        newline = self._ids("\n")
        return [] if self._ids("\na") == newline + self._ids("a") else newline

    @torch.inference_mode()
    def _check_shortcuts(self, config: ModelConfig) -> None:
        """Compare cached, batched, head-sliced scores with the model's own plain forward pass."""
        ids = self.tokenize("Question: what comes after one, two, three? Answer: four.")
        suffixes = [Suffix(ids[3:5], ids[5:]), Suffix(ids[3:6], ids[6:8], prefix_length=2)]
        try:
            ours = self.response_probabilities(ids[:3], suffixes, batch_size=2).values
        except (AttributeError, TypeError, ValueError, RuntimeError, IndexError) as error:
            raise ModelError(
                f"model {config.path} ({type(self._model).__name__}) cannot reuse a prompt's "
                f"prefix: {error}"
            ) from error
        for suffix, values in zip(suffixes, ours, strict=True):
            plain = self._plain_probabilities([*ids[: _prefix_length(suffix, ids[:3])]], suffix)
            tolerance = 1e-3 if config.dtype == "float32" else 0.1
            if not np.allclose(values, plain, atol=tolerance):
                raise ModelError(
                    f"model {config.path} ({type(self._model).__name__}): reusing a prompt's "
                    "prefix changes its probabilities; use another model for this teacher"
                )

    def _plain_probabilities(self, prefix: list[int], suffix: Suffix) -> NDArray[np.float32]:
        prompt = [*prefix, *suffix.query]
        ids = torch.tensor([[*prompt, *suffix.response]], device=self._device)
        logits = self._model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        wanted = ids[0, len(prompt) :, None]
        probabilities: Tensor = logits.float().softmax(-1).gather(1, wanted)[:, 0]
        return np.asarray(probabilities.cpu().numpy(), dtype=np.float32)


def load_causal_model(config: ModelConfig) -> tuple[Any, Any]:
    """Tokenizer and model of the settings, on the CPU; call it under `resolve.loading(config)`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    resolved = resolve(config)
    shared = {"revision": resolved.revision, "trust_remote_code": resolved.trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(resolved.source, **shared)
    model = AutoModelForCausalLM.from_pretrained(
        resolved.source, dtype=getattr(torch, config.dtype), use_safetensors=True, **shared
    )
    return tokenizer, model


def _logits_finisher(config: Any) -> Callable[[Tensor], Tensor]:
    """What some architectures do to the logits after the LM head (Gemma, Cohere, Granite)."""
    text = config.get_text_config()
    if softcap := getattr(text, "final_logit_softcapping", None):
        return lambda logits: torch.tanh(logits / softcap) * softcap
    if scale := getattr(text, "logit_scale", None):
        return lambda logits: logits * scale
    if divisor := getattr(text, "logits_scaling", None):
        return lambda logits: logits / divisor
    return lambda logits: logits


def _prefix_length(suffix: Suffix, prefix: Sequence[int]) -> int:
    return len(prefix) if suffix.prefix_length is None else suffix.prefix_length


def _batches(
    lengths: Sequence[int], suffixes: Sequence[Suffix], batch_size: int
) -> Iterator[list[int]]:
    """Positions of suffixes that share a prefix length, by length, then position.

    A batch ends early where one more suffix would make it mostly padding.
    """
    sizes = [len(suffix.query) + len(suffix.response) for suffix in suffixes]
    order = sorted(range(len(suffixes)), key=lambda i: (lengths[i], sizes[i], i))
    batch: list[int] = []
    tokens = 0
    for i in order:
        padded = (len(batch) + 1) * sizes[i]
        full = len(batch) == batch_size or padded > _MAX_PADDED * (tokens + sizes[i])
        if batch and (full or lengths[i] != lengths[batch[0]]):
            yield batch
            batch, tokens = [], 0
        batch.append(i)
        tokens += sizes[i]
    if batch:
        yield batch


def _expanded_cache(layers: list[tuple[Tensor, Tensor]], batch_size: int) -> Any:
    """A fresh cache for one batch; the model appends to it, the prefix's own tensors stay."""
    from transformers import DynamicCache

    if not layers:
        return None
    cache = DynamicCache()
    for index, (keys, values) in enumerate(layers):
        cache.update(
            keys.expand(batch_size, -1, -1, -1), values.expand(batch_size, -1, -1, -1), index
        )
    return cache
