"""From prices and counts to hours, memory and disk of every stage: arithmetic alone.

Worker seconds add up over processes. Wall seconds are worker seconds over the actors that fit,
and the start of each pool; a fit and a selection are one process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.config import Config
from engine.planning.machines import Machines
from engine.planning.probe import Price
from engine.planning.sizes import Asked, Sizes

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
        network: seconds of one optimiser `step`, `pair` predicted, kernel `entry` selected from
            and `cosine` of two rows.
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
    encoder = prices.encoder
    yield StageEstimate(
        "embed", rows, 0, rows * encoder.seconds, rows * encoder.low, rows * encoder.high,
        encoder.startup, config.embedding.model.threads, prices.model_bytes["encoder"],
        rows * prices.dim * 4, True,
    )  # fmt: skip
    yield _teacher(config, sizes, asked, prices)
    if not asked.everything:
        yield _fit(config, asked, prices, startup)
    pairs = sizes.candidates * asked.columns
    dense = pairs * 4 <= config.influence.max_dense_gib * _GIB
    kept = pairs if dense else asked.columns * min(config.influence.neighbours, sizes.candidates)
    predict = 0.0 if asked.everything else pairs * prices.network["pair"]
    # int32: hidden units and two linear ones of every row
    units = 0 if asked.everything else rows * (sum(config.network.hidden) + 2) * 4
    yield StageEstimate(
        "predict", pairs, 0, predict, predict, predict, startup, 1, 2**27 + units,
        units + kept * (4 if dense else 12) + sizes.candidates * 4,
    )  # fmt: skip
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


def _fit(config: Config, asked: Asked, prices: Prices, startup: float) -> StageEstimate:
    """Early stopping ends a member: it has `patience` epochs after its best, found about as late.

    So twice the patience is expected, and all epochs are the most.
    """
    settings = config.network
    per_epoch = -int(-asked.training * (1 - settings.validation_fraction) // settings.batch_size)
    epochs = settings.epochs
    expected = epochs if settings.patience is None else min(epochs, 2 * settings.patience)
    seconds, most = (
        n * settings.members * per_epoch * prices.network["step"] for n in (expected, epochs)
    )
    return StageEstimate(
        "fit", asked.training, 0, seconds, 0.0, most, 2 * startup, 0, 2**29,
        4 * (2 * prices.dim + 1) * sum(settings.hidden),
    )  # fmt: skip


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
