"""Every exception that the engine raises on purpose.

    EngineError                 something the user can act on: one clear sentence, exit code 2
    ├── SettingsError           a setting is unknown, out of range or contradicts another
    ├── InputError              a corpus file is missing, unreadable or has no usable row
    ├── LeakError               candidates repeat rows that may not be trained on
    ├── FidelityError           the network cannot be trusted, and the settings say to stop then
    ├── ModelError              a model cannot be found, loaded or used for the job
    ├── RunDirectoryError       the run directory holds something else than what was asked for
    └── StorageError            a disk is full, a bucket cannot be read or written

An error says what, got, expected, next step. Anything else that escapes is a bug of ours and
exits with code 1 and its traceback.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "EngineError",
    "FidelityError",
    "InputError",
    "LeakError",
    "ModelError",
    "RunDirectoryError",
    "SettingsError",
    "StorageError",
]


class EngineError(Exception):
    """Base of all errors that a user can act on; its text is the whole message."""


class SettingsError(EngineError):
    """A setting is unknown, out of range or contradicts another setting."""


class InputError(EngineError):
    """A corpus file is missing, unreadable, or holds no usable row."""


class LeakError(EngineError):
    """Candidates repeat rows that may not be trained on, and that is not to pass.

    Attributes:
        found: what was found, as JSON: what the command prints all the same.
    """

    def __init__(self, text: str, found: Mapping[str, Any]) -> None:
        super().__init__(text)
        self.found = found


class FidelityError(EngineError):
    """The network cannot be trusted, and `gate.on_low_fidelity` is `fail`."""


class ModelError(EngineError):
    """A model cannot be found, loaded, or used for what was asked of it."""


class RunDirectoryError(EngineError):
    """The run directory holds work made with other settings, or is in use."""


class StorageError(EngineError):
    """A disk is full or gone, or object storage cannot be read or written."""
