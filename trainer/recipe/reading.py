"""Reads a recipe: a shipped name or a YAML file, with overrides."""

import difflib
from pathlib import Path
from typing import Any, TypeVar

from trainer.errors import ConfigError
from trainer.recipe.problems import joined
from trainer.recipe.schema import Recipe
from trainer.recipe.shipped import FOLDER, shipped_recipes
from trainer.recipe.yaml12 import read_yaml, write_yaml
from trainer.wording import excerpt

RecipeT = TypeVar("RecipeT", bound=Recipe)


def dump_yaml(recipe: Recipe) -> str:
    """Returns the complete recipe as YAML that reads back to an equal one."""
    return write_yaml(recipe.model_dump(mode="json"))


def recipe_values(name_or_path: str, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Returns the values in a shipped recipe or a YAML file, with `key.path=value` overrides.

    Values are not validated and defaults not filled in. Raises ConfigError if it cannot be read.
    """
    text = _recipe_text(name_or_path)
    values = read_yaml(text, name_or_path, key="RECIPE", value=name_or_path)
    if not isinstance(values, dict):
        raise ConfigError(
            f"{excerpt(name_or_path, 200)} is not a mapping of sections",
            key="RECIPE",
            value=name_or_path,
            hint="write the sections of a recipe, such as model: …",
        )
    for override in overrides:
        values = with_value(values, *parsed_override(override))
    return values


def with_value(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Returns the values of a recipe with the value of one dotted key replaced.

    Sections are copied, because YAML aliases may share them. Raises ConfigError if a part of the
    key is a value, not a section.
    """
    *parents, leaf = key.split(".")
    changed = section = dict(values)
    for parent in parents:
        inner = section.get(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(
                f"{excerpt(key)}: {excerpt('.'.join(parents))} is a value, not a section",
                key=key,
                value=inner,
            )
        section[parent] = dict(inner)
        section = section[parent]
    section[leaf] = value
    return changed


def validated(kind: type[RecipeT], values: dict[str, Any], origin: str) -> RecipeT:
    """Returns a recipe of class `kind` with these values; raises ConfigError with all its problems.

    `origin`, such as a file, starts the message.
    """
    try:
        return kind(**values)
    except ConfigError as error:
        raise joined(origin, error.problems) from error


def _recipe_text(name_or_path: str) -> str:
    path, names = Path(name_or_path), shipped_recipes()
    hidden = name_or_path in names and path.is_dir()  # a folder of that name, such as a run's
    if (path.suffix in (".yaml", ".yml") or _exists(path)) and not hidden:
        shown = excerpt(name_or_path, 200)
        if _exists(path) and not path.is_file():  # reading a FIFO would never end
            raise ConfigError(f"recipe {shown} is not a file", key="RECIPE", value=name_or_path)
        try:
            return path.read_text("utf-8-sig")
        except OSError as error:
            raise ConfigError(
                f"recipe {shown} cannot be read: {error.strerror}", key="RECIPE", value=name_or_path
            ) from error
        except ValueError as error:
            raise ConfigError(
                f"recipe {shown} is not UTF-8 text",
                key="RECIPE",
                value=name_or_path,
                hint="save it as UTF-8",
            ) from error
    if name_or_path not in names:
        near = difflib.get_close_matches(name_or_path[:100], names, n=1)
        raise ConfigError(
            f"there is no recipe {excerpt(name_or_path)}, shipped or as a file",
            key="RECIPE",
            value=name_or_path,
            hint=f"did you mean {near[0]}?" if near else "`trainer recipes` lists them",
        )
    return (FOLDER / f"{name_or_path}.yaml").read_text("utf-8")


def _exists(path: Path) -> bool:
    """Returns whether a path exists; False for a name that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a NUL
        return False


def parsed_override(override: str) -> tuple[str, Any]:
    """Returns the dotted key and the value of `key.path=value`, which is read as YAML.

    Raises ConfigError for anything else.
    """
    key, equals, text = override.partition("=")
    shown = excerpt(override)
    if not equals or not all(key.split(".")):
        raise ConfigError(
            f"--set {shown} is not an override",
            key="--set",
            value=override,
            hint="write it as key.path=value",
        )
    return key, read_yaml(text, f"--set {shown}", key="--set", value=override)
