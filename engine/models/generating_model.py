"""A causal language model that also answers: generation, alone or beside probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.models.language_model import LanguageModel, ResponseProbabilities, batches
from engine.models.prompt_tokenizer import Suffix

__all__ = ["GeneratingModel", "Sampling"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How `GeneratingModel.generate` draws tokens; the publication's values, and a seed."""

    seed: int
    temperature: float = 0.2
    min_p: float = 0.1

    def arguments(self) -> dict[str, Any]:
        """For transformers; its own top-k and top-p are off."""
        return {"temperature": self.temperature, "min_p": self.min_p, "top_k": 0, "top_p": 1.0}


class GeneratingModel(LanguageModel):
    """A language model that writes answers. Raises ModelError as `LanguageModel` does."""

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        batch_size: int,
        stop: Sequence[int] = (),
        sampling: Sampling | None = None,
    ) -> list[str]:
        """The text that follows each prompt, in the order asked; greedy without `sampling`.

        Batched by length, then position, padded on the left: batch mates matter through rounding
        only, with `sampling` also through the random numbers, which are drawn for a whole batch
        from its seed and first prompt. Ends at the eos, at one of `stop`, or after
        `max_new_tokens`; neither is part of the text. No prompt is empty.
        """
        texts = [""] * len(prompts)
        for batch in self._prompt_batches(prompts, batch_size):
            ids, mask = self._padded([prompts[i] for i in batch])
            found = self._continue(ids, mask, None, max_new_tokens, stop, sampling, batch[0])
            for i, text in zip(batch, found, strict=True):
                texts[i] = text
        return texts

    @torch.inference_mode()
    def answer(
        self,
        prompts: Sequence[Sequence[int]],
        responses: Sequence[Sequence[int]],
        max_new_tokens: int,
        batch_size: int,
        stop: Sequence[int] = (),
        sampling: Sampling | None = None,
    ) -> tuple[list[str], ResponseProbabilities]:
        """What `generate` says to each prompt, and how likely a given response is; read once.

        The same as `generate` and `response_probabilities` up to rounding, for one pass over each
        prompt in place of two.
        """
        from transformers import DynamicCache

        texts = [""] * len(prompts)
        values = [np.empty(0, np.float32)] * len(prompts)
        for batch in self._prompt_batches(prompts, batch_size):
            ids, mask = self._padded([prompts[i] for i in batch])
            cache, length = DynamicCache(), ids.shape[1]
            output = self._model.base_model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
                past_key_values=cache,
                use_cache=True,
            )
            some = [responses[i] for i in batch]
            likely = self._follow(cache, mask, output[0][:, -1:], some)
            # a generation reads the last token of a prompt itself
            cache.crop(length - 1 - cache.get_seq_length())
            found = self._continue(ids, mask, cache, max_new_tokens, stop, sampling, batch[0])
            for i, text, probabilities in zip(batch, found, likely, strict=True):
                texts[i], values[i] = text, probabilities
        num_tokens = sum(map(len, prompts)) + sum(len(response) - 1 for response in responses)
        return texts, ResponseProbabilities(values, num_tokens)

    def _prompt_batches(
        self, prompts: Sequence[Sequence[int]], batch_size: int
    ) -> Iterator[list[int]]:
        questions = [Suffix(prompt, [self.eos]) for prompt in prompts]
        return batches([0] * len(prompts), questions, batch_size)

    def _padded(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, L) of prompts that end together."""
        length = max(map(len, prompts))
        ids = torch.full((len(prompts), length), self.eos, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, length - len(prompt) :] = torch.tensor(list(prompt))
            mask[row, length - len(prompt) :] = 1
        return ids.to(self._device), mask.to(self._device)

    def _continue(
        self,
        ids: Tensor,
        mask: Tensor,
        cache: Any,
        max_new_tokens: int,
        stop: Sequence[int],
        sampling: Sampling | None,
        first: int,
    ) -> list[str]:
        """Texts that follow padded prompts, of which `cache` holds all but the last tokens."""
        from transformers import GenerationConfig

        settings = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=sampling is not None,
            pad_token_id=self.eos,
            eos_token_id=sorted({self.eos, *stop}),
            **({} if sampling is None else sampling.arguments()),
        )
        with torch.random.fork_rng():
            if sampling is not None:
                torch.manual_seed(sampling.seed + first)
            found = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=settings,
                **({} if cache is None else {"past_key_values": cache}),
            )
        return [self._tokenizer.text(row[ids.shape[1] :].tolist()) for row in found]

    def _follow(
        self, cache: Any, mask: Tensor, last: Tensor, responses: Sequence[Sequence[int]]
    ) -> list[NDArray[np.float32]]:
        """Probabilities of responses behind cached prompts, whose last states are (B, 1, H)."""
        length = max(len(response) - 1 for response in responses)
        states = last
        if length:
            ids = torch.zeros((len(responses), length), dtype=torch.long)
            more = torch.zeros_like(ids)
            for row, response in enumerate(responses):
                ids[row, : len(response) - 1] = torch.tensor(list(response[:-1]), dtype=torch.long)
                more[row, : len(response) - 1] = 1
            output = self._model.base_model(
                input_ids=ids.to(self._device),
                attention_mask=torch.cat([mask, more.to(self._device)], dim=1),
                position_ids=mask.sum(-1, keepdim=True) + torch.arange(length, device=self._device),
                past_key_values=cache,
                use_cache=True,
            )
            states = torch.cat([last, output[0]], dim=1)
        rows = [row for row, response in enumerate(responses) for _ in response]
        columns = [k for response in responses for k in range(len(response))]
        tokens = torch.tensor([t for r in responses for t in r], device=self._device)
        found = self._probabilities(states[rows, columns], tokens).cpu().numpy()
        return np.split(found, np.cumsum([len(response) for response in responses])[:-1])
