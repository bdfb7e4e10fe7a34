"""What is wrong with settings, in one sentence that names the setting and what was meant by it."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Collection, Iterator
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from engine.spelling import closest, hint, meant

__all__ = ["explain", "setting_names", "unknown_setting"]


def setting_names(root: type[BaseModel]) -> list[str]:
    """The dotted names of all settings and sections, but those inside lists."""
    return list(_names_below(root))


def _names_below(annotation: Any, prefix: str = "") -> Iterator[str]:
    for model in _models(annotation):
        for name, annotation in _inner(model).items():
            yield prefix + name
            yield from _names_below(annotation, f"{prefix}{name}.")


def _inner(model: type[BaseModel]) -> dict[str, Any]:
    """What may stand in a section, by name: its fields, and sections that others put there."""
    further: dict[str, Any] = getattr(model, "further_sections", dict)()
    return {name: field.annotation for name, field in model.model_fields.items()} | further


def unknown_setting(name: str, root: type[BaseModel], siblings: Collection[str] = ()) -> str:
    """The sentence about a dotted name that is no setting, with what was probably meant."""
    *section, last = name.split(".")
    everywhere = setting_names(root)
    same = [known for known in everywhere if known.rpartition(".")[2] == last]
    least = min((known.count(".") for known in same), default=0)
    same = [known for known in same if known.count(".") == least]  # a gate repeats sections
    if len(same) == 1:
        return f"unknown setting {name}; did you mean {same[0]}?"
    if siblings and (section or closest(last, siblings)):
        return f"unknown setting {name}; {hint(last, sorted(siblings))}"
    close = closest(name, everywhere)
    told = f"did you mean {close}?" if close else f"known: {', '.join(sorted(siblings))}"
    return f"unknown setting {name}; {told}"


def explain(error: ValidationError, root: type[BaseModel]) -> str:
    """The first problem of a validation error in one sentence, with a suggestion for a typo."""
    # an unknown name explains the missing one that it was meant to be
    problem = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    kind, location = problem["type"], problem["loc"]
    names, annotations = _located(location, root)
    name = ".".join(names)
    if kind == "extra_forbidden":
        siblings = {field for model in _models(*annotations) for field in _inner(model)}
        return unknown_setting(".".join([*names, str(location[-1])]), root, siblings)
    if kind == "missing":
        return f"setting {name} is missing"
    if not name:  # a rule about several settings
        return _one_line(str(problem["msg"]).removeprefix("Value error, "))
    got = problem["input"]
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
        if location[-1] == "[key]":
            return f"unknown setting {name}; {hint(names[-1], choices)}"
        listed = ", ".join(choices) or problem["ctx"]["expected"]
        told = meant(str(got), choices)
        return _one_line(f"setting {name}: must be one of {listed}, got {got!r}{told}")
    return _one_line(f"setting {name}: {problem['msg']}, got {got!r}")


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _located(location: tuple[str | int, ...], root: type[BaseModel]) -> tuple[list[str], list[Any]]:
    """Where a problem is, as people write it, and what may stand there.

    pydantic's own location also says which form of several a value was tried as.
    """
    names: list[str] = []
    annotations: list[Any] = [root]
    for part in location:
        inner = [i for annotation in annotations for i in _inside(annotation, str(part))]
        if inner:
            names.append(str(part))
            annotations = inner
    return names, annotations


def _inside(annotation: Any, part: str) -> Iterator[Any]:
    """What may stand under a name, a key or a number of a section, a mapping or a list."""
    for option in _options(annotation):
        origin, arguments = get_origin(option), get_args(option)
        if isinstance(option, type) and issubclass(option, BaseModel):
            if part in (inner := _inner(option)):
                yield inner[part]
        elif origin is dict and part != "[key]" and not _is_form(part):
            yield arguments[1]
        elif origin is tuple and part.isdecimal():
            yield arguments[0]


def _is_form(part: str) -> bool:
    """Whether a part of a location is the name of a type: a form that was tried."""
    return part in ("str", "int", "float", "bool") or "[" in part


def _options(annotation: Any) -> Iterator[Any]:
    """The alternatives of a union, one after the other."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _options(get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for option in get_args(annotation):
            yield from _options(option)
    else:
        yield annotation


def _models(*annotations: Any) -> Iterator[type[BaseModel]]:
    for annotation in annotations:
        for option in _options(annotation):
            if isinstance(option, type) and issubclass(option, BaseModel):
                yield option
