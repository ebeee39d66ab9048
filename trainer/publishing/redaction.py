"""What must not leave the machine: places of files, and secrets; both are cut out of texts."""

import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from trainer.recipe.keys import flatten
from trainer.report.markup import as_markdown

PLACES = ("model.name_or_path", "model.tokenizer", "data.source.hub", "data.source.files")
"""Keys of a recipe, and of all keys below them, that may hold a place on this machine."""
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")
"""A token of the hub."""
USER = re.compile(r"(?<=://)[^/@\s]+@")
"""A name, or name and password, in an address."""
ABSOLUTE = re.compile(r"(?<![\w/.])(?:file://)?(?:~|/[\w.@+\\-]+)(?:/[\w.@+\\-]+)+/?")
"""A path from the root, or from the home directory, of at least two parts."""
REMOVED = "[removed]"


def local_places(directory: Path, recipe: dict[str, Any]) -> list[str]:
    """Returns the places of a run's files, the longest first: those that its recipe names, its
    directory, the working directory, the home directory and that of temporary files.

    They are also there as Markdown spells them.
    """
    values = [value for key, value in flatten(recipe).items() if key.startswith(PLACES)]
    texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
    named = [text for text in texts if isinstance(text, str) and Path(text).is_absolute()]
    own = [directory.absolute(), directory.resolve(), Path.cwd(), Path.home()]
    places = {*named, *map(str, own), tempfile.gettempdir()} - {"/"}
    places |= {as_markdown(place) for place in places}
    return sorted(places, key=lambda place: (-len(place), place))


def without_places(text: str, places: Iterable[str]) -> str:
    """Returns a text with only the last part of each path on this machine, and without secrets."""
    for place in places:
        text = re.sub(
            rf"{re.escape(place)}((?:/[^\s/'\"`,;:()\[\]{{}}|<>]+)*)(?![\w-])",
            lambda match: _last(match[0]),
            text,
        )
    return without_secrets(ABSOLUTE.sub(lambda match: _last(match[0]), text))


def without_secrets(text: str) -> str:
    """Returns a text without tokens of the hub, and without the user in an address."""
    return USER.sub("", TOKEN.sub(REMOVED, text))


def public_text(text: str, places: Iterable[str]) -> str:
    """Returns a text, or its last part if all of it is a path on this machine, without secrets."""
    is_local = any(text == place or text.startswith(f"{place}/") for place in places)
    return without_secrets(_last(text) if is_local else text)


def with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Returns a JSON value with each text changed; keys stay."""
    if isinstance(value, dict):
        return {key: with_texts(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_texts(inner, change) for inner in value]
    return change(value) if isinstance(value, str) else value


def public_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """Returns a recipe, as nested plain values, that names files and folders by their last part,
    without secrets and without the section that says where to push."""

    def public(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {name: public(inner, f"{key}.{name}") for name, inner in value.items()}
        if isinstance(value, list):
            return [public(inner, key) for inner in value]
        if not isinstance(value, str):
            return value
        is_place = key.removeprefix(".").startswith(PLACES) and Path(value).is_absolute()
        return without_secrets(_last(value) if is_place else value)

    return {key: public(value, f".{key}") for key, value in recipe.items() if key != "push"}


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
