"""Rows and an encoder that cost almost nothing, so that what is left is the engine's own work.

    write_rows             any number of instruction rows as JSON lines, the same for the same seed
    write_static_encoder   a sentence-transformers model whose forward pass is a look-up and a mean

Rows have a topic, and about half of their words are of it; so their embeddings have clusters, and a
network has something to learn.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

__all__ = ["DIM", "write_rows", "write_static_encoder"]

DIM = 384  # as the packaged encoder has
TOPICS, TOPIC_WORDS, SHARED_WORDS = 64, 200, 4_000
NUM_WORDS = TOPICS * TOPIC_WORDS + SHARED_WORDS
WORDS_PER_ROW = (16, 32)  # instruction and answer together: the lowest, and one above the highest
_BLOCK = 10_000


def _word(number: int) -> str:
    return f"w{number}"


def write_rows(path: Path, count: int, seed: int, prefix: str = "row") -> Path:
    """Write `count` rows of distinct ids; the first rows are the same for any count."""
    words = np.array([_word(number) for number in range(NUM_WORDS)], dtype=object)
    with open(path, "w", encoding="utf-8") as file:
        for start in range(0, count, _BLOCK):
            rng = np.random.default_rng([seed, start])
            topics = rng.integers(TOPICS, size=_BLOCK)
            lengths = rng.integers(*WORDS_PER_ROW, size=_BLOCK)
            size = (_BLOCK, WORDS_PER_ROW[1])
            shared = TOPICS * TOPIC_WORDS + rng.integers(SHARED_WORDS, size=size)
            own = topics[:, None] * TOPIC_WORDS + rng.integers(TOPIC_WORDS, size=size)
            chosen = words[np.where(rng.random(size) < 0.5, own, shared)]
            for i in range(min(_BLOCK, count - start)):
                length = int(lengths[i])
                text = chosen[i, :length].tolist()
                row = {
                    "id": f"{prefix}-{start + i:09d}",
                    "instruction": " ".join(text[: length // 3]),
                    "input": "",
                    "output": " ".join(text[length // 3 :]),
                    "topic": int(topics[i]),
                }
                file.write(json.dumps(row) + "\n")
    return path


def write_static_encoder(directory: Path, seed: int = 0) -> Path:
    """Write a StaticEmbedding of random word vectors (DIM,) as safetensors; returns `directory`."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"[UNK]": 0} | {_word(number): 1 + number for number in range(NUM_WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    vectors = np.random.default_rng(seed).standard_normal((len(vocabulary), DIM), np.float32)
    vectors[0] = 0  # what the rows have in common, such as the answer mark, says nothing
    topics = np.random.default_rng([seed, 1]).standard_normal((TOPICS, DIM), np.float32)
    vectors[1 : 1 + TOPICS * TOPIC_WORDS] += np.repeat(topics, TOPIC_WORDS, axis=0) / 2
    module = StaticEmbedding(tokenizer, embedding_weights=vectors)
    SentenceTransformer(modules=[module], device="cpu", trust_remote_code=False).save(
        str(directory), create_model_card=False
    )
    return directory
