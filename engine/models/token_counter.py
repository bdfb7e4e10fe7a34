"""How many tokens texts have for a model: what a token budget counts."""

from __future__ import annotations

from collections.abc import Sequence

from engine.config import ModelConfig
from engine.models.resolve import check_hub_files, loading, resolve

__all__ = ["TokenCounter"]


class TokenCounter:
    """The tokenizer of a model, without its weights.

    Raises ModelError when the model cannot be found or has no tokenizer.
    """

    def __init__(self, config: ModelConfig) -> None:
        from transformers import AutoTokenizer

        with loading(config):
            resolved = resolve(config)
            check_hub_files(resolved, config.path)
            self._tokenizer = AutoTokenizer.from_pretrained(
                resolved.source,
                revision=resolved.revision,
                trust_remote_code=resolved.trust_remote_code,
                local_files_only=resolved.is_local,
            )
        self._tokenizer.model_max_length = 2**62  # we count, so a long text is no mistake

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, at least 1, special tokens not counted."""
        if not texts:
            return []
        encoded = self._tokenizer(list(texts), add_special_tokens=False)
        return [max(1, len(ids)) for ids in encoded["input_ids"]]
