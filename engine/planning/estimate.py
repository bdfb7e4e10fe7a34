"""From prices and counts to hours, memory and disk of every stage: arithmetic alone.

Worker seconds add up over processes. Wall seconds are worker seconds over the actors that fit,
and the start of each pool; a fit and a selection are one process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from engine.config import Config
from engine.features.feature import sources_of
from engine.planning.machines import Machines
from engine.planning.probe import REGRESSION_ROWS, Price
from engine.planning.sizes import Asked, Sizes
from engine.stages.quality import config_of_gate
from engine.students.kernel_ridge import CHOOSING_ROWS
from engine.teachers.teacher import teacher_class

__all__ = ["Prices", "StageEstimate", "estimate", "totals"]

_GIB = 2**30
_RECORD_BYTES = 120  # of a labelled pair in the store and in labels.parquet, keys included


@dataclass(frozen=True)
class Prices:
    """What the probes found.

    Attributes:
        encoder: one row embedded.
        teacher: one answer by kind: `candidate`, `target`, `pair`.
        preparation: seconds of one row of the teacher's preparation, all epochs; 0 without.
        network: seconds of one optimiser `step`, `pair` predicted, kernel `entry` selected from,
            `cosine` of two rows, and a kernel `regression` on REGRESSION_ROWS rows.
        reading: one row read by the teacher's language model, if it is; with and without prompt.
        gate: as `teacher`, of the teacher of the quality gate, if it costs.
        ingest_seconds: of reading the corpus, measured whole.
        dim: D of the embeddings.
        model_bytes: of each model in memory, by name.
    """

    encoder: Price
    teacher: Mapping[str, Price]
    preparation: float
    network: Mapping[str, float]
    ingest_seconds: float
    dim: int
    model_bytes: Mapping[str, int]
    reading: Price | None = None
    gate: Mapping[str, Price] = field(default_factory=dict)


@dataclass(frozen=True)
class StageEstimate:
    """One stage.

    Attributes:
        rows: rows or pairs that it works on.
        calls: answers of the teacher.
        worker_seconds, low, high: in all processes together, with what the probes are unsure of.
        startup_seconds: of its pools, once.
        actors_threads: CPU threads of one actor; 0 for work of one process.
        memory_bytes: of one worker.
        disk_bytes: of what it writes.
        accelerates: whether a GPU would do it.
    """

    name: str
    rows: int
    calls: int
    worker_seconds: float
    low: float
    high: float
    startup_seconds: float
    actors_threads: int
    memory_bytes: int
    disk_bytes: int
    accelerates: bool = False

    def wall_seconds(self, machines: Machines, gpu_speedup: float | None) -> float | None:
        """On some machines; None where that takes a GPU whose speed nobody told."""
        if self.accelerates and machines.gpus:
            if gpu_speedup is None:
                return None
            return self.startup_seconds + self.worker_seconds / (gpu_speedup * machines.gpus)
        actors = max(1, machines.cpus // self.actors_threads) if self.actors_threads else 1
        return self.startup_seconds + self.worker_seconds / actors

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def estimate(config: Config, sizes: Sizes, asked: Asked, prices: Prices) -> list[StageEstimate]:
    """The stages of a run in their order, for what is asked of the teacher."""
    return list(_stages(config, sizes, asked, prices))


def _stages(config: Config, sizes: Sizes, asked: Asked, prices: Prices) -> Iterator[StageEstimate]:
    rows, startup = sizes.rows, prices.encoder.startup
    yield StageEstimate(
        "ingest", rows, 0, prices.ingest_seconds, prices.ingest_seconds, prices.ingest_seconds,
        0.0, 1, 2**28, 2 * sizes.text_bytes,
    )  # fmt: skip
    yield _embed(config, sizes, prices)
    yield _teacher(config, sizes, asked, prices)
    if not asked.everything:
        yield _fit(config, asked, prices, startup)
    pairs = sizes.candidates * asked.columns
    dense = pairs * 4 <= config.influence.max_dense_gib * _GIB
    kept = pairs if dense else asked.columns * min(config.influence.neighbours, sizes.candidates)
    predict, units = _predict(config, sizes, asked, prices)
    yield StageEstimate(
        "predict", pairs, 0, predict, predict, predict, startup, 1, 2**27 + units,
        units + kept * (4 if dense else 12) + sizes.candidates * 4,
    )  # fmt: skip
    if asked.gate is not None:
        yield from _gate(config, sizes, asked.gate, prices)
    if config.selection.second_look and not asked.everything:
        yield _second_look(config, sizes, asked, prices)
    # greedy, and for the explanations every row with all that is selected
    select = kept * prices.network["entry"]
    select += sizes.candidates * sizes.selected * prices.network["cosine"]
    yield StageEstimate(
        "select", sizes.candidates, 0, select, select, select, startup, 0,
        min(kept * 8, int(config.selection.max_kernel_gib * _GIB)),
        sizes.selected * 2 * sizes.text_bytes // max(rows, 1) + sizes.candidates * 100,
    )  # fmt: skip
    yield StageEstimate("report", sizes.selected, 0, 5.0, 5.0, 5.0, 0.0, 0, 2**28, 2**20)


def _teacher(config: Config, sizes: Sizes, asked: Asked, prices: Prices) -> StageEstimate:
    kinds = [(n, prices.teacher[kind]) for kind, n in asked.answers.items() if n]
    worker, low, high = (
        sum(n * getattr(price, name) for n, price in kinds) for name in ("seconds", "low", "high")
    )
    prepared = asked.prepared * prices.preparation
    startup = max((price.startup for _, price in kinds), default=0.0)
    pools = len(kinds) + bool(asked.prepared)
    stored = sum(n * price.width for n, price in kinds)
    return StageEstimate(
        "score", sum(asked.answers.values()), asked.calls,
        worker + prepared, low + prepared, high + prepared,
        startup * pools, config.teacher.model.threads, prices.model_bytes["teacher"],
        stored + asked.answers.get("pair", 0) * _RECORD_BYTES, True,
    )  # fmt: skip


def _gate(config: Config, sizes: Sizes, asked: Asked, prices: Prices) -> Iterator[StageEstimate]:
    """The gate's teacher, its student and what that predicts, as those of the main teacher."""
    own, memory = config_of_gate(config), {"teacher": prices.model_bytes.get("gate", 2**28)}
    prices = replace(prices, teacher=prices.gate, preparation=0.0, model_bytes=memory)
    startup = prices.encoder.startup
    stages = [_teacher(own, sizes, asked, prices)]
    if not asked.everything:
        stages.append(_fit(own, asked, prices, startup))
    seconds, written = _predict(own, sizes, asked, prices)
    stages.append(
        StageEstimate(
            "predict", sizes.candidates, 0, seconds, seconds, seconds, startup, 1,
            2**27 + written, written + sizes.candidates * 4,
        )
    )  # fmt: skip
    yield from (replace(stage, name=f"quality_{stage.name}") for stage in stages)


