"""Kernels leave the process's thread counts as they found them."""

from __future__ import annotations

import numba
import pytest
import torch

from engine.errors import SettingsError
from engine.kernels.pairwise import pairwise_block
from engine.kernels.threads import kernel_threads
from tests.kernels.forms import random_sides


def test_thread_counts_are_restored() -> None:
    numba_before, torch_before = numba.get_num_threads(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pairwise_block(*random_sides(50, 50, 4))  # numba's OpenMP threads used to raise torch's
        assert torch.get_num_threads() == 1
        with pytest.raises(ZeroDivisionError), kernel_threads(1) as count:
            assert count == numba.get_num_threads() == 1
            raise ZeroDivisionError
        assert numba.get_num_threads() == numba_before
    finally:
        torch.set_num_threads(torch_before)


def test_more_threads_than_there_are_is_cut() -> None:
    with kernel_threads(10_000) as count:
        assert count == numba.config.NUMBA_NUM_THREADS


def test_no_threads_are_refused() -> None:
    with pytest.raises(SettingsError, match="at least 1"), kernel_threads(0):
        pass
