"""Dotted keys of recipes and of the schema."""

import difflib
from collections.abc import Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel

SectionT = TypeVar("SectionT", bound=BaseModel)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values in nested mappings by dotted key; an empty mapping counts as a value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def differences(left: BaseModel, right: BaseModel) -> dict[str, tuple[Any, Any]]:
    """Returns the dotted keys in which two recipes differ, with both values.

    The value of a key that a recipe does not have is None.
    """
    flat_left = flatten(left.model_dump(mode="json"))
    flat_right = flatten(right.model_dump(mode="json"))
    return {
        key: (flat_left.get(key), flat_right.get(key))
        for key in dict.fromkeys([*flat_left, *flat_right])
        if flat_left.get(key) != flat_right.get(key)
    }


def given_keys(section: BaseModel, prefix: str = "") -> set[str]:
    """Returns the dotted keys that a recipe sets itself; the others have their defaults."""
    keys: set[str] = set()
    for name in section.model_fields_set:
        value = getattr(section, name)
        keys |= {prefix + name}
        if isinstance(value, BaseModel):
            keys |= given_keys(value, f"{prefix}{name}.")
    return keys


def with_values(recipe: SectionT, values: dict[str, Any]) -> SectionT:
    """Returns the recipe with the values of dotted keys replaced; unknown keys are ignored.

    Values are not validated.
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
    """Returns the dotted keys of a section and the sections inside it, as written in a recipe."""
    keys: list[str] = []
    for name, field in section.model_fields.items():
        key = prefix + (field.alias or name)
        keys.append(key)
        for inner in sections_in(field.annotation):
            keys += known_keys(inner, f"{key}.")
    return keys


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """Returns the sections in a type, such as the members of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in sections_in(part)]


def nearest_key(key: str, known: Sequence[str]) -> str | None:
    """Returns the known key that an unknown one probably means, or None.

    A similar key of the same section comes before a key of the same name in another section.
    """
    parent, _, leaf = key.rpartition(".")
    names = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == parent}
    near = [names[name] for name in difflib.get_close_matches(leaf, names, n=1)]
    elsewhere = [name for name in known if name.rpartition(".")[2] == leaf]
    return next(iter(near + elsewhere), None)
