"""The command line that all jobs share: a config file or a finished run, overrides, exit codes.

    0 done        1 internal error        2 bad input or settings
    130 ended by Ctrl-C                   143 ended by SIGTERM

The last line on stdout is one JSON object; everything else goes to stderr. Errors, logs and
tracebacks can quote a corpus or a model, so they are made fit for a terminal first.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from engine.commands.help_text import WIDTH, Help, help_of
from engine.config import Config, load_config, override, parse_config, yaml_value
from engine.config.setting_names import setting_names
from engine.errors import EngineError, LeakError, SettingsError
from engine.spelling import closest
from engine.storage import is_remote
from engine.terminal.called import as_called, called
from engine.terminal.ends import Terminated, terminable
from engine.terminal.progress import printable, say_error, speak

__all__ = ["Arguments", "RunArguments", "main", "main_alone", "main_of_run", "run_job"]

_MAX_ERROR = 4000  # characters: an id or a cell can have millions
_SETTINGS = """\
Every setting of the config can be given as --section.key VALUE, with VALUE
read as YAML:
  --corpus.path my.parquet     --teacher.name delift_se
  --selection.budget 0.1       --teacher.execution.max_actors 1
docs/settings.md has all of them with their meaning."""


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
    needs_config: bool = True,
) -> int:
    """Parse, run the job, print its result as one JSON line; returns the exit code.

    `flags` are the job's own, optional, as "name VALUE" with their help; `description` is its
    docstring: a sentence, commands, and whatever else there is to say. A job that needs no file of
    settings takes them from the command line alone where there is none.
    """
    return run_job(lambda: job(_parse(description, argv, _flags(flags or {}), needs_config)), argv)


def main_of_run(
    description: str,
    flags: Mapping[str, str],
    job: Callable[[RunArguments], dict[str, Any]],
    argv: Sequence[str] | None = None,
    settings: str = "",
) -> int:
    """As `main`, for a job on a finished run; `flags` are its own, required, with their help.

    `settings` says which settings it takes, and how; without it takes none.
    """
    return run_job(lambda: job(_parse_of_run(description, _flags(flags), argv, settings)), argv)


def main_alone(
    description: str, job: Callable[[], dict[str, Any]], argv: Sequence[str] | None = None
) -> int:
    """As `main`, for a job that takes neither settings nor a run."""

    def parsed() -> dict[str, Any]:
        parser = _parser(help_of(as_called(description), ""), "nothing", [], required=False)
        parser.parse_args(argv)
        return job()

    return run_job(parsed, argv)


def run_job(job: Callable[[], dict[str, Any]], argv: Sequence[str] | None) -> int:
    """Do what a command does, in the way of all: its errors are said, its result printed."""
    # libraries announce themselves through these; progress on stderr is ours
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Ray warns of each actor pool that restarts its actors, which is what we want of it
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    words = sys.argv[1:] if argv is None else argv
    # before anything is parsed, since the parser itself has errors to say
    quiet, json_logs = "--quiet" in words, "--json-logs" in words
    if quiet:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("DATASETS_VERBOSITY", "error")
    with speak(quiet=quiet, json_logs=json_logs):
        try:
            with terminable():
                result = job()
        except EngineError as error:
            said = _one_line(error)
            kind = type(error).__name__
            say_error(said, "error", text=f"error: {said}", kind=kind, exit_code=2)
            if isinstance(error, LeakError):
                _print(error.found)
            return 2
        except KeyboardInterrupt:
            said = "interrupted; the same command goes on where this one stopped"
            say_error(said, "interrupted", exit_code=130)
            return 130
        except Terminated:
            said = "stopped by SIGTERM; the same command goes on where this one stopped"
            say_error(said, "terminated", exit_code=143)
            return 143
        except Exception as error:
            told = traceback.format_exc()
            say_error(
                f"{type(error).__name__}: {error}"[:_MAX_ERROR],
                "internal_error",
                text=told.removesuffix("\n"),
                kind=type(error).__name__,
                exit_code=1,
                traceback=told,
            )
            return 1
    _print(result)
    return 0


def _print(result: Mapping[str, Any]) -> None:
    # JSON spells out all that acts on a terminal but DEL
    sys.stdout.write(json.dumps(result, allow_nan=False).replace("\x7f", "\\u007f") + "\n")


def _one_line(error: EngineError) -> str:
    """The sentence of an error: a line break in it would look like a message of its own."""
    text = " ".join(str(error).splitlines())
    cut = f" ... ({len(text):,} characters)" if len(text) > _MAX_ERROR else ""
    return printable(text[:_MAX_ERROR]) + cut


# --- parsing -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Flag:
    name: str
    value: str  # what stands for it in the help
    help: str

    @property
    def attribute(self) -> str:
        return self.name.replace("-", "_")


def _flags(told: Mapping[str, str]) -> list[_Flag]:
    names = ((name.partition(" "), text) for name, text in told.items())
    return [_Flag(name, value or name.upper(), text) for (name, _, value), text in names]


_SOURCES = {"config": "--config FILE", "run-dir": "--run-dir DIR", "nothing": ""}


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours: one sentence, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; {self.prog} --help tells what there is")


def _parser(text: Help, source: str, flags: Sequence[_Flag], required: bool) -> _Parser:
    """The flags of a job on a `source` (config, run-dir, nothing), the job's own first."""
    needed = [f"--{flag.name} {flag.value}" for flag in flags if required]
    prog = called()
    parser = _Parser(
        prog=prog,
        usage=text.usage(prog, _SOURCES[source], needed),
        description=text.description,
        epilog=text.epilog,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=24, width=WIDTH
        ),
        allow_abbrev=False,
        add_help=False,
    )
    own = parser.add_argument_group("flags of this job")
    shared = parser.add_argument_group("flags of all jobs")
    if source == "config":
        own.add_argument("--config", type=Path, metavar="FILE", help="YAML file with the settings")
        shared.add_argument(
            "--run-dir", metavar="DIR", help="where the artifacts go (setting run_dir)"
        )
    elif source == "run-dir":
        own.add_argument(
            "--run-dir", required=True, metavar="DIR", help="a finished run, also as s3://..."
        )
    for flag in flags:
        own.add_argument(f"--{flag.name}", required=required, metavar=flag.value, help=flag.help)
    if source == "config" and all(flag.name != "until" for flag in flags):
        own.add_argument("--until", help=argparse.SUPPRESS)  # so that a job can say it has none
    if source != "nothing":
        shared.add_argument(
            "--overwrite", action="store_true", help="redo what was made with other settings"
        )
    shared.add_argument("--quiet", action="store_true", help="say errors only")
    shared.add_argument(
        "--json-logs", action="store_true", help="say everything as JSON, one object a line"
    )
    shared.add_argument("-h", "--help", action="help", help="show this text")
    return parser


