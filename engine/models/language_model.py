"""A causal language model, asked how likely a reference answer or a next token is.

Prompts that share a prefix (instruction and in-context example) are asked about together: its
keys and values are computed once and reused for every suffix. The LM head runs only on positions
that predict something asked for. Both shortcuts are compared with the plain forward pass when a
model is loaded, so an architecture that they do not fit is refused instead of scored wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from engine.config import ModelConfig
from engine.errors import ModelError
from engine.models.adapters import load_adapter
from engine.models.causal_model import (
    HEAD_ROWS,
    MAX_PADDED,
    context_size,
    load_causal_model,
    logits_finisher,
)
from engine.models.prompt_tokenizer import ChatFrame, PromptTokenizer, Suffix, TrainingRow
from engine.models.resolve import loading

__all__ = [
    "LanguageModel",
    "NextTokenProbabilities",
    "ResponseProbabilities",
    "RowReadings",
    "batches",
]

# Rows of the LM head that are turned into float32 at a time: 8192 of width 4096 are 134 MB.
_FLOAT32_ROWS = 8192
_SOFTMAX_ROWS = 16


@dataclass(frozen=True, slots=True)
class ResponseProbabilities:
    """Answer of `LanguageModel.response_probabilities`.

    Attributes:
        values: per suffix, in the order asked, (T,) float32 probabilities of its response tokens.
        num_tokens: tokens that went through the model, the prefix once, padding not counted.
    """

    values: list[NDArray[np.float32]]
    num_tokens: int


@dataclass(frozen=True, slots=True)
class NextTokenProbabilities:
    """Answer of `LanguageModel.next_token_probabilities`.

    Attributes:
        values: (n, number of tokens asked about) float32, in the order asked.
        num_tokens: tokens that went through the model, padding not counted.
    """

    values: NDArray[np.float32]
    num_tokens: int


@dataclass(frozen=True, slots=True)
class RowReadings:
    """Answer of `LanguageModel.read_rows`.

    Attributes:
        states: (n, H) float32, the last hidden states of a row, averaged over its tokens.
        weighted_states: the same with token i of n weighed by i / (1 + ... + n), as RDS+ has it
            (arXiv 2503.01807).
        losses: (n,) float32, mean cross-entropy of the response given the prompt, in nats; NaN
            where it was not asked for.
        num_tokens: tokens that went through the model, padding not counted.
    """

    states: NDArray[np.float32]
    weighted_states: NDArray[np.float32]
    losses: NDArray[np.float32]
    num_tokens: int


class LanguageModel:
    """A causal LM with its tokenizer, on the GPU when there is one.

    Raises ModelError when the model cannot be found or loaded, has no end-of-sequence token, or
    is built so that prefix caching does not reproduce its plain forward pass.
    """

    def __init__(self, config: ModelConfig) -> None:
        torch.set_num_threads(config.threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._name = config.path
        with loading(config):
            tokenizer, self._model = load_causal_model(config)
        self._tokenizer = PromptTokenizer(tokenizer, config.path)
        if not config.quantization:
            self._model.to(self._device)
        self._model.eval()
        self._head = self._model.get_output_embeddings()
        self._finish_logits = logits_finisher(self._model.config)
        self._check_shortcuts(config)

    @property
    def name(self) -> str:
        """What the settings call the model, for messages."""
        return self._name

    @property
    def num_parameters(self) -> int:
        """Weights of the model, each counted once, however few bits it is stored in."""
        # transformers counts two for each byte of a 4-bit layer
        return int(self._model.num_parameters())

    @property
    def bos(self) -> int | None:
        """Id that the tokenizer puts before a text; None when it puts none."""
        return self._tokenizer.bos

    @property
    def eos(self) -> int:
        """Id that ends a response."""
        return self._tokenizer.eos

    @property
    def context_size(self) -> int:
        """Most tokens that one prompt with its response may have."""
        return context_size(self._model)

    @property
    def tokenizer(self) -> PromptTokenizer:
        """What makes rows of token ids for this model."""
        return self._tokenizer

    @property
    def state_size(self) -> int:
        """H, size of a hidden state."""
        return int(self._model.config.get_text_config().hidden_size)

    def tokenize(self, text: str) -> list[int]:
        """Ids of a piece of a prompt; see `PromptTokenizer.tokenize`."""
        return self._tokenizer.tokenize(text)

    def chat_frame(self) -> ChatFrame:
        """The model's chat template; ModelError without one, see `PromptTokenizer.chat_frame`."""
        return self._tokenizer.chat_frame()

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
        for batch in batches(lengths, suffixes, batch_size):
            cropped = [
                (k[:, :, : lengths[batch[0]]], v[:, :, : lengths[batch[0]]]) for k, v in layers
            ]
            scored = self._score_batch(cropped, lengths[batch[0]], [suffixes[i] for i in batch])
            for i, probabilities in zip(batch, scored, strict=True):
                values[i] = probabilities
        num_tokens = used + sum(len(s.query) + len(s.response) - 1 for s in suffixes)
        return ResponseProbabilities(values, num_tokens)

    @torch.inference_mode()
    def next_token_probabilities(
        self, prompts: Sequence[Sequence[int]], tokens: Sequence[int], batch_size: int
    ) -> NextTokenProbabilities:
        """Probability of each of `tokens` right after each prompt; no prompt is empty.

        One pass over each prompt, `batch_size` at a time, batched by length, then position, right
        padded: batch mates matter through rounding only. LM head and softmax, over the whole
        vocabulary, are in float32 whatever the model's dtype: in bfloat16, whose steps are 1/8 at
        a usual logit, tokens that compete would often tie.
        """
        assert all(prompts), "a prompt is empty"
        questions = [Suffix(prompt, [self.eos]) for prompt in prompts]
        values = np.empty((len(prompts), len(tokens)), np.float32)
        for batch in batches([0] * len(prompts), questions, batch_size):
            hidden = self._hidden_states([], 0, [questions[i] for i in batch])
            last = [len(prompts[i]) - 1 for i in batch]
            logits = self._float32_logits(hidden[list(range(len(batch))), last])
            values[batch] = logits.softmax(-1)[:, list(tokens)].cpu().numpy()
        return NextTokenProbabilities(values, sum(len(prompt) for prompt in prompts))

    @torch.inference_mode()
    def read_rows(self, rows: Sequence[TrainingRow], batch_size: int, losses: bool) -> RowReadings:
        """Pooled states of rows, and with `losses` how well their responses are predicted.

        One pass over prompt and response of each row, its last token included; batched as
        `next_token_probabilities` does. Pooling and losses are in float32.
        """
        questions = [Suffix([*row.prompt, *row.response], [self.eos]) for row in rows]
        states, weighted = np.empty((2, len(rows), self.state_size), np.float32)
        found = np.full(len(rows), np.nan, np.float32)
        for batch in batches([0] * len(rows), questions, batch_size):
            hidden = self._hidden_states([], 0, [questions[i] for i in batch])
            for position, i in enumerate(batch):
                row, size = rows[i], len(questions[i].query)
                own = hidden[position, :size].float()
                steps = torch.arange(1, size + 1, device=own.device, dtype=torch.float32)
                for pooled, weights in ((states, torch.ones_like(steps)), (weighted, steps)):
                    pooled[i] = (weights / weights.sum() @ own).cpu().numpy()
                if losses:
                    scored = hidden[position, len(row.prompt) - 1 : size - 1]
                    wanted = torch.tensor(list(row.response), device=own.device)
                    logs = self._probabilities(scored, wanted).clamp_min(1e-30).log()
                    found[i] = -float(logs.mean())
        num_tokens = sum(len(question.query) for question in questions)
        return RowReadings(states, weighted, found, num_tokens)

    def load_adapter(self, path: Path | None) -> None:
        """Put trained LoRA adapters into the model, in place of those of an earlier call.

        None is the model without adapters. Raises ModelError for adapters of another model.
        """
        load_adapter(self._model, path)

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
        for start in range(0, len(tokens), HEAD_ROWS):
            logits = self._finish_logits(self._head(hidden[start : start + HEAD_ROWS]))
            # in float32 on a CPU a few rows at a time, which stay in its cache
            step = len(logits) if logits.is_cuda else _SOFTMAX_ROWS
            for first in range(0, len(logits), step):
                rows = logits[first : first + step].float()
                wanted = tokens[start + first : start + first + len(rows)]
                parts.append((-cross_entropy(rows, wanted, reduction="none")).exp())
        return torch.cat(parts)

    def _float32_logits(self, hidden: Tensor) -> Tensor:
        """Logits (n, V) float32 of a few hidden states (n, H)."""
        weight, bias = self._head.weight, getattr(self._head, "bias", None)
        if not weight.is_floating_point():  # a quantised head has no rows to take
            logits: Tensor = self._finish_logits(self._head(hidden)).float()
            return logits
        states = hidden.float()
        parts = [states @ rows.float().T for rows in weight.split(_FLOAT32_ROWS)]
        logits = torch.cat(parts, dim=-1)
        return self._finish_logits(logits if bias is None else logits + bias.float())

    @torch.inference_mode()
    def _check_shortcuts(self, config: ModelConfig) -> None:
        """Compare cached, batched, head-sliced scores with the model's own plain forward pass."""
        ids = self.tokenize("Question: what comes after one, two, three? Answer: four.")
        suffixes = [Suffix(ids[3:5], ids[5:]), Suffix(ids[3:6], ids[6:8], prefix_length=2)]
        prompts = [ids[:-1], ids[:4]]
        try:
            ours = self.response_probabilities(ids[:3], suffixes, batch_size=2).values
            next_ones = self.next_token_probabilities(prompts, ids[-1:], batch_size=2).values
        except (AttributeError, TypeError, ValueError, RuntimeError, IndexError) as error:
            raise ModelError(
                f"model {config.path} ({type(self._model).__name__}) cannot reuse a prompt's "
                f"prefix: {error}"
            ) from error
        checks = [
            (values, [*ids[: _prefix_length(suffix, ids[:3])]], suffix)
            for values, suffix in zip(ours, suffixes, strict=True)
        ]
        checks += [
            (values, [], Suffix(prompt, ids[-1:]))
            for values, prompt in zip(next_ones, prompts, strict=True)
        ]
        exact = config.dtype == "float32" and config.quantization != "int8"
        for values, prefix, suffix in checks:
            plain = self._plain_probabilities(prefix, suffix)
            if not np.allclose(values, plain, atol=1e-3 if exact else 0.1):
                raise ModelError(
                    f"model {config.path} ({type(self._model).__name__}): batching "
                    "prompts or reusing their prefix changes probabilities; use another model"
                )

    def _plain_probabilities(self, prefix: list[int], suffix: Suffix) -> NDArray[np.float32]:
        prompt = [*prefix, *suffix.query]
        ids = torch.tensor([[*prompt, *suffix.response]], device=self._device)
        logits = self._model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        wanted = ids[0, len(prompt) :, None]
        probabilities: Tensor = logits.float().softmax(-1).gather(1, wanted)[:, 0]
        return np.asarray(probabilities.cpu().numpy(), dtype=np.float32)


def _prefix_length(suffix: Suffix, prefix: Sequence[int]) -> int:
    return len(prefix) if suffix.prefix_length is None else suffix.prefix_length


def batches(
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
        full = len(batch) == batch_size or padded > MAX_PADDED * (tokens + sizes[i])
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
