"""Kernels and settings that the tests of selection share, and when two selections are the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.selection.select import Selection

SUBMODULAR = [
    ("facility_location", {}),
    ("facility_location_mutual_information", {"form": 1, "eta": 0.5}),
    ("facility_location_mutual_information", {"form": 2, "eta": 0.5}),
    ("facility_location_conditional_gain", {"nu": 0.5}),
    ("graph_cut", {"trade_off": 0.5}),
]


def random_kernel(rows: int, columns: int, seed: int, levels: int | None = None) -> np.ndarray:
    """Values in [0, 1); with `levels` integers below it, so that almost everything ties."""
    rng = np.random.default_rng(seed)
    if levels is not None:
        return rng.integers(0, levels, (rows, columns)).astype(np.float32)
    return rng.random((rows, columns), dtype=np.float32)


def symmetric_kernel(size: int, seed: int, levels: int | None = None) -> np.ndarray:
    """As `random_kernel`, square and symmetric."""
    kernel = random_kernel(size, size, seed, levels)
    return np.maximum(kernel, kernel.T)


def with_arrays(objective: str, settings: dict[str, Any], kernel: np.ndarray) -> dict[str, Any]:
    """The settings with the `query` or `owned` that the objective needs, of the kernel's kind."""
    others = random_kernel(len(kernel), 3, 77) * kernel.max()
    if (kernel == np.round(kernel)).all():
        others = np.round(others)
    if objective == "facility_location_conditional_gain":
        return {**settings, "owned": others}
    if settings.get("form") == 1:
        return {**settings, "query": others}
    return settings


def assert_same(a: Selection, b: Selection) -> None:
    assert a.ranking.tolist() == b.ranking.tolist()
    assert a.gains.tobytes() == b.gains.tobytes()
    assert a.rounds.tolist() == b.rounds.tolist()
    assert (a.zero_gain_from, a.objective_value) == (b.zero_gain_from, b.objective_value)
