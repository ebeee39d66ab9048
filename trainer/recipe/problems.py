"""Problems of a recipe as errors, each with its key, the value, the rule and a fix."""

import difflib
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from trainer.errors import ConfigError
from trainer.recipe.keys import nearest_key
from trainer.wording import excerpt, listed, together

OWN = "own"
"""Type of the pydantic errors that carry a ConfigError."""
RULES = {
    "dict_type": "give a mapping of keys to values",
    "model_type": "give a section, which is a mapping of its keys to values",
    "tuple_type": "give a list",
}
"""Rules about Python types, by pydantic's error type, in the words of YAML."""


def rejection(*problems: ConfigError) -> ValidationError:
    """Returns the exception that a validator raises for problems with dotted keys of their own.

    A ValueError, in contrast, is reported under the key of the field or section that is validated.
    """
    lines = [
        InitErrorDetails(
            type=PydanticCustomError(OWN, "{error}", {"error": problem}), input=problem.value
        )
        for problem in problems
    ]
    return ValidationError.from_exception_data("recipe", lines)


def problems_of(
    error: ValidationError, values: dict[str, Any], known: Sequence[str]
) -> list[ConfigError]:
    """Returns the problems that pydantic found in the `values` of a recipe.

    For an unknown key the hint names the nearest of the `known` keys.
    """
    return [_problem(line, values, known) for line in error.errors(include_url=False)]


def joined(origin: str, problems: Sequence[ConfigError]) -> ConfigError:
    """Returns one error for all problems, with the key, value and hint of the first.

    The message starts with `origin`, such as a file, unless that is empty.
    """
    first = problems[0]
    error = ConfigError(together(origin, map(str, problems)), key=first.key, value=first.value)
    error.hint = first.hint
    error.problems = tuple(problems)
    return error


def _problem(line: Any, values: dict[str, Any], known: Sequence[str]) -> ConfigError:
    kind, context, value = line["type"], line.get("ctx", {}), line["input"]
    if kind == OWN:
        return context["error"]
    key = _key(line["loc"], values, missing=kind == "missing")
    if kind == "missing":
        return ConfigError(f"{key}: required, and missing", key=key)
    if kind == "extra_forbidden":
        near = nearest_key(key, known)
        hint = f"did you mean {near}?" if near not in (None, key) else None
        return ConfigError(f"{key}: unknown key", key=key, value=value, hint=hint)
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        near = difflib.get_close_matches(str(value)[:100], choices, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else None
        rule = f"{excerpt(repr(value))} is not one of {listed(choices, 20)}"
        return ConfigError(f"{key}: {rule}", key=key, value=value, hint=hint)
    text = RULES.get(kind) or line["msg"].removeprefix("Value error, ")
    rule, _, fix = (text[0].lower() + text[1:]).partition("; ")
    shown = "" if isinstance(value, dict | BaseModel) else f"{excerpt(repr(value))}: "
    start = f"{key}: {shown}" if key else ""  # rules over the whole recipe name their keys
    return ConfigError(f"{start}{rule}", key=key or None, value=value, hint=fix or None)


def _key(parts: Sequence[Any], values: Any, *, missing: bool) -> str:
    """Returns the dotted key of a pydantic location, without the union members that it names."""
    keys: list[str] = []
    for position, part in enumerate(parts):
        inside = isinstance(values, dict) and part in values
        if isinstance(values, list | tuple) and isinstance(part, int):
            inside = part < len(values)
        if inside:
            values = values[part]
        elif not (missing and position == len(parts) - 1):
            continue
        keys.append(excerpt(part))
    return ".".join(keys)
