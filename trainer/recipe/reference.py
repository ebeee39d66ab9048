"""The reference of keys, generated from the schema: values, default and meaning of each."""

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from trainer.errors import ConfigError
from trainer.recipe.keys import nearest_key, sections_in
from trainer.recipe.schema import Recipe, TaskSettings
from trainer.recipe.yaml12 import write_yaml

PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "value"}
COUNTED = ("text", "whole number", "number")
"""Words of `PLAIN` that have a plural."""
Entry = tuple[str, FieldInfo]
"""A dotted key with its field."""

INTRODUCTION = """\
# Every key of a recipe

Generated from the schema; a test keeps it current. `trainer show --explain KEY` prints one key or
section, and `trainer show RECIPE` prints a recipe with all its defaults.

A recipe is YAML 1.2: `5e-5` is a number, `yes` is text. An unknown key or a wrong value is an error
that names the nearest valid one. Relative paths start from the working directory.
"""


def explain(key: str, recipe: type[Recipe], tasks: Mapping[str, type[TaskSettings]]) -> str:
    """Returns values, default and meaning of a dotted key, and the keys inside a section.

    `tasks` are the settings of the tasks, by name, whose keys are under `task`. Raises ConfigError,
    with the nearest key, for an unknown key.
    """
    named = [(name, entry) for name, entry in _all_entries(recipe, tasks) if entry[0] == key]
    if not named:
        known = [entry[0] for _, entry in _all_entries(recipe, tasks)]
        near = nearest_key(key, list(dict.fromkeys(known)))
        hint = f"did you mean {near}?" if near else "`trainer show RECIPE` lists the keys"
        raise ConfigError(f"there is no key {key}", key="--explain", value=key, hint=hint)
    texts: list[str] = []
    for name, (_, field) in named:
        title = f"{key} (task {name})" if name else key
        lines = [title, *(f"  {line}" for line in (_form(field), *_prose(field)) if line)]
        texts.append("\n".join(lines))
    inside = [
        f"  {entry[0]}" + (f" (task {name})" if name else "") + f": {_form(entry[1])}"
        for name, entry in _all_entries(recipe, tasks)
        if entry[0].rpartition(".")[0] == key
    ]
    return "\n".join([*dict.fromkeys(texts), *(["  Keys:"] if inside else []), *inside])


def reference(recipe: type[Recipe], tasks: Mapping[str, type[TaskSettings]]) -> str:
    """Returns a Markdown page of every key, a table for each section, tasks by name."""
    lines = [INTRODUCTION]
    lines += ["## Sections and top-level keys", "", *_table(_fields(recipe, ""))]
    for key, field in _fields(recipe, ""):
        if key == "task":
            for name, settings in tasks.items():
                lines += _section(f"task: {name}", settings, "task.", settings.__doc__)
        else:
            for section in sections_in(field.annotation):
                lines += _section(_title(key, section), section, f"{key}.", None)
    return "\n".join(lines).rstrip() + "\n"


def _all_entries(
    recipe: type[Recipe], tasks: Mapping[str, type[TaskSettings]]
) -> Iterator[tuple[str, Entry]]:
    """Yields each key with the name of its task, "" if it does not belong to a task."""
    for entry in _entries(recipe, ""):
        if not entry[0].startswith("task."):
            yield "", entry
    for name, settings in tasks.items():
        for entry in _entries(settings, "task."):
            yield name, entry


def _entries(section: type[BaseModel], prefix: str) -> Iterator[Entry]:
    for key, field in _fields(section, prefix):
        yield key, field
        for inner in sections_in(field.annotation):
            yield from _entries(inner, f"{key}.")


def _fields(section: type[BaseModel], prefix: str) -> list[Entry]:
    return [(prefix + (field.alias or name), field) for name, field in section.model_fields.items()]


def _section(title: str, section: type[BaseModel], prefix: str, text: str | None) -> list[str]:
    """Returns the heading and the table of a section, including the keys of inner sections."""
    entries = list(_entries(section, prefix))
    return ["", f"## {title}", "", *([text, ""] if text else []), *_table(entries)]


