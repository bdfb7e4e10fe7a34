"""Compiling works where nothing can be written."""

from __future__ import annotations

import numba
import pytest

from engine.kernels.compiled import compiled


def test_compiles_without_a_cache_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def njit(**options: bool) -> object:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(numba, "njit", njit)

    @compiled()
    def double(x: int) -> int:
        return 2 * x

    assert double(2) == 4
