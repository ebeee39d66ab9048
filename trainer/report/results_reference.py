"""The reference of results.json, generated from its schema: a JSON schema and a table of fields."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from trainer.report.results_schema import Results


def schema_text() -> str:
    """Returns the JSON schema, as results.schema.json holds it."""
    return json.dumps(Results.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def field_table() -> str:
    """Returns a Markdown table of every field, dotted, with its meaning."""
    rows = [f"| `{path}` | {meaning} |" for path, meaning in _fields(Results, "")]
    return "\n".join(["| field | meaning |", "|---|---|", *rows])


def _fields(part: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for name, field in part.model_fields.items():
        yield prefix + name, " ".join((field.description or "").split()).replace("|", "\\|")
        for inner, kind in _inside(field.annotation, ""):
            yield from _fields(inner, f"{prefix}{name}{kind}.")


def _inside(annotation: Any, kind: str) -> Iterator[tuple[type[BaseModel], str]]:
    """Yields the parts inside a type, with [] for each list and .* for each mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, kind
        return
    arguments: tuple[Any, ...] = getattr(annotation, "__args__", ())
    origin = getattr(annotation, "__origin__", None)
    added = "[]" if origin is list else ".*" if origin is dict else ""
    for argument in arguments:
        yield from _inside(argument, kind + added)
