"""Reads a recipe: YAML 1.2 numbers, overrides, and every problem of it in one message."""

import difflib
import json
import re
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from trainer.config import Recipe, smaller_is_better
from trainer.errors import ConfigError
from trainer.recipes import FOLDER, shipped_recipes

DECIDING = {"classification": "accuracy", "question_answering": "best_f1"}
"""The metric of a task that decides which step is best, where a recipe does not say; of others it
is the loss."""


class _Yaml12Loader(yaml.SafeLoader):
    """YAML 1.2's core schema: 5e-5 is a number, yes and no are strings, dates do not exist."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


_Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]
)
_Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789")
)
_Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)


class _Yaml12Dumper(yaml.SafeDumper):
    """Quotes also the strings that only YAML 1.2 takes for numbers, such as 1e5 and 09."""


for _first, _resolvers in _Yaml12Loader.yaml_implicit_resolvers.items():
    for _tag, _pattern in _resolvers:
        _Yaml12Dumper.add_implicit_resolver(_tag, _pattern, [_first])


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


def _construct_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(loader.construct_scalar(node))


_Yaml12Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Yaml12Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def read_yaml(text: str, origin: str) -> Any:
    """Returns the value of a YAML 1.2 document; `origin` names it in the ConfigError."""
    try:
        return yaml.load(text, Loader=_Yaml12Loader)  # a SafeLoader: builds plain values only
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{origin}, line {mark.line + 1}" if mark else origin
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise ConfigError(f"{place}: no valid YAML: {problem}") from error


def dump_yaml(recipe: Recipe) -> str:
    """Returns the complete recipe as YAML that `load_recipe` reads back to an equal one."""
    values = recipe.model_dump(mode="json")
    return yaml.dump(values, Dumper=_Yaml12Dumper, sort_keys=False, allow_unicode=True)


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
        lines = "\n  ".join(dict.fromkeys(problems))
        raise ConfigError(f"{origin}: {lines}") from error


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
    if path.suffix in (".yaml", ".yml") or path.is_file():
        try:
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"recipe {name_or_path} cannot be read: {error}") from error
    names = shipped_recipes()
    if name_or_path not in names:
        near = difflib.get_close_matches(name_or_path, names, n=1)
        hint = f"did you mean {near[0]}?" if near else "`trainer recipes` lists them"
        raise ConfigError(f"there is no recipe {name_or_path}, shipped or as a file; {hint}")
    return (FOLDER / f"{name_or_path}.yaml").read_text("utf-8")


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: write it as key.path=value")
    *parents, leaf = key.split(".")
    section = values
    for parent in parents:
        section = section.setdefault(parent, {}) if isinstance(section, dict) else None
        if section is None:
            break
    if not isinstance(section, dict):
        raise ConfigError(f"--set {override}: {'.'.join(parents)} is a value, not a section")
    section[leaf] = read_yaml(text, f"--set {override}")


def _absolute_paths(values: dict[str, Any]) -> None:
    """Makes paths of files independent of the directory in which the run is continued."""

    def absolute(path: Any) -> Any:
        if isinstance(path, list):
            return [absolute(one) for one in path]
        return str(Path(path).expanduser().absolute()) if isinstance(path, str) else path

    data, model = values.get("data"), values.get("model")
    source = data.get("source") if isinstance(data, dict) else None
    if isinstance(source, dict) and isinstance(source.get("files"), dict):
        source["files"] = {split: absolute(path) for split, path in source["files"].items()}
    if isinstance(source, dict) and isinstance(source.get("hub"), str):
        source["hub"] = _folder_or_name(source["hub"])
    for key in ("name_or_path", "tokenizer"):
        if isinstance(model, dict) and isinstance(model.get(key), str):
            model[key] = _folder_or_name(model[key])


def _folder_or_name(text: str) -> str:
    path = Path(text).expanduser()
    return str(path.absolute()) if path.is_dir() else text


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
        near = difflib.get_close_matches(str(given), choices, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{location}: {given!r} is none of {', '.join(choices)}{hint}"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    shown = "" if isinstance(given, dict | BaseModel) else f"{given!r}: "
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
        keys.append(str(part))
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
