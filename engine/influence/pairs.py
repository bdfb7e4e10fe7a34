"""All pairs of a run, for the workers of the predict stage, from the files of its artifacts.

UnitWorker   writes the units of a block of rows (`engine.kernels.units`)
UnitFiles    where they lie; workers map them, so a node holds each once, however many it runs
Pairs        what workers ask: a block of S, the best candidates of some targets, all means

UnitPairs    answers from units; DeepPairs from features, pair by pair, for a network that does
             not factorise and has none
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from engine import storage
from engine.artifacts.files import atomic_path, load_array, save_array
from engine.artifacts.rows import target_side
from engine.artifacts.run_directory import Artifact
from engine.config import FeatureName
from engine.features.rows import FeatureRows
from engine.influence.pools import Pools, PoolSearch
from engine.influence.predict import mean_influence, predict_influence, top_candidates
from engine.kernels.arrays import FloatArray
from engine.kernels.means import MeanSums
from engine.kernels.pairwise import pairwise_block
from engine.kernels.top import RunningTop, Top
from engine.kernels.units import Units, norm_bound
from engine.network.influence_network import InfluenceNetwork
from engine.runtime.executor import PartitionWorker

__all__ = [
    "UNIT_ROWS",
    "DeepPairs",
    "Pairs",
    "UnitFiles",
    "UnitPairs",
    "UnitWorker",
    "load_pools",
    "norm_of",
    "save_pools",
]

UNIT_ROWS = 2**16  # rows of a file of units, a multiple of every block of rows: 27 MB of 102 units

Side = Literal["candidates", "targets", "owned"]


@dataclass(frozen=True)
class UnitFiles:
    """The files of units by side, `(path, rows)` in order, relative to `directory`; see `Units`."""

    directory: Path
    sides: Mapping[str, tuple[tuple[str, int], ...]]
    num_positive: int
    step: float

    def units(self, side: Side) -> list[Units]:
        """The units of a side, mapped: nothing is read yet."""
        return [
            Units(np.asarray(_mapped(self.directory / path)), rows, self.num_positive, self.step)
            for path, rows in self.sides.get(side, ())
        ]


def _mapped(path: Path) -> NDArray[np.int32]:
    # copy on write, since compiled code takes read-only arrays for another type
    tiles: NDArray[np.int32] = load_array(path, mmap_mode="c")
    return tiles


def norm_of(embeddings: Artifact, features: Sequence[FeatureName]) -> float:
    """The bound of the length of all features that the form of the network is made for."""
    groups = {"candidates", target_side(embeddings), "owned"} & embeddings.manifest["parts"].keys()
    sides = [FeatureRows(embeddings, group, features) for group in groups]
    return max(
        norm_bound(rows.block(start, min(start + UNIT_ROWS, len(rows))), threads=1)
        for rows in sides
        for start in range(0, len(rows), UNIT_ROWS)
    )


class UnitWorker(PartitionWorker):
    """Writes the units of a block of rows of one side."""

    def __init__(
        self, fit: Artifact, embeddings: Artifact, features: Sequence[FeatureName], norm: float
    ) -> None:
        self._form = InfluenceNetwork.load(fit.path("student")).factorise().fixed_point(norm)
        self._embeddings, self._features = embeddings, features

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        start, stop, side = payload["start"], payload["stop"], payload["side"]
        group = target_side(self._embeddings) if side == "targets" else side
        rows = FeatureRows(self._embeddings, group, self._features).block(start, stop)
        if side == "targets":
            units = self._form.of_targets(rows, threads=1)
        else:  # owned rows do for targets what candidates would
            units = self._form.of_candidates(rows, threads=1)
        save_array(path, units.tiles)
        return units.num_rows, {}


# --- what workers ask ----------------------------------------------------------------------------


class Pairs(ABC):
    """The influence of M candidates on N targets; S is [c, t]. One thread unless told otherwise."""

    @abstractmethod
    def block(self, start: int, stop: int) -> FloatArray:
        """S of candidates start..stop with all targets: (stop - start, N) float32."""

    @abstractmethod
    def top(self, start: int, stop: int, k: int) -> Top:
        """The k best candidates of targets start..stop."""

    @abstractmethod
    def best_owned(self, start: int, stop: int) -> FloatArray:
        """The most that any owned row does for each of the targets start..stop: (n,) float32."""

    @abstractmethod
    def means(self, subtasks: NDArray[np.int64], threads: int) -> FloatArray:
        """The best of each candidate's means over the sub-tasks of the targets: (M,) float32."""