def _parse_of_run(
    description: str, flags: Sequence[_Flag], argv: Sequence[str] | None, settings: str
) -> RunArguments:
    parser = _parser(help_of(as_called(description), settings), "run-dir", flags, required=True)
    known, rest = parser.parse_known_args(argv)
    given = _overrides(
        rest, ["run-dir", *(flag.name for flag in flags)], takes_settings=bool(settings)
    )
    if not is_remote(known.run_dir) and not Path(known.run_dir).is_dir():
        raise SettingsError(f"no such run directory: {known.run_dir}")
    values = {flag.name: getattr(known, flag.attribute) for flag in flags}
    overrides = {name: yaml_value(text) for name, text in given.items()}
    return RunArguments(known.run_dir, values, overrides, known.overwrite)


def _parse(
    description: str, argv: Sequence[str] | None, flags: Sequence[_Flag], needs_config: bool
) -> Arguments:
    parser = _parser(help_of(as_called(description), _SETTINGS), "config", flags, required=False)
    known, rest = parser.parse_known_args(argv)
    if known.config is None and (needs_config or not rest):
        parser.error("the following arguments are required: --config")
    given = _overrides(rest, ["config", "run-dir", *(flag.name for flag in flags)])
    config = _from_words(given) if known.config is None else load_config(known.config, given)
    values = {flag.name: getattr(known, flag.attribute) for flag in flags}
    return Arguments(config, known.run_dir, known.until, known.overwrite, values)


def _from_words(given: Mapping[str, str]) -> Config:
    values: dict[str, Any] = {}
    for name, text in given.items():
        override(values, name, yaml_value(text))
    return parse_config(values)


def _overrides(
    rest: Sequence[str], flags: Sequence[str], takes_settings: bool = True
) -> dict[str, str]:
    """`--section.key value` and `--section.key=value` pairs, for a job with such flags."""
    overrides: dict[str, str] = {}
    words = list(rest)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise SettingsError(f"unexpected argument {word!r}; settings are --section.key VALUE")
        name, equals, value = word[2:].partition("=")
        is_setting = "." in name or name in Config.model_fields
        if not takes_settings and is_setting:
            raise SettingsError(f"--{name}: this job takes no settings")
        if not is_setting:
            raise SettingsError(_unknown_flag(name, flags, takes_settings))
        if not equals:
            if not words:
                raise SettingsError(f"--{name} needs a value")
            value = words.pop(0)
        overrides[name] = value
    return overrides


def _unknown_flag(name: str, flags: Sequence[str], takes_settings: bool) -> str:
    known = list(dict.fromkeys([*flags, "overwrite", "quiet", "json-logs", "help"]))
    settings = setting_names(Config) if takes_settings else []
    same = [setting for setting in settings if setting.rpartition(".")[2] == name]
    meant = closest(name, known) or (same[0] if len(same) == 1 else closest(name, settings))
    if meant:
        return f"unknown flag --{name}; did you mean --{meant}?"
    return f"unknown flag --{name}; known: {', '.join(f'--{flag}' for flag in known)}"
