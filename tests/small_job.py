"""A small corpus with tiny models, and settings that run the whole pipeline on them in seconds."""

import json
import random
from pathlib import Path

from tests.tiny_models import build_tiny_encoder, build_tiny_language_model

WORDS = ["red", "blue", "green", "stone", "river", "cloud", "seven", "nine", "apple", "table"]


def write_rows(path: Path, count: int, seed: int, prefix: str) -> None:
    chooser = random.Random(seed)
    with open(path, "w", encoding="utf-8") as file:
        for i in range(count):
            words = chooser.choices(WORDS, k=chooser.randint(2, 9))
            row = {
                "id": f"{prefix}{i}",
                "instruction": f"Repeat: {' '.join(words)}",
                "input": "",
                "output": " ".join(reversed(words)),
                "topic": words[0],
                "bad": "odd" if i % 10 == 0 else "",
            }
            file.write(json.dumps(row) + "\n")


def make_small_job(folder: Path) -> dict:
    """Settings as nested values: 300 candidates, 60 targets, DELIFT, all models tiny."""
    write_rows(folder / "corpus.jsonl", 300, 1, "c")
    write_rows(folder / "target.jsonl", 60, 2, "t")
    encoder = build_tiny_encoder(folder / "encoder")
    language_model = build_tiny_language_model(folder / "lm")
    return {
        "execution": "local",
        "corpus": {"path": str(folder / "corpus.jsonl")},
        "target": {"path": str(folder / "target.jsonl")},
        "embedding": {"model": {"path": str(encoder)}},
        "sample": {"fraction": 0.2, "audit": {"candidates": 12, "targets": 8}},
        "teacher": {
            "name": "delift",
            "model": {"path": str(language_model), "dtype": "float32"},
            "max_tokens": 512,
        },
        "network": {"epochs": 4, "num_workers": 1},
        "selection": {"budget": 30},
        "report": {"known_bad_column": "bad"},
    }