def _title(key: str, section: type[BaseModel]) -> str:
    """Returns the title of a section: its key, and the modes if there is a section per mode."""
    mode = section.model_fields.get("mode")
    words = get_args(mode.annotation) if mode is not None and key == "tuning" else ()
    return f"{key}: mode {', '.join(map(str, words))}" if words else key


def _table(entries: list[Entry]) -> list[str]:
    rows = [
        f"| `{key}` | {_cell(_form(field))} | {_cell(' '.join(_prose(field)))} |"
        for key, field in entries
    ]
    return ["| key | value | meaning |", "|---|---|---|", *rows]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _prose(field: FieldInfo) -> list[str]:
    return [" ".join((field.description or "").split())]


def _form(field: FieldInfo) -> str:
    """Returns the values that a key takes and its default."""
    takes = _takes(field.annotation, field.metadata)
    if field.is_required():
        return f"{takes}; required"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel) or default is PydanticUndefined:
        return takes
    value = list(default) if isinstance(default, tuple) else default
    text = write_yaml(value).removesuffix("...\n").strip() if not isinstance(value, list) else ""
    return f"{takes}; default `{text or value}`"


def _takes(annotation: Any, metadata: list[Any]) -> str:
    """Returns the values of a type in words."""
    bounds = _bounds(metadata)
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _takes(inner, [*more, *metadata])
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return _alternatives(list(_members(annotation)))
    if get_origin(annotation) is tuple:
        items = [item for item in get_args(annotation) if item is not Ellipsis]
        number = [str(len(items))] if len(items) > 1 else _limits(metadata)
        return f"list of {_many(_takes(items[0], []), number)}"
    if get_origin(annotation) is dict:
        _, value = get_args(annotation)
        return f"mapping of text to {_alternatives([value])}"
    if sections_in(annotation):
        return "section"
    return PLAIN.get(annotation, str(annotation)) + bounds


def _members(annotation: Any) -> Iterator[Any]:
    """Yields the types of a union, also of unions in it."""
    if get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    elif get_origin(annotation) is Annotated and len(list(_members(get_args(annotation)[0]))) > 1:
        yield from _members(get_args(annotation)[0])
    else:
        yield annotation


def _alternatives(members: list[Any]) -> str:
    """Returns alternatives in words, lists and mappings last: a null after them would read like a
    value in them."""
    plain: list[str] = []
    nested: list[str] = []
    for words in (_takes(member, []) for member in members if member is not type(None)):
        if words.startswith(("list of", "mapping of")):
            nested.append(f"a {words}")
        else:
            plain.append(words)
    has_null = type(None) in members
    if has_null:
        plain.append("null")
    listed = list(dict.fromkeys([*plain, *nested]))
    if has_null and nested:
        return f"{', '.join(listed[:-1])}, or {listed[-1]}"
    return " or ".join(listed)


def _many(item: str, number: list[str]) -> str:
    """Returns a number of items in words, such as "at least 2 texts" or "values, each `a`, `b`"."""
    word, bracket, bounds = item.partition(" (")
    noun, after = (word, bracket + bounds) if word in COUNTED else ("value", f", each {item}")
    plural = "" if number == ["at least 1"] else "s"
    return " ".join([*number, noun + plural]) + after


SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
"""Bounds, by the attribute of the metadata that holds them."""


def _bounds(metadata: list[Any]) -> str:
    limits = _limits(metadata)
    return f" ({', '.join(limits)})" if limits else ""


def _limits(metadata: list[Any]) -> list[str]:
    """Returns the limits of a number, or the least length of a list, in words."""
    limits: list[str] = []
    for bound in (part for item in metadata for part in (*getattr(item, "metadata", ()), item)):
        for name, sign in SIGNS.items():
            limit = getattr(bound, name, None)
            if limit is not None and limit != 2**31 - 1:  # the largest integer is no real limit
                limits.append(f"{sign} {limit:,}")
        if getattr(bound, "min_length", None):
            limits.append(f"at least {bound.min_length}")
    return list(dict.fromkeys(limits))
