"""A small model to ask in a teacher's place, made from the packaged one.

No second language model comes as a package. The first layers of the packaged one cost what a model
of that size costs, and know almost nothing: they were never trained to be the last.
"""

from __future__ import annotations

from pathlib import Path

from engine.config import PACKAGED_LANGUAGE_MODEL, ModelConfig
from engine.models.resolve import resolve

__all__ = ["NUM_LAYERS", "write_small_model"]

NUM_LAYERS = 10  # of 30


def write_small_model(folder: Path) -> Path:
    """Write the first layers of the packaged model with its tokenizer; returns the folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = resolve(ModelConfig(path=PACKAGED_LANGUAGE_MODEL)).source
    model = AutoModelForCausalLM.from_pretrained(
        source, use_safetensors=True, trust_remote_code=False
    )
    model.model.layers = model.model.layers[:NUM_LAYERS]
    model.config.num_hidden_layers = NUM_LAYERS
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[:NUM_LAYERS]
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, trust_remote_code=False).save_pretrained(folder)
    return folder
