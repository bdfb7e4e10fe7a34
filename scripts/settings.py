"""Write docs/settings.md, the reference of all settings, from the models in engine/config/.

    python scripts/settings.py            write the file
    python scripts/settings.py --check    exit 1 if the file is not what the models say

One table per section: name, type, default, allowed values, meaning. The text is the description of
the field, the sentence above a table the first line of the model's docstring.
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from engine import config
from engine.components import component, component_names
from engine.config.base import NameOf
from engine.config.facts import TEACHERS
from engine.config.network import NETWORK_PRESETS

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "settings.md"
HEAD = """\
# Settings

<!-- made by: python scripts/settings.py -->

Every setting of [engine/config](../engine/config/__init__.py). In a YAML file each section is a
mapping; on the command line each setting is `--section.key VALUE`, with VALUE read as YAML. Unknown
names are refused. `execution` sections and `ray` say where the work is done and never change a byte
of the output; all others belong to the fingerprint of their stage.
"""
# Models that stand in several sections: described once, at the end.
SHARED: dict[type[BaseModel], str] = {
    config.CorpusConfig: "A set of rows",
    config.ModelConfig: "A model",
    config.Execution: "Execution",
    config.TeacherConfig: "teacher",
}
# Defaults that the sections fill in themselves.
MODELS: dict[tuple[type[BaseModel], str], str] = {
    (config.EmbeddingConfig, "model"): f"`{config.PACKAGED_ENCODER}`",
    (config.TeacherConfig, "model"): "; ".join(
        f"{kind.name}: `{kind.default_model['path']}`"
        for kind in (component(TEACHERS, name) for name in component_names(TEACHERS))
        if kind.default_model
    ),
    (config.JudgeConfig, "model"): "`prometheus-eval/prometheus-7b-v2.0`",
    (config.EvaluationConfig, "model"): f"`{config.PACKAGED_LANGUAGE_MODEL}`",
}
_SCALARS = {"text", "whole number", "number", "true or false"}
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def main() -> int:
    """Write or check the page; returns the exit code."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{PAGE.relative_to(ROOT)} is old: run python scripts/settings.py\n")
    return 1


def page() -> str:
    """The whole page."""
    parts = [HEAD, *_section("", "Top level", config.Config)]
    for name, field in config.Config.model_fields.items():
        for model in _models(field.annotation):
            if model not in SHARED or name == SHARED[model]:
                parts += _section(name, f"`{name}`", model)
    for model, title in SHARED.items():
        if title != "teacher":
            parts += _section("", title, model)
    return "\n".join(parts)


def _section(prefix: str, title: str, model: type[BaseModel]) -> Iterator[str]:
    """Heading, sentence and table of a model, and those of the models inside it."""
    yield f"## {title}\n"
    yield f"{(model.__doc__ or '').strip().splitlines()[0]}\n"
    yield "| setting | type | default | allowed | meaning |"
    yield "| --- | --- | --- | --- | --- |"
    inner: list[tuple[str, type[BaseModel]]] = []
    for name, field in model.model_fields.items():
        dotted = f"{prefix}.{name}" if prefix else name
        yield _row(dotted, field, default_of(model, name, field))
        inner += [(dotted, m) for m in _models(field.annotation) if m not in SHARED]
    if issubclass(model, config.Section):
        for name, further in model.further_sections().items():
            dotted = f"{prefix}.{name}"
            yield f"| `{dotted}` | [section](#{dotted.replace('.', '')}) |  |  |  |"
            inner.append((dotted, further))
    yield ""
    if model is config.Config:
        return
    for dotted, nested in inner:
        yield from _section(dotted, f"`{dotted}`", nested)


def _row(name: str, field: FieldInfo, default: str) -> str:
    is_name = any(isinstance(item, NameOf) for item in field.metadata)
    kind = "choice" if is_name else type_of(field.annotation)
    cells = [
        f"`{name}`",
        f"[section](#{name.replace('.', '')})" if kind == "section" else kind,
        default,
        ", ".join(_allowed(field.annotation, field.metadata)),
        field.description or "",
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def default_of(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    """The default as YAML, `required`, or what decides it."""
    if model is config.NetworkConfig and field.is_required():
        presets = NETWORK_PRESETS
        return "; ".join(f"{_yaml(presets[p][name])} ({p})" for p in ("default", "paper"))
    if _models(field.annotation) and not field.is_required():
        value = field.get_default(call_default_factory=True)
        return "none" if value is None else "`[]`" if value == () else ""
    if (model, name) in MODELS:
        return MODELS[model, name]
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    text = _yaml(value)
    source = Path(inspect.getfile(model)).relative_to(ROOT)
    return text if len(text) < 60 else f"{len(value)} texts, see {source}"


def _yaml(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple | list):
        return "`[" + ", ".join(str(part) for part in value) + "]`"
    return "`{}`" if value == {} else f"`{value}`"


def type_of(annotation: Any) -> str:
    """A type as a reader of YAML thinks of it."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        is_name = any(isinstance(item, NameOf) for item in inside)
        return "choice" if is_name else type_of(inside[0])
    if origin is Literal:
        return "choice"
    if origin in (Union, types.UnionType):
        kinds = [type_of(part) for part in inside if part is not type(None)]
        if set(kinds) >= _SCALARS:
            kinds = ["value", *(kind for kind in kinds if kind not in _SCALARS)]
        return " or ".join(dict.fromkeys(kinds))
    if origin is tuple:
        return f"list of {type_of(inside[0])}"
    if origin is dict:
        return f"mapping to {type_of(inside[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _link(annotation)
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any"}
    return names[annotation]


def _link(model: type[BaseModel]) -> str:
    title = SHARED.get(model)
    if title is None:
        return "section"
    return f"[{title.lower()}](#{title.lower().replace(' ', '-')})"


def _allowed(annotation: Any, metadata: list[Any]) -> Iterator[str]:
    """Choices and bounds, those of the values inside a list too."""
    for item in metadata:
        if isinstance(item, NameOf):
            yield ", ".join(f"`{name}`" for name in item.names(installed=False))
        for bound, sign in _BOUNDS.items():
            limit = getattr(item, bound, None)
            if limit is not None:
                yield f"{sign} {limit}"
        if getattr(item, "min_length", None):
            yield f"at least {item.min_length}"
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        yield ", ".join(f"`{choice}`" for choice in inside)
    elif origin is typing.Annotated:
        yield from _allowed(inside[0], _constraints(inside[1:]))
    elif origin is not None:
        for part in inside:
            yield from _allowed(part, [])


def _constraints(metadata: tuple[Any, ...]) -> list[Any]:
    """What a Field inside Annotated limits, as plain constraints."""
    return [
        c for item in metadata for c in (item.metadata if hasattr(item, "metadata") else [item])
    ]


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The sections inside a type; those inside lists count too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


if __name__ == "__main__":
    sys.exit(main())