class UnitPairs(Pairs):
    """From units in files, of a network of at most one hidden layer."""

    def __init__(self, files: UnitFiles, pools: Pools | None) -> None:
        self._candidates = files.units("candidates")
        self._targets = files.units("targets")
        self._owned = files.units("owned")
        self._search = None if pools is None else PoolSearch(pools, self._candidates)

    def block(self, start: int, stop: int) -> FloatArray:
        candidates = _rows(self._candidates, start, stop)
        num_targets = sum(part.num_rows for part in self._targets)
        influence = np.empty((stop - start, num_targets), dtype=np.float32)
        first = 0
        for part in self._targets:
            pairwise_block(
                candidates, part, out=influence[:, first : first + part.num_rows], threads=1
            )
            first += part.num_rows
        return influence

    def top(self, start: int, stop: int, k: int) -> Top:
        targets = _rows(self._targets, start, stop)
        if self._search is not None:
            return self._search.top(targets, k, threads=1)
        return _top(targets, self._candidates, k)

    def best_owned(self, start: int, stop: int) -> FloatArray:
        return _top(_rows(self._targets, start, stop), self._owned, 1).influence[:, 0]

    def means(self, subtasks: NDArray[np.int64], threads: int) -> FloatArray:
        num_candidates = sum(part.num_rows for part in self._candidates)
        sums = MeanSums(num_candidates, len(subtasks), subtasks)
        sums.add(self._candidates, self._targets, threads=threads)
        best: FloatArray = sums.means(self._candidates[0].step).max(axis=1)
        return best


def _top(targets: Units, candidates: list[Units], k: int) -> Top:
    best = RunningTop(targets, k)
    for part in candidates:
        best.offer(part, threads=1)
    return best.top()


def _rows(parts: list[Units], start: int, stop: int) -> Units:
    """Rows start..stop, which lie in one part."""
    part, first = divmod(start, UNIT_ROWS)
    return parts[part].block(first, first + stop - start)


class DeepPairs(Pairs):
    """From features, pair by pair, of a network of several hidden layers."""

    def __init__(
        self, fit: Artifact, embeddings: Artifact, features: Sequence[FeatureName], num_targets: int
    ) -> None:
        self._network = InfluenceNetwork.load(fit.path("student"))
        self._candidates = FeatureRows(embeddings, "candidates", features)
        self._targets = FeatureRows(embeddings, target_side(embeddings), features)
        self._num_targets = num_targets
        self._embeddings, self._features = embeddings, features

    @functools.cached_property
    def _all_candidates(self) -> FloatArray:
        return self._candidates.all()

    @functools.cached_property
    def _all_owned(self) -> FloatArray:
        return FeatureRows(self._embeddings, "owned", self._features).all()

    @functools.cached_property
    def _all_targets(self) -> FloatArray:
        return self._targets.block(0, self._num_targets)

    def block(self, start: int, stop: int) -> FloatArray:
        candidates = self._candidates.block(start, stop)
        return predict_influence(self._network, candidates, self._all_targets, threads=1)

    def top(self, start: int, stop: int, k: int) -> Top:
        targets = self._targets.block(start, stop)
        top = top_candidates(self._network, self._all_candidates, targets, k, threads=1)
        return Top(top.ids, top.influence)

    def best_owned(self, start: int, stop: int) -> FloatArray:
        targets = self._targets.block(start, stop)
        return top_candidates(self._network, self._all_owned, targets, 1, threads=1).influence[:, 0]

    def means(self, subtasks: NDArray[np.int64], threads: int) -> FloatArray:
        means = mean_influence(
            self._network,
            self._all_candidates,
            self._all_targets,
            groups=subtasks,
            threads=threads,
        )
        best: FloatArray = means.max(axis=1)
        return best


# --- pools as a file -----------------------------------------------------------------------------


def save_pools(pools: Pools, path: Path) -> None:
    """Write pools as safetensors."""
    tensors: dict[str, NDArray[Any]] = {
        "probes": pools.probes,
        "centroids": pools.centroids,
        "ids": pools.ids,
        "starts": pools.starts,
        "recall": np.array([pools.recall]),
        "num_compared": np.array([pools.num_compared]),
    }
    with atomic_path(path) as temporary:
        safetensors.numpy.save_file(tensors, temporary)


def load_pools(path: Path) -> Pools:
    """What `save_pools` wrote."""
    tensors = safetensors.numpy.load_file(storage.fetch(path))
    return Pools(
        probes=tensors["probes"],
        centroids=tensors["centroids"],
        ids=tensors["ids"],
        starts=tensors["starts"],
        recall=float(tensors["recall"][0]),
        num_compared=int(tensors["num_compared"][0]),
    )
