"""Dotted keys: those that recipes have, and those that the schema knows."""

import difflib
from collections.abc import Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel

SectionT = TypeVar("SectionT", bound=BaseModel)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values of nested mappings by dotted key; an empty mapping is a value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def differences(left: BaseModel, right: BaseModel) -> dict[str, tuple[Any, Any]]:
    """Returns the dotted keys in which two recipes differ, with both values."""
    flat_left = flatten(left.model_dump(mode="json"))
    flat_right = flatten(right.model_dump(mode="json"))
    return {
        key: (flat_left.get(key), flat_right.get(key))
        for key in dict.fromkeys([*flat_left, *flat_right])
        if flat_left.get(key) != flat_right.get(key)
    }


def given_keys(section: BaseModel, prefix: str = "") -> set[str]:
    """Returns the dotted keys that a recipe sets, in contrast to those that have defaults."""
    keys: set[str] = set()
    for name in section.model_fields_set:
        value = getattr(section, name)
        keys |= {prefix + name}
        if isinstance(value, BaseModel):
            keys |= given_keys(value, f"{prefix}{name}.")
    return keys


def with_values(recipe: SectionT, values: dict[str, Any]) -> SectionT:
    """Returns the recipe with these values by dotted key; keys that it does not have are ignored.

    Nothing is validated.
    """
    for key, value in values.items():
        recipe = _changed(recipe, key.split("."), value)
    return recipe


def _changed(section: SectionT, keys: Sequence[str], value: Any) -> SectionT:
    name, *inner = keys
    if name not in type(section).model_fields:
        return section
    new = _changed(getattr(section, name), inner, value) if inner else value
    return section.model_copy(update={name: new})


def known_keys(section: type[BaseModel], prefix: str = "") -> list[str]:
    """Returns the dotted keys of a section and of the sections inside it, as a file has them."""
    keys: list[str] = []
    for name, field in section.model_fields.items():
        key = prefix + (field.alias or name)
        keys.append(key)
        for inner in sections_in(field.annotation):
            keys += known_keys(inner, f"{key}.")
    return keys


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """Returns the sections that a type names, such as those of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in sections_in(part)]


def nearest_key(key: str, known: Sequence[str]) -> str | None:
    """Returns the known key that an unknown one probably means, None if none is near.

    A key of the same section comes before one of the same name elsewhere.
    """
    parent, _, leaf = key.rpartition(".")
    names = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == parent}
    near = [names[name] for name in difflib.get_close_matches(leaf, names, n=1)]
    elsewhere = [name for name in known if name.rpartition(".")[2] == leaf]
    return next(iter(near + elsewhere), None)
