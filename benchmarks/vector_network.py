"""Students of the teacher's vectors, from hundreds to thousands of labelled rows.

    python benchmarks/vector_network.py --work DIR --json FILE   # reads the rows once, then fits

8,000 random rows of ../shared/data/corpus.parquet, cut to 40 tokens: 300 of them are targets, 800
are judged, the others are there to be asked about. What students read is the packaged encoder's
embedding of the text; the teacher's vector is that of RDS+, position-weighted states, but of the
first six layers of the packaged language model, which makes thousands of rows a matter of minutes.
As the score stage does it vectors are centred by the asked candidates and compared by cosine.

rows      labelled ones, asked candidates and targets
within    Spearman over judged candidates x targets, both sides less their target's mean
means     Spearman of the judged candidates' mean influence
fit_s     CPU seconds of one fit
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.provenance import markdown_table, save
from engine.config import (
    PACKAGED_ENCODER,
    PACKAGED_LANGUAGE_MODEL,
    ModelConfig,
    NetworkConfig,
    StudentConfig,
)
from engine.kernels.product import unit_rows
from engine.kernels.ranks import order_within_targets
from engine.network.training_set import TrainingSet
from engine.students.choice import fit_student, targets_of

CORPUS = Path(__file__).resolve().parents[2] / "shared/data/corpus.parquet"
ROWS, TARGETS, JUDGED = 8000, 300, 800
MAX_TOKENS, LAYERS, BATCH = 40, 6, 64
STUDENTS = ("vectors", "linear", "vector_network")
Array = NDArray[Any]


def main() -> None:
    """Read the rows unless DIR has them, fit, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where what was read is kept")
    parser.add_argument("--asked", type=int, nargs="+", default=[500, 1000, 2000, 4000, 6500])
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=list(STUDENTS))
    parser.add_argument("--json", type=Path, help="write the table here")
    arguments = parser.parse_args()
    features, vectors = read(arguments.work)
    rows: list[dict[str, Any]] = []
    for asked in arguments.asked:
        known, judged = problem(features, vectors, asked)
        for student in arguments.students:
            rows.append({"student": student, **tried(student, known, *judged)})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(markdown_table(rows, tuple(rows[0])))
    if arguments.json:
        told = {"asked": arguments.asked, "students": arguments.students}
        save(arguments.json, "vector_network", told, rows, threads=1)


def read(work: Path) -> tuple[Array, Array]:
    """Embeddings (n, D) and states (n, H) of the rows."""
    path = work / "vector_network.npz"
    if not path.exists():
        table = pq.read_table(CORPUS, columns=["instruction", "input", "output"])
        chosen = np.random.default_rng(0).permutation(table.num_rows)[:ROWS]
        texts = [
            f"{row['instruction']} {row['input'] or ''}\n{row['output']}"
            for row in table.take(chosen).to_pylist()
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, features=_embeddings(texts), vectors=_states(texts))
    found = np.load(path)
    return found["features"], found["vectors"]


def _embeddings(texts: list[str]) -> Array:
    from engine.models.encoder import Encoder

    return Encoder(ModelConfig(path=PACKAGED_ENCODER), MAX_TOKENS).encode(texts, BATCH).vectors


def _states(texts: list[str]) -> Array:
    import torch

    from engine.models.causal_model import load_causal_model
    from engine.models.resolve import loading

    config = ModelConfig(path=PACKAGED_LANGUAGE_MODEL, dtype="float32")
    with loading(config):
        tokenizer, model = load_causal_model(config)
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "right"
    base = model.model.eval()
    base.layers = base.layers[:LAYERS]
    found = []
    with torch.no_grad():
        for start in range(0, len(texts), BATCH):
            batch = tokenizer(
                texts[start : start + BATCH],
                truncation=True,
                max_length=MAX_TOKENS,
                padding=True,
                return_tensors="pt",
            )
            asked = {name: batch[name] for name in ("input_ids", "attention_mask")}
            states = base(**asked).last_hidden_state
            places = torch.arange(1, states.shape[1] + 1)[None, :]
            weights = (batch["attention_mask"] * places).float()[..., None]
            found.append(((states * weights).sum(1) / weights.sum(1)).numpy())
    return np.concatenate(found)


def problem(
    features: Array, vectors: Array, asked: int
) -> tuple[TrainingSet, tuple[Array, Array, Array]]:
    """What is known when so many candidates are asked; the judged ones' features and all that the
    teacher says of them, (n, 2) pairs of rows and (n,) labels.
    """
    order = TARGETS + np.random.default_rng(0).permutation(ROWS - TARGETS)
    known, judged, targets = order[:-JUDGED][:asked], order[-JUDGED:], np.arange(TARGETS)
    centred = vectors - vectors[known].mean(axis=0)
    unit = np.asarray(unit_rows(centred))
    pairs = [np.argwhere(np.ones((len(rows), TARGETS), bool)) for rows in (known, judged)]
    training = TrainingSet(
        features[known],
        features[targets],
        pairs[0],
        (unit[known] @ unit[targets].T).ravel(),
        text_dim=features.shape[1],
        candidate_vectors=centred[known],
        target_vectors=centred[targets],
    )
    truth = (unit[judged] @ unit[targets].T).ravel()
    return training, (features[judged], pairs[1], truth)


def tried(
    name: str, known: TrainingSet, features: Array, pairs: Array, labels: Array
) -> dict[str, Any]:
    """One student, as a run has it by default."""
    started = time.process_time()
    network = NetworkConfig.model_validate({})
    student = fit_student(
        name, "raw", known, StudentConfig.model_validate({"name": name}), network, 0
    )
    fit_s = time.process_time() - started
    predicted = student.predict_pairs(features, targets_of(known, student), pairs)
    within, means = order_within_targets(predicted, labels, pairs)
    rows = len(known.candidates) + TARGETS
    return {"rows": rows, "within": within, "means": means, "fit_s": fit_s}


if __name__ == "__main__":
    main()
