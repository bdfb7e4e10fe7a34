"""Which executor a job gets: the one that was given, or that of its settings, for its duration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

from engine.config import Config
from engine.errors import SettingsError
from engine.runtime.executor import Executor
from engine.runtime.local import LocalExecutor

__all__ = ["ExecutorChoice", "opened"]

ExecutorChoice: TypeAlias = Executor | Literal["ray", "local"] | None


@contextmanager
def opened(config: Config, choice: ExecutorChoice = None) -> Iterator[Executor]:
    """An executor: `choice`, else that of `config.execution`. Ray is started or joined only where
    it is asked for, and left or stopped afterwards.
    """
    if isinstance(choice, Executor):
        yield choice
    elif (name := choice or config.execution) == "local":
        yield LocalExecutor()
    else:
        if name != "ray":
            raise SettingsError(f"no executor is called {name!r}: use ray or local")
        from engine.runtime.ray_cluster import connected

        with connected(config.ray) as executor:
            yield executor
