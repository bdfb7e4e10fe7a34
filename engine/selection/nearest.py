"""The nearest of some rows to each candidate, by the cosine of their embeddings.

    NearestRows     which rows to look among, and how many to find
    find_nearest    writes lists for all candidates, in parts, on an actor pool
    read_nearest    a part's lists

Exact, M x R products of D numbers, up to EXACT_ROWS rows to look among; above that through an
inverted file of FAISS, whose recall is measured on some of the candidates. One thread a worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather

from engine.artifacts.files import atomic_path, digest, file_sha256, load_array, map_table
from engine.artifacts.parts import Part, finish_part
from engine.artifacts.rows import VectorParts, as_lists, as_matrix
from engine.artifacts.run_directory import Artifact
from engine.config import Execution
from engine.kernels.arrays import FloatArray, IndexArray
from engine.runtime.executor import Executor, Partition, PartitionWorker

__all__ = ["NearestRows", "find_nearest", "read_nearest"]

CODE_VERSION = 1
EXACT_ROWS = 100_000
BLOCK_ROWS = 4096  # candidates of a part
CHUNK_ROWS = 16_384  # rows to look among at a time
JUDGES = 512  # candidates that the recall is measured on
FITTED_ON = 100_000  # rows that the inverted file's lists are fitted on
PROBED_SHARE = 1 / 64  # of the lists


@dataclass(frozen=True)
class NearestRows:
    """The rows to look among: those of a group of the embeddings, or `rows` of it.

    Attributes:
        embeddings: L2-normalised.
        group: "candidates" or "owned".
        rows: file of row numbers, ascending (R,) int64; None: all of the group.
        count: how many to find for each candidate.
        others: a candidate is not its own nearest row.
    """

    embeddings: Artifact
    group: str
    rows: Path | None
    count: int
    others: bool = False

    def numbers(self) -> IndexArray:
        """The row numbers."""
        if self.rows is None:
            return np.arange(len(VectorParts(self.embeddings, self.group)))
        numbers: IndexArray = load_array(self.rows)
        return numbers

    def chunks(self) -> Iterator[tuple[IndexArray, FloatArray]]:
        """Row numbers and vectors, some at a time."""
        vectors, numbers = VectorParts(self.embeddings, self.group), self.numbers()
        for start in range(0, len(numbers), CHUNK_ROWS):
            some = numbers[start : start + CHUNK_ROWS]
            yield some, vectors.take(some)


def find_nearest(
    executor: Executor,
    nearest: NearestRows,
    folder: Path,
    label: str,
    execution: Execution,
) -> tuple[list[Part], float]:
    """Lists of the nearest rows of all candidates, best first; their parts, and the recall.

    Each part has `ids` and `similarity`, fixed-size lists of `count` or fewer where there are no
    more; equal similarity: lower row first.
    """
    num_candidates = len(VectorParts(nearest.embeddings, "candidates"))
    chosen = None if nearest.rows is None else file_sha256(nearest.rows)
    recipe = [CODE_VERSION, nearest.embeddings.fingerprint, nearest.group, chosen]
    recipe += [nearest.count, nearest.others]
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / f"index-{digest(recipe)}.faiss"
    recall = executor.call(_write_index, nearest, index)
    partitions = [
        Partition(
            path=f"{folder.name}/{start:09d}-{digest(recipe, start)}.arrow",
            units=min(BLOCK_ROWS, num_candidates - start),
            payload={"start": start, "stop": min(start + BLOCK_ROWS, num_candidates)},
        )
        for start in range(0, num_candidates, BLOCK_ROWS)
    ]
    settings = {"nearest": nearest, "index": None if recall is None else index}
    root = folder.parent
    parts = executor.map(
        partitions, root, NearestWorker, settings, label=label, unit="rows", execution=execution
    )
    return parts, 1.0 if recall is None else recall


def read_nearest(path: Path) -> tuple[IndexArray, FloatArray]:
    """The lists of a part: ids (n, K) and similarities (n, K)."""
    table = map_table(path)
    return as_matrix(table["ids"]), as_matrix(table["similarity"])


class NearestWorker(PartitionWorker):
    """Writes the lists of a block of candidates."""

    def __init__(self, nearest: NearestRows, index: Path | None) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        self._nearest, self._index = nearest, None
        self._candidates = VectorParts(nearest.embeddings, "candidates")
        if index is not None:
            self._index = faiss.read_index(str(index), faiss.IO_FLAG_MMAP)

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        start, stop = payload["start"], payload["stop"]
        block = self._candidates.block(start, stop)
        own = np.arange(start, stop) if self._nearest.others else None
        if self._index is None:
            ids, similarity = _exact(self._nearest, block, own)
        else:
            ids, similarity = _indexed(self._nearest, self._index, block, own)
        table = pa.table({"ids": as_lists(ids), "similarity": as_lists(similarity)})
        with atomic_path(path) as temporary:  # uncompressed, so that readers can map it
            pyarrow.feather.write_feather(table, str(temporary), compression="uncompressed")
        return len(ids), {}


def _exact(
    nearest: NearestRows, block: FloatArray, own: IndexArray | None
) -> tuple[IndexArray, FloatArray]:
    import faiss

    found: list[tuple[IndexArray, FloatArray]] = []
    wanted = nearest.count + (own is not None)
    for numbers, vectors in nearest.chunks():
        similarity, places = faiss.knn(
            block, vectors, min(wanted, len(vectors)), metric=faiss.METRIC_INNER_PRODUCT
        )
        found.append((numbers[places], similarity))
        if len(found) > 1:
            ids, values = (np.concatenate(pieces, axis=1) for pieces in zip(*found, strict=True))
            found = [_best(ids, values, wanted)]
    return _without_own(*_best(*found[0], wanted), nearest.count, own)


def _best(ids: IndexArray, values: FloatArray, count: int) -> tuple[IndexArray, FloatArray]:
    order = np.lexsort((ids, -values), axis=1)[:, :count]
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(values, order, axis=1)


def _without_own(
    ids: IndexArray, values: FloatArray, count: int, own: IndexArray | None
) -> tuple[IndexArray, FloatArray]:
    if own is not None:  # the row itself goes to the end of its list, and off it
        itself = ids == own[:, None]
        order = np.argsort(itself, axis=1, kind="stable")
        left = order[:, : max(1, ids.shape[1] - 1)]
        ids, values = (
            np.take_along_axis(ids, left, axis=1),
            np.take_along_axis(values, left, axis=1),
        )
    return ids[:, :count], np.clip(values[:, :count], 0, 1).astype(np.float32)


# --- many rows to look among ---------------------------------------------------------------------


def _write_index(nearest: NearestRows, path: Path) -> float | None:
    """Write an inverted file; returns its recall, or None where comparing everything is cheap."""
    numbers = nearest.numbers()
    if len(numbers) <= EXACT_ROWS:
        return None
    import faiss

    faiss.omp_set_num_threads(1)  # sums must not depend on how many there are
    vectors = VectorParts(nearest.embeddings, nearest.group)
    num_lists = 2 ** int(np.log2(4 * np.sqrt(len(numbers))))
    rng = np.random.default_rng(0)
    drawn = np.sort(rng.permutation(len(numbers))[:FITTED_ON])
    dim = vectors.dim
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, num_lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = 5
    index.train(vectors.take(numbers[drawn]))
    for some, chunk in nearest.chunks():
        index.add_with_ids(chunk, some)
    with atomic_path(path) as temporary:
        faiss.write_index(index, str(temporary))
    finish_part(path.parent, path, len(numbers))
    candidates = VectorParts(nearest.embeddings, "candidates")
    judges = np.sort(rng.permutation(len(candidates))[:JUDGES])
    block, own = candidates.take(judges), judges if nearest.others else None
    true, _ = _exact(nearest, block, own)
    ours, _ = _indexed(nearest, index, block, own)
    return float(np.mean([np.isin(t, o).mean() for t, o in zip(true, ours, strict=True)]))


def _indexed(
    nearest: NearestRows, index: Any, block: FloatArray, own: IndexArray | None
) -> tuple[IndexArray, FloatArray]:
    wanted = nearest.count + (own is not None)
    index.nprobe = max(8, int(index.nlist * PROBED_SHARE))
    values, ids = index.search(block, wanted)
    values = np.where(ids < 0, 0, values)  # lists that were probed held no more
    return _without_own(*_best(np.maximum(ids, 0), values, wanted), nearest.count, own)
