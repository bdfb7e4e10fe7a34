"""Models small enough for every test: built here, deterministic, saved as safetensors.

Both read bytes, so any text works. Their weights are drawn wide, so that their answers differ
from row to row: a model with the usual initialisation says almost the same to everything.
"""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

VOCAB_SIZE = 300
HIDDEN_SIZE = 32


def build_tiny_language_model(directory: Path, context_size: int = 2048, seed: int = 0) -> Path:
    """A 2-layer Llama on bytes, vocabulary 300, BOS in front; returns `directory`."""
    _byte_tokenizer({"bos_token": "<s>", "eos_token": "</s>"}, "<s> $A").save_pretrained(directory)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context_size,
        bos_token_id=256,
        eos_token_id=257,
        initializer_range=0.3,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def build_tiny_encoder(directory: Path, max_tokens: int = 128, seed: int = 0) -> Path:
    """A 2-layer BERT on bytes with mean pooling, D = 32; returns `directory`."""
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    _byte_tokenizer(special, "[CLS] $A [SEP]").save_pretrained(directory)
    config = BertConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        pad_token_id=258,
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(directory)
    pooling = {"word_embedding_dimension": HIDDEN_SIZE, "pooling_mode_mean_tokens": True}
    modules = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling")]
    _write_json(directory / "modules.json", [_module(*module) for module in modules])
    _write_json(directory / "sentence_bert_config.json", {"max_seq_length": max_tokens})
    _write_json(directory / "1_Pooling" / "config.json", pooling)
    return directory


def _module(name: str, path: str, kind: str) -> dict[str, object]:
    kind = f"sentence_transformers.models.{kind}"
    return {"idx": int(name), "name": name, "path": path, "type": kind}


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def _byte_tokenizer(special_tokens: dict[str, str], template: str) -> PreTrainedTokenizerFast:
    """One id per byte (0..255); the special tokens follow."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = list(special_tokens.values())
    tokenizer.add_special_tokens(names)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(name, tokenizer.token_to_id(name)) for name in names]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special_tokens)
