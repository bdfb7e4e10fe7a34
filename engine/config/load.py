"""Settings from a YAML file, from nested mappings, from the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from engine.config.given import GivenConfig
from engine.config.run import Config
from engine.config.setting_names import explain
from engine.errors import SettingsError
from engine.score_files import column_names, is_there

__all__ = [
    "load_config",
    "override",
    "parse_config",
    "yaml_value",
]


def load_config(path: Path, overrides: Mapping[str, str] | None = None) -> Config:
    """Read a YAML file and lay dotted overrides over it, e.g. {"selection.budget": "0.1"}.

    An override's text is read as YAML, so `0.1`, `[a, b]` and `null` mean what they mean in the
    file. Raises SettingsError, in one sentence that names the setting, for a file that cannot be
    read, an unknown setting or a value out of range.
    """
    if not path.is_file():
        raise SettingsError(f"no such config file: {path}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{path} holds no settings: expected sections such as `corpus:`")
    for name, text in (overrides or {}).items():
        override(values, name, yaml_value(text))
    return parse_config(values, source=str(path))


def parse_config(values: Mapping[str, Any], source: str = "settings") -> Config:
    """Check settings given as nested mappings; raises SettingsError as `load_config` does.

    Of teacher `given` the columns of its file tell whether it is `given_pairs`.
    """
    try:
        return Config.model_validate(_with_given_kind(values))
    except ValidationError as error:
        raise SettingsError(f"{source}: {explain(error, Config)}") from None


def _with_given_kind(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings with teacher `given` called `given_pairs` where its file scores pairs."""
    teacher = values.get("teacher")
    if not isinstance(teacher, Mapping) or teacher.get("name") != "given":
        return values
    try:
        given = GivenConfig.model_validate(teacher.get("given", {}))
    except ValidationError:  # told with all else that is wrong
        return values
    if not is_there(given.path):
        return values
    names = column_names(given.path)
    of_pairs = [n for n in (given.candidate_column, given.target_column) if n in names]
    if of_pairs and given.id_column in names:
        raise SettingsError(
            f"teacher.given.path: {given.path} has a column {given.id_column!r}, of scores of "
            f"rows, and {of_pairs[0]!r}, of scores of pairs: leave one of them out"
        )
    if not of_pairs:
        return values
    others = {key: value for key, value in teacher.items() if key != "given"}
    named = {**others, "name": "given_pairs", "given_pairs": teacher["given"]}
    return {**values, "teacher": named}


def override(values: dict[str, Any], name: str, value: Any) -> None:
    """Set a setting by its dotted name in nested values; SettingsError for a value in its way."""
    *sections, last = name.split(".")
    for section in sections:
        inner = values.get(section)
        if inner is None:
            inner = values[section] = {}
        if not isinstance(inner, dict):
            raise SettingsError(f"--{name}: {section} is a value, not a section")
        values = inner
    values[last] = value


def yaml_value(text: str) -> Any:
    """What an override's text means: YAML, or the text itself where it is none."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
