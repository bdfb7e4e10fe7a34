"""Sections in which components have settings of their own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, TypeVar

from pydantic import ConfigDict, create_model, model_validator

from engine.components import Kind, component, may_have_settings
from engine.config.base import Section

__all__ = ["OwnSettings"]

Own = TypeVar("Own", bound=Section)


class OwnSettings(Section):
    """A section that names a component, whose own settings are a section of its name in it.

    They are defined with the component, as its `Settings`. Those of components that are not named
    may stand there too, and play no part.

    Attributes:
        components: what is named, and `naming` the setting that does.
    """

    model_config = ConfigDict(extra="allow")  # those sections: `_read_own` refuses all else

    components: ClassVar[Kind[Any]]
    naming: ClassVar[str] = "name"

    def own(self, kind: type[Own], name: str | None = None) -> Own:
        """The settings that the named component alone has, or those of another name."""
        section = (self.model_extra or {}).get(name or getattr(self, self.naming))
        if section is None:  # of a component that is not named here
            section = kind.model_validate({})
        assert isinstance(section, kind), f"these are {type(section).__name__}"
        return section

    def parts(self) -> dict[str, Any]:
        named = getattr(self, self.naming)
        extra = self.model_extra or {}
        return super().parts() | {n: extra[n] for n in extra if named is None or n == named}

    @classmethod
    def further_sections(cls) -> dict[str, type[Section]]:
        names = may_have_settings(cls.components)
        return {name: own for name in names if (own := _own_settings(cls.components, name))}

    @model_validator(mode="before")
    @classmethod
    def _read_own(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        named = values.get(cls.naming, cls.model_fields[cls.naming].default)
        given = {key: values[key] for key in values if key not in cls.model_fields}
        if named not in given and _own_settings(cls.components, named) is not None:
            given[named] = {}
        if not given:
            return values
        return {**values, **dict(_sections(cls.components, tuple(given)).model_validate(given))}


@cache
def _sections(kind: Kind[Any], names: tuple[str, ...]) -> type[Section]:
    """A section of components' sections: checks each in its place, and refuses other names."""
    found = {name: own for name in names if (own := _own_settings(kind, name)) is not None}
    fields: dict[str, Any] = {name: (own, ...) for name, own in found.items()}
    return create_model("OwnSections", __base__=Section, **fields)


def _own_settings(kind: Kind[Any], name: Any) -> type[Section] | None:
    """What a component alone has; of a word that names none, nothing."""
    if not isinstance(name, str) or name not in may_have_settings(kind):
        return None
    settings: type[Section] | None = component(kind, name).Settings
    return settings
