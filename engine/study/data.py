"""What all trials of a study share: embeddings, all labels, and the order in which rows are drawn.

Written once as .npy files, which every trial maps: a node holds them once, whatever number of
trials run on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from engine.artifacts.files import load_array, read_table, save_array
from engine.artifacts.rows import TableParts, VectorParts, id_hashes, target_side
from engine.artifacts.run_directory import Artifact
from engine.audit.audit import vectors_of
from engine.config import Config, FeatureName
from engine.features.clusters import clusters_of
from engine.features.feature import Source, assembled, sources_of
from engine.features.rows import group_of
from engine.kernels.arrays import FloatArray
from engine.teachers.designs import Side
from engine.teachers.teacher import teacher_class

__all__ = ["StudyData", "write_study_data"]

SOURCES: tuple[Source, ...] = get_args(Source)
_ARRAYS = (
    "labels",
    "candidate_hashes",
    "target_hashes",
    "candidate_strata",
    "target_strata",
    "candidate_vectors",
    "target_vectors",
)


@dataclass(frozen=True)
class StudyData:
    """M candidates, N targets (1 for a teacher that scores rows alone), and all M x N labels.

    Attributes:
        labels: [c, t], (M, N) float32; NaN where the teacher could not answer.
        candidate_sources, target_sources: what features are made of, (M, .) and (N, .) float32 by
            name, the text's embedding among them; no target sources without targets.
        candidate_hashes, target_hashes: what rows are drawn by, (M,) and (N,) uint64.
        candidate_strata, target_strata: cluster of each row, for the stratified design.
        candidate_vectors, target_vectors: the teacher's vectors, (M, V) and (N, V), of one whose
            labels are their cosine; NaN where it has none.
    """

    labels: FloatArray
    candidate_sources: Mapping[Source, FloatArray]
    target_sources: Mapping[Source, FloatArray]
    candidate_hashes: NDArray[np.uint64]
    target_hashes: NDArray[np.uint64]
    candidate_strata: NDArray[np.int64]
    target_strata: NDArray[np.int64]
    candidate_vectors: FloatArray | None = None
    target_vectors: FloatArray | None = None

    @property
    def pairwise(self) -> bool:
        return bool(self.target_sources)

    @property
    def candidates(self) -> FloatArray:
        """Embeddings of the candidates' texts, (M, D)."""
        return self.candidate_sources["text"]

    @property
    def targets(self) -> FloatArray:
        """Embeddings of the targets' texts, (N, D)."""
        return self.target_sources["text"]

    def features(self, names: Sequence[FeatureName]) -> tuple[FloatArray, FloatArray | None]:
        """What a student reads: (M, F) and (N, F) float32, None without targets."""
        sides = [
            assembled(names, {name: np.asarray(values) for name, values in sources.items()})
            for sources in (self.candidate_sources, self.target_sources)
            if sources
        ]
        return sides[0], sides[1] if self.pairwise else None

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
        for side in ("candidate", "target"):
            for source, values in getattr(self, f"{side}_sources").items():
                save_array(directory / f"{side}-{source}.npy", values)
        for name in _ARRAYS:
            if getattr(self, name) is not None:
                save_array(directory / f"{name}.npy", getattr(self, name))

    @classmethod
    def open(cls, directory: Path) -> StudyData:
        """Map what `save` wrote."""

        def sources(side: str) -> dict[Source, FloatArray]:
            found = {name: directory / f"{side}-{name}.npy" for name in SOURCES}
            return {
                name: load_array(path, mmap_mode="r")
                for name, path in found.items()
                if path.exists()
            }

        found = {name: directory / f"{name}.npy" for name in _ARRAYS}
        return cls(
            candidate_sources=sources("candidate"),
            target_sources=sources("target"),
            **{name: load_array(p, mmap_mode="r") for name, p in found.items() if p.exists()},
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
    wanted = sources_of(embeddings.counts["features"])
    sources = {
        side: {s: VectorParts(embeddings, group_of(group, s)).all() for s in wanted}
        for side, group in rows.items()
    }
    if not kind.pairwise:
        sources["target"] = {}
    given: dict[str, FloatArray | None] = {}
    if "vectors-candidate" in score.manifest["parts"]:
        sizes = {"candidate": num_candidates, "target": num_targets}
        given = {f"{side}_vectors": _all_vectors(score, side, n) for side, n in sizes.items()}
    StudyData(
        labels,
        sources["candidate"],
        sources["target"],
        hashes["candidate"],
        hashes["target"][few],
        strata["candidate"],
        strata["target"][few],
        **given,
    ).save(directory)
    usage = score.manifest["usage"]
    return {
        "candidates": num_candidates,
        "targets": num_targets,
        "full_teacher_cpu_s": float(usage.get("cpu_seconds", 0.0)),
        "prepared_cpu_s": float(usage.get("prepared_cpu_seconds", 0.0)),
    }


def _all_vectors(score: Artifact, side: str, count: int) -> FloatArray:
    """The teacher's vectors of all rows of a side, (count, V); NaN where it has none."""
    known = vectors_of(score, side)
    width = len(next(iter(known.values())))
    vectors = np.full((count, width), np.nan, np.float32)
    for row, vector in known.items():
        vectors[row] = vector
    return vectors
