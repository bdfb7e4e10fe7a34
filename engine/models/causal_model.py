"""Causal language models: loading one, in full precision or quantised, and what all users share."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from engine.config import ModelConfig
from engine.errors import ModelError
from engine.models.resolve import check_hub_files, resolve

__all__ = ["HEAD_ROWS", "MAX_PADDED", "context_size", "load_causal_model", "logits_finisher"]

# Rows of logits held at a time, in float32: 256 of them are 150 MB at 150,000 vocabulary entries.
HEAD_ROWS = 256
# Positions of a batch for each token in it: on a CPU a padded position costs as much as a token.
MAX_PADDED = 1.2
_UNLIMITED_CONTEXT = 1 << 20


def load_causal_model(config: ModelConfig) -> tuple[Any, Any]:
    """Tokenizer and model of the settings; call it under `resolve.loading(config)`.

    The model is on the CPU, for the caller to move, unless it is quantised: that one lies on the
    GPU when there is one, and must not be moved. Quantised are its linear layers without the LM
    head: "nf4" with double quantisation, or "int8" row by row. Raises ModelError when a quantised
    model is asked for without bitsandbytes.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    resolved = resolve(config)
    check_hub_files(resolved, config.path)
    shared = {
        "revision": resolved.revision,
        "trust_remote_code": resolved.trust_remote_code,
        "local_files_only": resolved.is_local,
    }
    tokenizer = AutoTokenizer.from_pretrained(resolved.source, **shared)
    model = AutoModelForCausalLM.from_pretrained(
        resolved.source,
        dtype=getattr(torch, config.dtype),
        use_safetensors=True,
        **shared,
        **(_quantised(config) if config.quantization else {}),
    )
    if config.quantization:
        _use_portable_layers(model)
    return tokenizer, model


def _quantised(config: ModelConfig) -> dict[str, Any]:
    """Further arguments of `from_pretrained` for a quantised model."""
    for package in ("bitsandbytes", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise ModelError(
                f"model {config.path}: quantization {config.quantization} needs {package}; "
                "pip install bitsandbytes accelerate"
            )
    from transformers import BitsAndBytesConfig

    # It says once per layer and call that int8 layers compute in float16.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if config.quantization == "nf4":
        settings = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, config.dtype),
        )
    else:
        # Its default keeps columns with outliers in float16, which it looks for in a whole batch:
        # a row's batch mates then change its probabilities by as much as the quantisation does.
        settings = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    return {"quantization_config": settings, "device_map": {"": device}}


def _use_portable_layers(model: Any) -> None:
    """Keep NF4 layers on a CPU from repacking themselves at their first use.

    With AVX-512 bfloat16, bitsandbytes would: it then computes in bfloat16 whatever the dtype,
    refuses widths that are no multiple of 64, may fetch code from a hub, and is no faster here.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def context_size(model: Any) -> int:
    """Most tokens that one sequence may have."""
    size = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(size) if size else _UNLIMITED_CONTEXT


def logits_finisher(config: Any) -> Callable[[Tensor], Tensor]:
    """What some architectures do to the logits after the LM head (Gemma, Cohere, Granite)."""
    text = config.get_text_config()
    if softcap := getattr(text, "final_logit_softcapping", None):
        return lambda logits: torch.tanh(logits / softcap) * softcap
    if scale := getattr(text, "logit_scale", None):
        return lambda logits: logits * scale
    if divisor := getattr(text, "logits_scaling", None):
        return lambda logits: logits / divisor
    return lambda logits: logits
