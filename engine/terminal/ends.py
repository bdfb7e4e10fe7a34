"""How a job ends before its time: by Ctrl-C (KeyboardInterrupt) or by SIGTERM (Terminated).

Both unwind like any error, so that locks are freed and a Ray that the job started is shut down.
Libraries put handlers of their own in the place of ours: `own_handlers` puts ours back.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

__all__ = ["Terminated", "own_handlers", "terminable"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(BaseException):
    """The process was told to end by SIGTERM."""


@contextmanager
def terminable() -> Iterator[None]:
    """Have SIGTERM raise Terminated in the main thread; elsewhere nothing changes."""
    with own_handlers():
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _terminate)
        yield


@contextmanager
def own_handlers() -> Iterator[None]:
    """Put the handlers of Ctrl-C and SIGTERM back afterwards."""
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in _SIGNALS} if is_main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated
