"""Probes: what one row costs each model, on the actor pools that the stages use.

Random rows of the corpus, in small pieces of work, as many at a time as the real stage would have.
A worker that has used up its time leaves the rest of its pieces.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.artifacts.files import atomic_path
from engine.artifacts.parts import Part
from engine.artifacts.rows import TableParts
from engine.artifacts.run_directory import Artifact
from engine.config import Config, EmbeddingConfig, Execution, NetworkConfig, TeacherConfig
from engine.influence.predict import predict_influence
from engine.kernels.arrays import FloatArray
from engine.models.encoder import Encoder
from engine.network.fit import fit_network
from engine.network.influence_network import InfluenceNetwork
from engine.runtime.executor import Executor, Partition, PartitionWorker
from engine.selection.select import select
from engine.stages.embed import ReadingWorker
from engine.students.kernel_ridge import KernelRidge
from engine.teachers.teacher import Side, load_teacher, teacher_class

__all__ = [
    "PIECE",
    "REGRESSION_ROWS",
    "Price",
    "network_work",
    "probe_encoder",
    "probe_network",
    "probe_preparation",
    "probe_reading",
    "probe_teacher",
]

REGRESSION_ROWS = 256  # of the kernel regression that is probed
PIECE = 8  # rows of a piece of work, and targets of a candidate
_DRAWS = 2_000


@dataclass(frozen=True)
class Price:
    """Worker seconds of one unit, with a 95 % bootstrap interval over the pieces.

    Attributes:
        startup: seconds until the workers were ready, not part of the price.
        width: numbers in one answer, for the size of the store.
    """

    seconds: float
    low: float
    high: float
    units: int
    startup: float = 0.0
    width: int = 0

    @classmethod
    def of(cls, parts: Sequence[Part], startup: float = 0.0) -> Price:
        """From the records of the pieces that were done."""
        done = [part for part in parts if part.rows]
        assert done, "no piece was done"
        seconds = np.array([part.usage["seconds"] for part in done])
        rows = np.array([part.rows for part in done])
        chosen = np.random.default_rng(0).integers(len(done), size=(_DRAWS, len(done)))
        draws = seconds[chosen].sum(axis=1) / rows[chosen].sum(axis=1)
        low, high = np.quantile(draws, [0.025, 0.975])
        width = int(max(part.usage.get("width", 0) for part in done))
        mean = float(seconds.sum() / rows.sum())
        return cls(mean, float(low), float(high), int(rows.sum()), startup, width)


def _probe(
    executor: Executor,
    root: Path,
    pieces: Sequence[Mapping[str, Any]],
    worker: type[PartitionWorker],
    arguments: Mapping[str, Any],
    label: str,
    execution: Execution,
    threads: int,
) -> list[Part]:
    partitions = [
        Partition(f"{label.replace(' ', '-')}/{number:04d}", int(piece["units"]), dict(piece))
        for number, piece in enumerate(pieces)
    ]
    return executor.map(
        partitions,
        root,
        worker,
        arguments,
        label=label,
        unit="rows",
        execution=execution,
        threads=threads,
    )


def _startup(parts: Sequence[Part], started: float, actors: int) -> float:
    """Wall seconds that no piece of work accounts for."""
    working = sum(part.usage["seconds"] for part in parts) / max(1, min(actors, len(parts)))
    return max(0.0, time.perf_counter() - started - working)


class _Timed(PartitionWorker):
    """Does pieces until its time is up; the first is done in any case, and not counted twice."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        done, width = 0, 0
        if payload.get("first") or time.monotonic() < self._deadline:
            width = self.work(payload)
            done = int(payload["units"])
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"")
        return done, {"width": float(width)}

    def work(self, payload: Mapping[str, Any]) -> int:
        """Do a piece; returns the numbers in one answer."""
        raise NotImplementedError


# --- models --------------------------------------------------------------------------------------


class _EncoderProbe(_Timed):
    def __init__(
        self,
        settings: EmbeddingConfig,
        corpus: Artifact,
        rows: dict[str, list[int]],
        seconds: float,
    ) -> None:
        self._encoder = Encoder(settings.model, settings.max_tokens)
        self._batch_size = settings.batch_size
        self._texts = {
            side: [e.text for e in TableParts(corpus, side).examples(np.asarray(some))]
            for side, some in rows.items()
        }
        super().__init__(seconds)

    def work(self, payload: Mapping[str, Any]) -> int:
        texts = self._texts[payload["side"]][payload["start"] : payload["stop"]]
        return int(self._encoder.encode(texts, self._batch_size).vectors.shape[1])


