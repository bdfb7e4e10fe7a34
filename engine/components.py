"""Teachers, students and objectives by name: the engine's own, and those of installed packages.

A component is a class with a `name` and with everything else that must be known of it. The engine's
own stand in the modules of one package each. Which names there are is read off their sources, so a
list imports none of them; and they need no package metadata, which an uploaded working directory
has not. Another package offers its own as entry points (docs/extending.md):

    [project.entry-points."nn_cift.teachers"]
    overlap = "my_package.overlap:OverlapTeacher"

They are imported when they are named, never to be listed. Settings ask for components although
they stand below them: their modules therefore import neither torch nor ray.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from engine.errors import SettingsError
from engine.spelling import meant

__all__ = ["Kind", "component", "component_names", "may_have_settings"]

Base = TypeVar("Base")
# In the body of a class.
_NAME = re.compile(r"""^    name(?:: [\w\[\]]+)? = ["'](\w+)["']""", re.MULTILINE)
_SETTINGS = re.compile(r"^    Settings\b.* = ", re.MULTILINE)


@dataclass(frozen=True)
class Kind(Generic[Base]):
    """A kind of components.

    Attributes:
        word: what one is called.
        package: holds the engine's own, in its modules.
        base: the class of all of them.
    """

    word: str
    package: str
    base: type[Base]

    @property
    def group(self) -> str:
        """The entry points of other packages."""
        return f"nn_cift.{self.word}s"


def component_names(kind: Kind[Base], installed: bool = True) -> list[str]:
    """The names that there are, sorted, or the engine's own alone; imports none of the classes."""
    others = _installed(kind) if installed else []
    return sorted({*_own(kind.package), *(entry.name for entry in others)})


def may_have_settings(kind: Kind[Base]) -> list[str]:
    """Names of components that may have `Settings`: without those of which the source has none."""
    sources = _sources(kind.package)
    plain = {n for n, home in _own(kind.package).items() if not _SETTINGS.search(sources[home])}
    return [name for name in component_names(kind) if name not in plain]


def component(kind: Kind[Base], name: str) -> type[Base]:
    """The class of that name; the engine's own come before those of other packages.

    Raises SettingsError for a name that there is not, and for an installed class that cannot be
    imported or is no such component.
    """
    return _component(kind, name)


@cache
def _component(kind: Kind[Any], name: str) -> type[Any]:
    home = _own(kind.package).get(name)
    if home is not None:
        module = importlib.import_module(home)
        found: list[type[Any]] = [v for v in vars(module).values() if _is_one(kind, v, name)]
        assert len(found) == 1, f"{module.__name__} has no one {kind.word} whose name is {name!r}"
        return found[0]
    entries = [entry for entry in _installed(kind) if entry.name == name]
    if not entries:
        names = component_names(kind)
        raise SettingsError(
            f"unknown {kind.word} {name!r}; known: {', '.join(names)}{meant(name, names)}"
        )
    if len(entries) > 1:
        homes = " and ".join(sorted(entry.value for entry in entries))
        raise SettingsError(f"{kind.word} {name} is defined by {homes}: uninstall one of them")
    return _loaded(kind, entries[0])


@cache
def _own(package: str) -> dict[str, str]:
    """The engine's own in a package: {name: module}."""
    sources = _sources(package).items()
    return {name: module for module, text in sources for name in _NAME.findall(text)}


@cache
def _sources(package: str) -> dict[str, str]:
    """The modules of a package: {name: text}."""
    files = [file for file in resources.files(package).iterdir() if file.name.endswith(".py")]
    return {
        f"{package}.{file.name.removesuffix('.py')}": file.read_text(encoding="utf-8")
        for file in files
    }


@cache
def _installed(kind: Kind[Any]) -> list[EntryPoint]:
    return [entry for entry in entry_points(group=kind.group) if entry.name.isidentifier()]


def _loaded(kind: Kind[Any], entry: EntryPoint) -> type[Any]:
    try:
        found = entry.load()
    except Exception as error:  # whatever a package does when it is imported
        raise SettingsError(
            f"{kind.word} {entry.name} of an installed package cannot be imported from "
            f"{entry.value}: {type(error).__name__}: {error}"
        ) from error
    if not _is_one(kind, found, entry.name):
        raise SettingsError(
            f"{entry.value} is not a {kind.base.__name__} with name = {entry.name!r}, as the entry "
            f"point of {kind.word} {entry.name} says"
        )
    class_: type[Any] = found
    return class_


def _is_one(kind: Kind[Any], value: object, name: str) -> bool:
    is_class = isinstance(value, type) and issubclass(value, kind.base)
    return is_class and vars(value).get("name") == name
