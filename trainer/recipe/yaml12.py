"""Reads and writes YAML 1.2's core schema, plain values only: 5e-5 is a number, yes is a string.

Built on PyYAML. ruamel.yaml reads 1.2 by default, but makes dates of 2024-01-01 and numbers of
1_000, has no limits on depth or aliases, and takes seconds to reject deep nesting: it would need as
many overrides.
"""

import re
from typing import Any

import yaml

from trainer.errors import ConfigError
from trainer.wording import excerpt

MAX_CHARACTERS, MAX_DEPTH, MAX_VALUES, MAX_DIGITS = 4_000_000, 20, 20_000, 300
"""Limits of a document. A recipe is far below them; what exceeds them is not a recipe."""


class _Loader(yaml.SafeLoader):
    """Builds null, booleans, numbers, text, lists, and mappings whose keys are distinct texts."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._num_values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            raise _problem(f"the tag {event.tag}; only plain values are read", event.start_mark)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _problem(f"more than {MAX_DEPTH} levels", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        # Called once per value, and again for each alias of it: aliases share memory here, but
        # their values multiply as soon as they are written or compared.
        self._num_values += 1
        if self._num_values > MAX_VALUES:
            raise _problem(f"more than {MAX_VALUES:,} values", node.start_mark)
        if node in self.recursive_objects:
            raise _problem("an alias inside the value that it stands for", node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep)
        self.recursive_objects[node] = None
        value = self._sequence(node) if isinstance(node, yaml.SequenceNode) else self._mapping(node)
        del self.recursive_objects[node]
        return value

    def _sequence(self, node: yaml.SequenceNode) -> list[Any]:
        return [self.construct_object(item) for item in node.value]

    def _mapping(self, node: yaml.Node) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node)
            if not isinstance(key, str):
                shown = excerpt(getattr(key_node, "value", key))
                raise _problem(
                    f"the key {shown} is not text; put it in quotes", key_node.start_mark
                )
            if key in values:
                raise _problem(f"the key {excerpt(key)} is given twice", key_node.start_mark)
            values[key] = self.construct_object(value_node)
        return values

    def read_int(self, node: yaml.ScalarNode) -> int:
        return int(self._digits(node))

    def read_float(self, node: yaml.ScalarNode) -> float:
        return float(self._digits(node))

    def read_str(self, node: yaml.ScalarNode) -> str:
        text = str(self.construct_scalar(node))
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise _problem("text with a NUL or half a surrogate pair", node.start_mark)
        return text

    def _digits(self, node: yaml.ScalarNode) -> str:
        text = str(self.construct_scalar(node))
        if len(text) > MAX_DIGITS:
            raise _problem(f"a number of {len(text):,} digits", node.start_mark)
        return text


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.read_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.read_float)
_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.read_str)


class _Dumper(yaml.SafeDumper):
    """Also quotes strings that only YAML 1.2 reads as numbers, such as 1e5 and 09."""


for _first, _resolvers in _Loader.yaml_implicit_resolvers.items():
    for _tag, _pattern in _resolvers:
        _Dumper.add_implicit_resolver(_tag, _pattern, [_first])


def _problem(text: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=mark)


def read_yaml(text: str, origin: str, *, key: str | None = None, value: object = None) -> Any:
    """Returns the value of a YAML 1.2 document of plain values.

    Raises ConfigError, with the line, for invalid YAML, tags, keys that are given twice or are not
    text, and documents that exceed the limits above. `origin` names the document in messages; `key`
    (by default `origin`) and `value` are those of the error.
    """
    key, origin = key or origin, excerpt(origin, 200)
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(
            f"{origin} has {len(text):,} characters; a recipe has at most {MAX_CHARACTERS:,}",
            key=key,
            value=value,
        )
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader, and stricter
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{origin}, line {mark.line + 1}" if mark else origin
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise ConfigError(
            f"{place}: not valid YAML: {excerpt(problem, 200)}", key=key, value=value
        ) from error


def write_yaml(values: Any) -> str:
    """Returns YAML that `read_yaml` reads back to the same plain values."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
