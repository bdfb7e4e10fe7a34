"""The command line that all jobs share: a config file or a finished run, overrides, exit codes.

    0 done        1 internal error        2 bad input or settings

The last line on stdout is one JSON object; everything else goes to stderr. Errors, logs and
tracebacks can quote a corpus or a model, so they are made fit for a terminal first.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import Config, load_config, yaml_value
from engine.errors import EngineError, SettingsError
from engine.progress import printable
from engine.storage import is_remote

__all__ = ["Arguments", "RunArguments", "main", "main_of_run"]

_MAX_ERROR = 4000  # characters: an id or a cell can have millions
_SETTINGS_HELP = """\
Any setting of the config can be given as --section.key VALUE, VALUE read as YAML:
  --corpus.path my.parquet  --target.path gsm8k.jsonl  --teacher.name delift_se
  --selection.budget 0.1    --sample.fraction 0.02     --teacher.execution.max_actors 1
All settings with their meaning: engine/config.py.
"""


@dataclass(frozen=True)
class Arguments:
    """A parsed command line; `values` are the job's own flags, None where not given."""

    config: Config
    run_dir: str | None
    until: str | None
    overwrite: bool
    values: dict[str, str | None]


@dataclass(frozen=True)
class RunArguments:
    """A parsed command line of a job on a finished run.

    Attributes:
        run_dir: the run.
        values: the job's own flags, by name.
        overrides: settings by dotted name, their values read as YAML.
    """

    run_dir: str
    values: dict[str, Any]
    overrides: dict[str, Any]
    overwrite: bool


def main(
    description: str,
    job: Callable[[Arguments], dict[str, Any]],
    argv: Sequence[str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> int:
    """Parse, run the job, print its result as one JSON line; returns the exit code.

    `flags` are the job's own, optional, with their help.
    """
    return _run(lambda: job(_parse(description, argv, flags or {})))


def main_of_run(
    description: str,
    flags: Mapping[str, str],
    job: Callable[[RunArguments], dict[str, Any]],
    argv: Sequence[str] | None = None,
) -> int:
    """As `main`, for a job on a finished run; `flags` are its own, required, with their help."""
    return _run(lambda: job(_parse_of_run(description, flags, argv)))


def _run(job: Callable[[], dict[str, Any]]) -> int:
    # libraries announce themselves through these; progress on stderr is ours
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Ray warns of each actor pool that restarts its actors, which is what we want of it
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    try:
        result = job()
    except EngineError as error:
        sys.stderr.write(f"error: {_one_line(error)}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on where this one stopped\n")
        return 130
    except Exception:
        sys.stderr.write(printable(traceback.format_exc()))
        return 1
    # JSON spells out all that acts on a terminal but DEL
    sys.stdout.write(json.dumps(result, allow_nan=False).replace("\x7f", "\\u007f") + "\n")
    return 0


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _one_line(error: EngineError) -> str:
    """The sentence of an error: a line break in it would look like a message of its own."""
    text = " ".join(str(error).splitlines())
    cut = f" ... ({len(text):,} characters)" if len(text) > _MAX_ERROR else ""
    return printable(text[:_MAX_ERROR]) + cut


def _parse_of_run(
    description: str, flags: Mapping[str, str], argv: Sequence[str] | None
) -> RunArguments:
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--run-dir", required=True, help="a finished run")
    for name, text in flags.items():
        parser.add_argument(f"--{name}", required=True, help=text)
    parser.add_argument(
        "--overwrite", action="store_true", help="redo what was made with other settings"
    )
    known, rest = parser.parse_known_args(argv)
    if not is_remote(known.run_dir) and not Path(known.run_dir).is_dir():
        raise SettingsError(f"no such run directory: {known.run_dir}")
    values = {name: getattr(known, name) for name in flags}
    overrides = {name: yaml_value(text) for name, text in _overrides(rest).items()}
    return RunArguments(known.run_dir, values, overrides, known.overwrite)


def _parse(description: str, argv: Sequence[str] | None, flags: Mapping[str, str]) -> Arguments:
    parser = argparse.ArgumentParser(
        description=description,
        epilog=_SETTINGS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, type=Path, help="YAML file with the settings")
    parser.add_argument("--run-dir", help="where the artifacts go (config: run_dir)")
    parser.add_argument("--until", metavar="STAGE", help="stop after this stage")
    parser.add_argument(
        "--overwrite", action="store_true", help="redo what was made with other settings"
    )
    for name, text in flags.items():
        parser.add_argument(f"--{name}", help=text)
    known, rest = parser.parse_known_args(argv)
    config = load_config(known.config, _overrides(rest))
    values = {name: getattr(known, name.replace("-", "_")) for name in flags}
    return Arguments(config, known.run_dir, known.until, known.overwrite, values)


def _overrides(rest: Sequence[str]) -> dict[str, str]:
    """`--section.key value` and `--section.key=value` pairs."""
    overrides: dict[str, str] = {}
    words = list(rest)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise SettingsError(f"unexpected argument {word!r}; settings are --section.key VALUE")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not words:
                raise SettingsError(f"--{name} needs a value")
            value = words.pop(0)
        overrides[name] = value
    return overrides
