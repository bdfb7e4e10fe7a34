"""How this package compiles its loops: `compiled`, numba's njit with the options of the house.

No fast-math: LLVM then keeps every sum in the order in which it is written, which is why results
are the same bits for any tile, block and thread count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["compiled"]

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(*, parallel: bool = False) -> Callable[[Function], Function]:
    """Compile a function on its first call and keep the machine code on disk.

    The cache lies in `__pycache__` beside the source, or in the user's cache directory when the
    installation is read-only (NUMBA_CACHE_DIR overrides both); where neither can be written the
    function compiles anew in each process. The type of the function is kept for the type checker.
    """

    def compile_(function: Function) -> Function:
        try:
            return cast(Function, numba.njit(cache=True, parallel=parallel)(function))
        except RuntimeError:  # numba found no directory that it may write to
            return cast(Function, numba.njit(parallel=parallel)(function))

    return compile_
