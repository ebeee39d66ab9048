"""Reads a recipe: its file, overrides, and every problem of it in one message."""

import difflib
import json
import re
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from trainer.errors import ConfigError
from trainer.recipe.schema import Recipe, smaller_is_better
from trainer.recipe.shipped import FOLDER, shipped_recipes
from trainer.recipe.yaml12 import read_yaml as read_yaml
from trainer.recipe.yaml12 import write_yaml
from trainer.wording import excerpt, listed, together

DECIDING = {"classification": "accuracy", "question_answering": "best_f1"}
"""The metric of a task that decides which step is best, where a recipe does not say; of others it
is the loss."""


def dump_yaml(recipe: Recipe) -> str:
    """Returns the complete recipe as YAML that `load_recipe` reads back to an equal one."""
    return write_yaml(recipe.model_dump(mode="json"))


def load_recipe(name_or_path: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """Returns the recipe of a shipped name or a YAML file, with `key.path=value` overrides.

    Relative paths of files in it become absolute. Raises ConfigError with every problem.
    """
    values = read_yaml(_recipe_text(name_or_path), name_or_path)
    if not isinstance(values, dict):
        raise ConfigError(f"{name_or_path}: a recipe is a mapping of sections such as model: …")
    for override in overrides:
        _override(values, override)
    return parse_recipe(values, name_or_path)


def parse_recipe(values: dict[str, Any], origin: str) -> Recipe:
    """Returns the validated recipe of a mapping; raises ConfigError with every problem."""
    _absolute_paths(values)
    _fill_in_metric(values)
    try:
        return Recipe.model_validate_json(json.dumps(values))
    except ValidationError as error:
        problems = [_sentence(problem, values) for problem in error.errors()]
        raise ConfigError(together(origin, problems)) from error


def _fill_in_metric(values: dict[str, Any]) -> None:
    """Names the metric that decides which step is best, so that a resolved recipe is complete."""
    task, evaluation = values.get("task"), values.setdefault("evaluation", {})
    if isinstance(task, dict) and isinstance(evaluation, dict):
        own = DECIDING.get(str(task.get("name")), "loss")
        metric = evaluation.setdefault("metric", own)
        evaluation.setdefault("mode", "min" if smaller_is_better(str(metric)) else "max")


def differences(one: Recipe, other: Recipe) -> dict[str, tuple[Any, Any]]:
    """Returns the dotted keys in which two recipes differ, with both values."""
    flat_one, flat_other = (
        flatten(one.model_dump(mode="json")),
        flatten(other.model_dump(mode="json")),
    )
    keys = list(dict.fromkeys([*flat_one, *flat_other]))
    return {
        key: (flat_one.get(key), flat_other.get(key))
        for key in keys
        if flat_one.get(key) != flat_other.get(key)
    }


def given_keys(section: BaseModel, prefix: str = "") -> set[str]:
    """Returns the dotted keys that a recipe was given, rather than left to their defaults."""
    keys: set[str] = set()
    for name in section.model_fields_set:
        value = getattr(section, name)
        keys |= {prefix + name}
        if isinstance(value, BaseModel):
            keys |= given_keys(value, f"{prefix}{name}.")
    return keys


def with_values(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    """Returns the recipe with these values, by dotted key, for the keys that it has."""

    def changed(section: BaseModel, keys: list[str], value: Any) -> BaseModel:
        name, *inner = keys
        if name not in type(section).model_fields:
            return section
        new = changed(getattr(section, name), inner, value) if inner else value
        return section.model_copy(update={name: new})

    made: BaseModel = recipe
    for key, value in values.items():
        made = changed(made, key.split("."), value)
    assert isinstance(made, Recipe)
    return made


def _recipe_text(name_or_path: str) -> str:
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or _is_there(path):
        shown = excerpt(name_or_path, 200)
        if _is_there(path) and not path.is_file():  # a FIFO would never end
            raise ConfigError(f"recipe {shown} is not a file")
        try:
            return path.read_text("utf-8-sig")
        except OSError as error:
            raise ConfigError(f"recipe {shown} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"recipe {shown} is not UTF-8 text; save it as UTF-8") from error
    names = shipped_recipes()
    if name_or_path not in names:
        near = difflib.get_close_matches(name_or_path[:100], names, n=1)
        hint = f"did you mean {near[0]}?" if near else "`trainer recipes` lists them"
        raise ConfigError(
            f"there is no recipe {excerpt(name_or_path)}, shipped or as a file; {hint}"
        )
    return (FOLDER / f"{name_or_path}.yaml").read_text("utf-8")


def _is_there(path: Path) -> bool:
    """Returns whether a path exists; one that no file can have does not."""
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, a NUL
        return False


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    shown = excerpt(override)
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set {shown}: write it as key.path=value")
    *parents, leaf = key.split(".")
    section = values
    for parent in parents:
        section = section.setdefault(parent, {}) if isinstance(section, dict) else None
        if section is None:
            break
    if not isinstance(section, dict):
        raise ConfigError(f"--set {shown}: {excerpt('.'.join(parents))} is a value, not a section")
    section[leaf] = read_yaml(text, f"--set {shown}")


def _absolute_paths(values: dict[str, Any]) -> None:
    """Makes paths of files independent of the directory in which the run is continued."""

    def absolute(key: str, path: Any) -> Any:
        if isinstance(path, list):
            return [absolute(key, one) for one in path]
        return str(_as_path(key, path).absolute()) if isinstance(path, str) else path

    def folder_or_name(key: str, text: str) -> str:
        path = _as_path(key, text)
        return str(path.absolute()) if path.is_dir() else text

    data, model = values.get("data"), values.get("model")
    source = data.get("source") if isinstance(data, dict) else None
    if isinstance(source, dict) and isinstance(source.get("files"), dict):
        source["files"] = {
            split: absolute(f"data.source.files.{split}", path)
            for split, path in source["files"].items()
        }
    if isinstance(source, dict) and isinstance(source.get("hub"), str):
        source["hub"] = folder_or_name("data.source.hub", source["hub"])
    for key in ("name_or_path", "tokenizer"):
        if isinstance(model, dict) and isinstance(model.get(key), str):
            model[key] = folder_or_name(f"model.{key}", model[key])


def _as_path(key: str, text: str) -> Path:
    """Returns the path with ~ replaced; raises ConfigError where no file can have this name."""
    try:
        path = Path(text).expanduser()
        path.is_dir()
    except RuntimeError as error:
        raise ConfigError(f"{key}: {excerpt(text)}: there is no such home directory") from error
    except OSError as error:
        raise ConfigError(f"{key}: {excerpt(text)}: {error.strerror}; shorten it") from error
    if not text.strip():
        raise ConfigError(f"{key}: {text!r} names nothing; give a name, a file or a folder")
    return path


def _sentence(problem: Any, values: dict[str, Any]) -> str:
    """Returns `dotted.key: value: rule`, with the nearest valid name or value."""
    kind, context, given = problem["type"], problem.get("ctx", {}), problem["input"]
    location = _location(problem["loc"], values, missing=kind == "missing")
    if kind == "extra_forbidden":
        near = _nearest_key(location)
        hint = f"; did you mean {near}?" if near not in (None, location) else ""
        return f"{location}: unknown key{hint}"
    if kind == "missing":
        return f"{location}: required, and missing"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        near = difflib.get_close_matches(str(given)[:100], choices, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{location}: {excerpt(repr(given))} is none of {listed(choices, 20)}{hint}"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    shown = "" if isinstance(given, dict | BaseModel) else f"{excerpt(repr(given))}: "
    return f"{location}: {shown}{message}" if location else message  # which names its keys


def _location(parts: tuple[Any, ...], values: Any, *, missing: bool) -> str:
    """Returns the dotted key: pydantic also puts the names of union members into a location."""
    keys: list[str] = []
    for position, part in enumerate(parts):
        inside = isinstance(values, dict) and part in values
        inside |= isinstance(values, list) and isinstance(part, int) and part < len(values)
        if inside:
            values = values[part]
        elif not (missing and position == len(parts) - 1):
            continue
        keys.append(excerpt(part))
    return ".".join(keys)


def _nearest_key(location: str) -> str | None:
    known = _known_keys(Recipe)
    parent, _, leaf = location.rpartition(".")
    siblings = [key for key in known if key.rpartition(".")[0] == parent]
    near = difflib.get_close_matches(location, siblings, n=1)
    elsewhere = [key for key in known if key.rpartition(".")[2] == leaf]
    return next(iter(near + elsewhere), None)


def _known_keys(section: type[BaseModel], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        for inner in _sections_of(field.annotation):
            keys += _known_keys(inner, f"{prefix}{name}.")
    return keys


def _sections_of(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections_of(part)]


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values of nested sections by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