def probe_encoder(
    executor: Executor,
    config: Config,
    corpus: Artifact,
    rows: Mapping[str, Sequence[int]],
    root: Path,
    actors: int,
    seconds: float,
) -> Price:
    """One row through the encoder; rows by side, each side by its share of the probe."""
    pieces = [
        {"side": side, "start": start, "stop": start + PIECE, "first": start == 0}
        | {"units": min(PIECE, len(some) - start)}
        for side, some in rows.items()
        for start in range(0, len(some), PIECE)
    ]
    settings, started = config.embedding, time.perf_counter()
    arguments = {"settings": settings, "corpus": corpus, "seconds": seconds}
    arguments["rows"] = {side: list(map(int, some)) for side, some in rows.items()}
    parts = _probe(
        executor,
        root,
        pieces,
        _EncoderProbe,
        arguments,
        "probe encoder",
        settings.execution,
        settings.model.threads,
    )
    return Price.of(parts, _startup(parts, started, actors))


class _ReadingProbe(_Timed):
    def __init__(
        self, teacher: TeacherConfig, corpus: Artifact, rows: list[int], seconds: float
    ) -> None:
        self._reader = ReadingWorker(teacher)
        self._examples = TableParts(corpus, "candidates").examples(np.asarray(rows))
        super().__init__(seconds)

    def work(self, payload: Mapping[str, Any]) -> int:
        some = self._examples[payload["start"] : payload["start"] + payload["units"]]
        return int(self._reader.read(some)[0].shape[1])


def probe_reading(
    executor: Executor,
    config: Config,
    corpus: Artifact,
    rows: Sequence[int],
    root: Path,
    actors: int,
    seconds: float,
) -> Price:
    """One row through the teacher's language model, as features of rows have it."""
    pieces = [
        {"start": start, "first": start == 0, "units": min(PIECE, len(rows) - start)}
        for start in range(0, len(rows), PIECE)
    ]
    teacher, started = config.teacher, time.perf_counter()
    arguments = {"teacher": teacher, "corpus": corpus, "rows": list(map(int, rows))}
    parts = _probe(
        executor,
        root,
        pieces,
        _ReadingProbe,
        {**arguments, "seconds": seconds},
        "probe reading",
        teacher.execution,
        teacher.model.threads,
    )
    return Price.of(parts, _startup(parts, started, actors))


class _TeacherProbe(_Timed):
    """Features of one side, or pairs of some candidates with PIECE targets each."""

    def __init__(
        self,
        settings: TeacherConfig,
        seed: int,
        corpus: Artifact,
        rows: dict[Side, list[int]],
        groups: dict[Side, str],
        prepared: str | None,
        seconds: float,
    ) -> None:
        self._teacher = load_teacher(settings, seed, None if prepared is None else Path(prepared))
        self._rows = {
            side: TableParts(corpus, groups[side]).examples(np.asarray(some))
            for side, some in rows.items()
        }
        self._features: dict[Side, FloatArray] = {}
        kind = teacher_class(settings.name)
        for side in kind.feature_sides:  # loads the model; pairs need the features
            few = self._rows[side][:PIECE] if kind.pairwise else self._rows[side][:1]
            self._features[side] = self._teacher.features(side, few).values.astype(np.float32)
        super().__init__(seconds)

    def work(self, payload: Mapping[str, Any]) -> int:
        if payload["kind"] != "pair":
            side: Side = payload["kind"]
            found = self._teacher.features(
                side, self._rows[side][payload["start"] : payload["start"] + payload["units"]]
            )
            return int(found.values.shape[1] * found.values.itemsize)
        number, targets = int(payload["start"]), self._rows["target"][:PIECE]
        mine = self._features.get("candidate")
        self._teacher.score(
            self._rows["candidate"][number],
            None if mine is None else mine[number % len(mine)],
            targets,
            self._features.get("target"),
        )
        return 4


