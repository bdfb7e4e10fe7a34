"""`kernel_threads`: run compiled loops on so many threads and leave torch's thread count alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numba
import torch

from engine.errors import SettingsError

__all__ = ["kernel_threads"]


@contextmanager
def kernel_threads(threads: int | None = None) -> Iterator[int]:
    """Run numba's parallel loops inside on `threads` threads; yields how many they are.

    None keeps numba's own setting (all cores, or NUMBA_NUM_THREADS). More than numba was started
    with is cut to that: no result depends on it. numba's OpenMP layer raises torch's thread count
    in the same process without a word, so both counts are put back on the way out.

    Raises SettingsError for a count below 1.
    """
    if threads is not None and threads < 1:
        raise SettingsError(f"threads must be at least 1, got {threads}")
    torch_before = torch.get_num_threads()  # first: to ask numba starts its threads
    numba_before = numba.get_num_threads()
    most: int = numba.config.NUMBA_NUM_THREADS
    count = numba_before if threads is None else min(threads, most)
    numba.set_num_threads(count)
    try:
        yield count
    finally:
        numba.set_num_threads(numba_before)
        torch.set_num_threads(torch_before)
