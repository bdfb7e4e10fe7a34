"""What one answer of a teacher costs, and one vector, pair and step of the network: CPU seconds.

Everything is timed in this process on one thread, in chunks of random rows; a model is loaded and
warmed up before. The interval of a unit cost is a bootstrap over its chunks.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.config import EmbeddingConfig, NetworkConfig, TeacherConfig
from engine.example import Example
from engine.models.encoder import Encoder
from engine.planning.probe import network_work
from engine.selection.select import select
from engine.teachers.less import LessSettings
from engine.teachers.teacher import Teacher, load_teacher, teacher_class

__all__ = [
    "Prices",
    "UnitCost",
    "encoder_price",
    "network_prices",
    "selection_seconds",
    "teacher_prices",
]

CHUNK = 8  # rows timed together, and targets of a candidate
_DRAWS = 4_000


@dataclass(frozen=True)
class UnitCost:
    """CPU seconds of each timed chunk, and how many units it was."""

    seconds: tuple[float, ...]
    units: tuple[int, ...]

    @property
    def mean(self) -> float:
        return sum(self.seconds) / sum(self.units)

    def draws(self, chooser: np.random.Generator) -> np.ndarray:
        """Means (draws,) of bootstrap samples of the chunks."""
        chosen = chooser.integers(len(self.units), size=(_DRAWS, len(self.units)))
        return np.take(self.seconds, chosen).sum(1) / np.take(self.units, chosen).sum(1)


Prices = dict[str, UnitCost]


def measure(chunks: Iterator[tuple[int, Callable[[], object]]]) -> UnitCost:
    """Time each chunk of so many units."""
    seconds, units = [], []
    for count, work in chunks:
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
        units.append(count)
    return UnitCost(tuple(seconds), tuple(units))


def _pieces(rows: Sequence[Example]) -> Iterator[Sequence[Example]]:
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]


def encoder_price(config: EmbeddingConfig, rows: Sequence[Example]) -> UnitCost:
    """One vector of the network's encoder."""
    encoder = Encoder(config.model, config.max_tokens)
    encoder.encode([rows[0].text], 1)
    return measure(
        (len(piece), lambda piece=piece: encoder.encode([r.text for r in piece], config.batch_size))
        for piece in _pieces(rows)
    )


def teacher_prices(
    config: TeacherConfig, candidates: Sequence[Example], targets: Sequence[Example], pairs_of: int
) -> Prices:
    """Prices of a teacher by kind: `warmup` per row and epoch, `candidate`, `target`, `pair`.

    `pairs_of` candidates are scored with CHUNK targets each, as a scattered sample asks.
    """
    kind = teacher_class(config.name)
    prices: Prices = {}
    with tempfile.TemporaryDirectory() as folder:
        prepared = None
        if kind.preparation_share(config):
            prepared = Path(folder) / "prepared"
            prices["warmup"] = _warmup(config, candidates[:CHUNK], prepared)
        teacher = load_teacher(config, 0, prepared)
        features = {}
        for side, rows_of in (("candidate", candidates), ("target", targets)):
            if side in kind.feature_sides and (kind.pairwise or side == "candidate"):
                teacher.features(side, rows_of[:1])  # loads the model
                prices[side] = measure(
                    (len(piece), lambda piece=piece, side=side: teacher.features(side, piece))
                    for piece in _pieces(rows_of)
                )
                features[side] = teacher.features(side, rows_of[:CHUNK]).values
        if kind.pairwise:
            prices["pair"] = measure(_pairs(teacher, features, candidates[:pairs_of], targets))
    return prices


def _warmup(config: TeacherConfig, rows: Sequence[Example], path: Path) -> UnitCost:
    """Per row and epoch: the difference of two warm-ups, since each loads the model."""
    kind, times = teacher_class(config.name), []
    for some in (rows[:1], rows):
        started = time.process_time()
        kind.prepare(config, 0, some, path)
        times.append(time.process_time() - started)
    epochs = config.own(LessSettings).warmup_epochs
    return UnitCost((times[1] - times[0],), ((len(rows) - 1) * epochs,))


def _pairs(
    teacher: Teacher, features: dict[str, np.ndarray], candidates: Sequence[Example],
    targets: Sequence[Example],
) -> Iterator[tuple[int, Callable[[], object]]]:  # fmt: skip
    asked = targets[:CHUNK]
    of_targets = features.get("target", features.get("candidate"))
    for number, candidate in enumerate(candidates):
        mine = features["candidate"][number % CHUNK] if "candidate" in features else None
        yield (
            len(asked),
            lambda candidate=candidate, mine=mine: teacher.score(
                candidate, mine, asked, None if of_targets is None else of_targets
            ),
        )


def network_prices(config: NetworkConfig, dim: int) -> Prices:
    """One step of the fit, and one pair predicted, from random data of the right shape."""
    work = network_work(config, dim)
    names = {"step": "step", "predicted": "pair"}
    return {name: measure(work[kind] for _ in range(5)) for name, kind in names.items()}


def selection_seconds(num_candidates: int, num_targets: int, budget: float) -> float:
    """CPU seconds of facility location over a random dense kernel of that size."""
    kernel = np.random.default_rng(0).random((num_targets, num_candidates), dtype=np.float32)
    select(kernel[:10, :100], budget=5)  # compiles
    started = time.process_time()
    select(kernel, budget=round(budget * num_candidates))
    return time.process_time() - started