def probe_teacher(
    executor: Executor,
    config: Config,
    corpus: Artifact,
    rows: Mapping[Side, Sequence[int]],
    groups: Mapping[Side, str],
    prepared: Path | None,
    root: Path,
    actors: int,
    seconds: float,
    label: str = "probe",
) -> dict[str, Price]:
    """Prices by kind of answer: `candidate`, `target`, `pair`, as far as the teacher has them."""
    settings, kind = config.teacher, teacher_class(config.teacher.name)
    pieces: list[dict[str, Any]] = []
    for side in kind.feature_sides:
        if kind.pairwise or side == "candidate":
            for start in range(0, len(rows[side]), PIECE):
                units = min(PIECE, len(rows[side]) - start)
                pieces.append({"kind": side, "start": start, "units": units})
    if kind.pairwise:
        units = min(PIECE, len(rows["target"]))
        pieces += [
            {"kind": "pair", "start": number, "units": units}
            for number in range(len(rows["candidate"]))
        ]
    # in turns, so that the time left at the end is short of every kind alike
    by_kind = {k: [p for p in pieces if p["kind"] == k] for k in ("target", "candidate", "pair")}
    most = max(map(len, by_kind.values()))
    mixed = [p[i] | {"first": i < 2} for i in range(most) for p in by_kind.values() if i < len(p)]
    started = time.perf_counter()
    arguments = {
        "settings": settings,
        "seed": config.seed,
        "corpus": corpus,
        "rows": {side: list(map(int, some)) for side, some in rows.items()},
        "groups": dict(groups),
        "prepared": None if prepared is None else str(prepared),
        "seconds": seconds,
    }
    parts = _probe(
        executor,
        root,
        mixed,
        _TeacherProbe,
        arguments,
        f"{label} {settings.name}",
        settings.execution,
        settings.model.threads,
    )
    startup = _startup(parts, started, actors)
    kinds = [piece["kind"] for piece in mixed]
    return {
        name: Price.of([p for p, k in zip(parts, kinds, strict=True) if k == name], startup)
        for name, some in by_kind.items()
        if some
    }


class _Preparation(PartitionWorker):
    def __init__(self, settings: TeacherConfig, seed: int, corpus: Artifact) -> None:
        self._settings, self._seed, self._corpus = settings, seed, corpus

    def write(self, payload: Mapping[str, Any], path: Path) -> tuple[int, dict[str, float]]:
        rows = np.asarray(payload["rows"])
        examples = TableParts(self._corpus, "candidates").examples(rows)
        teacher_class(self._settings.name).prepare(self._settings, self._seed, examples, path)
        return len(examples), {}


def probe_preparation(
    executor: Executor, config: Config, corpus: Artifact, rows: Sequence[int], root: Path
) -> tuple[Path, float]:
    """Prepare the teacher with a few rows: the file, and the seconds that one more row takes."""
    settings = config.teacher
    pieces = [{"rows": list(map(int, some)), "units": len(some)} for some in (rows[:2], rows)]
    parts = _probe(
        executor,
        root,
        pieces,
        _Preparation,
        {"settings": settings, "seed": config.seed, "corpus": corpus},
        "probe preparation",
        Execution(max_actors=1, num_gpus=settings.execution.num_gpus),
        settings.model.threads,
    )
    few, all_of = (part.usage["seconds"] for part in parts)
    return root / parts[-1].path, max(0.0, all_of - few) / max(1, len(rows) - 2)


# --- the network ---------------------------------------------------------------------------------


Work = dict[str, tuple[int, Callable[[], object]]]


def network_work(settings: NetworkConfig, dim: int) -> Work:
    """By kind how many units, and what does them, on random data of the right shape: `step` of the
    optimiser, `pair` predicted, `entry` of a kernel selected from, `cosine` of two rows,
    `regression` of a kernel on REGRESSION_ROWS rows.
    """
    chooser = np.random.default_rng(0)
    vectors = chooser.normal(size=(2_000, dim)).astype(np.float32) / dim**0.5
    pairs = chooser.integers(1_000, size=(2_048, 2))
    labels = chooser.normal(size=len(pairs)).astype(np.float32)
    few = settings.model_copy(update={"epochs": 2, "patience": None})
    held_in = len(pairs) * (1 - settings.validation_fraction)
    steps = few.members * few.epochs * -int(-held_in // settings.batch_size)
    network = InfluenceNetwork(dim, settings.hidden)
    kernel = chooser.random((500, 2_000), dtype=np.float32)
    few_values = chooser.normal(size=(REGRESSION_ROWS, 64))
    if network.factorises:
        predict_influence(network, vectors[:10], vectors[:10])  # compiles
    select(kernel[:10], 5)
    return {
        "step": (steps, lambda: fit_network(vectors, vectors, pairs, labels, few)),
        "pair": (10**6, lambda: predict_influence(network, vectors[:1_000], vectors[1_000:])),
        "entry": (kernel.size, lambda: select(kernel, 600)),
        "cosine": (4 * 10**6, lambda: vectors @ vectors.T),
        "regression": (1, lambda: KernelRidge.fit(vectors[:REGRESSION_ROWS], few_values)),
    }


def probe_network(settings: NetworkConfig, dim: int) -> dict[str, float]:
    """Seconds of one unit of each kind of `network_work`."""
    found = {}
    for name, (units, work) in network_work(settings, dim).items():
        started = time.perf_counter()
        work()
        found[name] = (time.perf_counter() - started) / units
    return found