def _second_look(config: Config, sizes: Sizes, asked: Asked, prices: Prices) -> StageEstimate:
    """The shortlist, less what was asked about before: as if that were among it by chance."""
    found = asked.second_look
    kinds = [(n, prices.teacher[kind]) for kind, n in found.items() if n]
    worker, low, high = (
        sum(n * getattr(price, name) for n, price in kinds) for name in ("seconds", "low", "high")
    )
    unit = teacher_class(config.teacher.name).unit
    calls = sum(n for kind, n in found.items() if kind != "pair" or unit == "pair")
    startup = sum(price.startup for _, price in kinds)
    return StageEstimate(
        "second_look", sum(found.values()), calls, worker, low, high, startup,
        config.teacher.model.threads, prices.model_bytes["teacher"],
        int(sum(n * price.width for n, price in kinds)), True,
    )  # fmt: skip


def _embed(config: Config, sizes: Sizes, prices: Prices) -> StageEstimate:
    """The text of every row, and prompt and response alone, which together are as long again."""
    rows, encoder, reading = sizes.rows, prices.encoder, prices.reading
    sources = sources_of(config.features)
    texts = 1 + sum(source in ("prompt", "response") for source in sources) / 2
    worker, low, high = (
        rows * (texts * getattr(encoder, n) + (getattr(reading, n) if reading else 0.0))
        for n in ("seconds", "low", "high")
    )
    vectors = sum(source in ("text", "prompt", "response") for source in sources)
    disk = rows * 4 * (vectors * prices.dim + (reading.width if reading else 0))
    startup = encoder.startup + (reading.startup if reading else 0.0)
    return StageEstimate(
        "embed", rows, 0, worker, low, high, startup, config.embedding.model.threads,
        prices.model_bytes["encoder"], disk, True,
    )  # fmt: skip


