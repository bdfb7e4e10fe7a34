"""What all trials of a study share: embeddings, all labels, and the order in which rows are drawn.

Written once as .npy files, which every trial maps: a node holds them once, whatever number of
trials run on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.artifact_rows import TableParts, VectorParts, id_hashes, target_side
from engine.clusters import clusters_of
from engine.config import Config
from engine.kernels.arrays import FloatArray
from engine.run_directory import Artifact, load_array, read_table, save_array
from engine.teachers.sample import Side
from engine.teachers.teacher import teacher_class

__all__ = ["StudyData", "write_study_data"]


@dataclass(frozen=True)
class StudyData:
    """M candidates, N targets (1 for a teacher that scores rows alone), and all M x N labels.

    Attributes:
        candidates, targets: embeddings, (M, D) and (N, D) float32; (0, D) without targets.
        labels: [c, t], (M, N) float32; NaN where the teacher could not answer.
        candidate_hashes, target_hashes: what rows are drawn by, (M,) and (N,) uint64.
        candidate_strata, target_strata: cluster of each row, for the stratified design.
    """

    candidates: FloatArray
    targets: FloatArray
    labels: FloatArray
    candidate_hashes: NDArray[np.uint64]
    target_hashes: NDArray[np.uint64]
    candidate_strata: NDArray[np.int64]
    target_strata: NDArray[np.int64]

    @property
    def pairwise(self) -> bool:
        return len(self.targets) > 0

    def sides(self, stratified: bool) -> tuple[Side, Side]:
        """Both sides as the sample stage has them."""
        strata = (self.candidate_strata, self.target_strata) if stratified else (None, None)
        hashes = (self.candidate_hashes, self.target_hashes)
        first, second = (
            Side(np.asarray(h), None if s is None else np.asarray(s))
            for h, s in zip(hashes, strata, strict=True)
        )
        return first, second

    def save(self, directory: Path) -> None:
        """Write all arrays."""
        for name, array in self._arrays():
            save_array(directory / f"{name}.npy", array)

    def _arrays(self) -> Iterator[tuple[str, NDArray]]:  # type: ignore[type-arg]
        for field in fields(self):
            yield field.name, getattr(self, field.name)

    @classmethod
    def open(cls, directory: Path) -> StudyData:
        """Map what `save` wrote."""
        return cls(
            **{
                field.name: load_array(directory / f"{field.name}.npy", mmap_mode="r")
                for field in fields(cls)
            }
        )


def write_study_data(
    config: Config, corpus: Artifact, embeddings: Artifact, score: Artifact, directory: Path
) -> dict[str, int | float]:
    """Gather what a finished score stage of everything has; returns its sizes and its cost.

    Memory: all labels, and the embeddings of both sides.
    """
    kind, seed = teacher_class(config.teacher.name), config.seed
    rows = {"candidate": "candidates", "target": target_side(corpus)}
    vectors = {side: VectorParts(embeddings, group) for side, group in rows.items()}
    num_candidates = len(vectors["candidate"])
    num_targets = len(vectors["target"]) if kind.pairwise else 1
    table = read_table(score.path("labels"))
    labels = np.full((num_candidates, num_targets), np.nan, np.float32)
    labels[table["candidate"].to_numpy(), table["target"].to_numpy()] = table["score"].to_numpy()
    hashes, strata = {}, {}
    for side, group in rows.items():
        name = "candidate" if group == "candidates" else side
        hashes[side] = id_hashes(TableParts(corpus, group), seed, name)
        strata[side], _ = clusters_of(vectors[side], hashes[side], config.sample.num_strata, seed)
    few = slice(None) if kind.pairwise else slice(0, 1)
    targets = vectors["target"].all() if kind.pairwise else np.empty((0, vectors["candidate"].dim))
    StudyData(
        vectors["candidate"].all(),
        np.asarray(targets, np.float32),
        labels,
        hashes["candidate"],
        hashes["target"][few],
        strata["candidate"],
        strata["target"][few],
    ).save(directory)
    usage = score.manifest["usage"]
    return {
        "candidates": num_candidates,
        "targets": num_targets,
        "full_teacher_cpu_s": float(usage.get("cpu_seconds", 0.0)),
        "prepared_cpu_s": float(usage.get("prepared_cpu_seconds", 0.0)),
    }
