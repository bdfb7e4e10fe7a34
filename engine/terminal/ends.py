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

__all__ = ["Terminated", "own_handlers", "terminable", "undisturbed"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AGAIN_S = 2.0
_SENDING = threading.RLock()  # held while no SIGTERM may be sent again


class Terminated(BaseException):
    """The process was told to end by SIGTERM."""


@contextmanager
def terminable() -> Iterator[None]:
    """Have SIGTERM raise Terminated in the main thread; elsewhere nothing changes.

    Libraries swallow what is raised in their callbacks, and SIGTERM is sent only once: it is raised
    again every two seconds until the block has ended.
    """
    main, asked, ended = threading.main_thread(), threading.Event(), threading.Event()

    def again() -> None:
        while not ended.wait(_AGAIN_S):
            with _SENDING:  # never after the end, when a handler may be there that kills
                if not ended.is_set():
                    signal.pthread_kill(main.ident or 0, signal.SIGTERM)

    def terminate(number: int, frame: FrameType | None) -> None:
        if ended.is_set():
            return
        if not asked.is_set():
            asked.set()
            threading.Thread(target=again, daemon=True).start()
        raise Terminated

    with own_handlers():
        if threading.current_thread() is main:
            signal.signal(signal.SIGTERM, terminate)
        try:
            yield
        finally:
            ended.set()
            with _SENDING:
                pass


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let neither signal interrupt the block: what is shut down there is shut down whole.

    Nor is SIGTERM sent again meanwhile: Ray, while it shuts down, has it kill the process.
    """
    with _SENDING, own_handlers():
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN)
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