def _width(config: Config, prices: Prices) -> int:
    """F, what a student reads of a row, about."""
    texts = sum(name in ("text", "prompt", "response") for name in config.features)
    reading = prices.reading.width if prices.reading and "states" in config.features else 0
    return texts * prices.dim + reading + 5


def _kinds(config: Config) -> set[str]:
    """Students that may be fitted; the network of itself only where pairs are paid for."""
    if config.student.name != "auto":
        return {config.student.name}
    by_pair = teacher_class(config.teacher.name).unit == "pair"
    return set(config.student.contenders or ({"kernel", "network"} if by_pair else {"kernel"}))


def _fit(config: Config, asked: Asked, prices: Prices, startup: float) -> StageEstimate:
    """A network may stop early: `patience` epochs after its best, which is found about as late.

    So twice the patience is expected, and all epochs are the most. Students of kernels cost the
    cube of the rows that they are chosen on, and what is left the square of the landmarks.
    """
    settings, student = config.network, config.student
    seconds = most = 0.0
    auto = student.name == "auto"
    rows = asked.learned if teacher_class(config.teacher.name).unit == "point" else asked.training
    product = prices.network["cosine"] / prices.dim
    epochs = settings.epochs
    expected = epochs if settings.patience is None else min(epochs, 2 * settings.patience)
    if _kinds(config) - {"network", "vector_network"}:
        once = prices.network["regression"] * (min(rows, CHOOSING_ROWS) / REGRESSION_ROWS) ** 3
        once += rows * min(rows, student.max_landmarks) ** 2 * product
        seconds += once * (2 * student.folds + 4 if auto else 3)
        most += 3 * seconds
    if "network" in _kinds(config):
        per_epoch = -int(-asked.training // settings.batch_size)
        fits = 4 if auto else 1  # raw, clipped and ranked labels, then the one that is chosen
        step = fits * settings.members * per_epoch * prices.network["step"]
        seconds, most = seconds + expected * step, most + epochs * step
    if "vector_network" in _kinds(config):  # forward and twice as much backward; V is about F
        fits = 3 if auto else 2  # of the contest, the one that is chosen, the audit's on few rows
        once = fits * rows * 3 * _width(config, prices) * (2 * student.vector_units) * product
        seconds, most = seconds + expected * once, most + epochs * once
    disk = 4 * _width(config, prices) * (min(rows, student.max_landmarks) + sum(settings.hidden))
    return StageEstimate(
        "fit", asked.training, 0, seconds, 0.0, most, 2 * startup, 0, 2**29, disk
    )  # fmt: skip


def _predict(config: Config, sizes: Sizes, asked: Asked, prices: Prices) -> tuple[float, int]:
    """Worker seconds, and bytes of what is written of each row: units, or factors."""
    if asked.everything:
        return 0.0, 0
    pairs = sizes.candidates * asked.columns
    if _kinds(config) == {"network"}:
        # int32: hidden units and two linear ones of every row
        return pairs * prices.network["pair"], sizes.rows * (sum(config.network.hidden) + 2) * 4
    landmarks = min(asked.learned, config.student.max_landmarks)
    rank = min(asked.learned, 1024)
    product = prices.network["cosine"] / prices.dim
    work = sizes.rows * landmarks * (_width(config, prices) + rank) + 2 * pairs * rank
    return work * product, sizes.rows * rank * 4


def totals(stages: Sequence[StageEstimate]) -> dict[str, float]:
    """Sums over stages, and the largest memory of a worker."""
    return {
        "calls": sum(stage.calls for stage in stages),
        "worker_seconds": sum(stage.worker_seconds for stage in stages),
        "low": sum(stage.low for stage in stages),
        "high": sum(stage.high for stage in stages),
        "memory_bytes": max(stage.memory_bytes for stage in stages),
        "disk_bytes": sum(stage.disk_bytes for stage in stages),
    }
