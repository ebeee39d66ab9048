"""The cells of a sweep: every combination of the values that it varies, each with a name."""

import hashlib
import re
from collections import Counter
from itertools import product

from trainer.errors import ConfigError

MAX_NAME = 200
"""Maximum characters of a directory name; file systems take 255 bytes."""


def grid(seeds: str | None, vary: tuple[str, ...]) -> list[dict[str, str]]:
    """Returns the cells of a sweep as overrides, dotted key to YAML text; seeds change fastest.

    `seeds` is written as 1,2,3 and each of `vary` as key.path=value,value; a comma inside brackets
    or braces belongs to its value. Raises ConfigError.
    """
    axes = [_axis("--vary", text) for text in vary]
    if seeds is not None:
        axes.append(("seed", _values("--seeds", seeds, seeds)))
    if not axes:
        raise ConfigError(
            "a sweep needs --seeds 1,2,3 or --vary key.path=value,value", key="--vary"
        )
    keys = [key for key, _ in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(
                f"{key} is varied twice", key=key, hint="give all of its values in one place"
            )
    choices = product(*(values for _, values in axes))
    return [dict(zip(keys, values, strict=True)) for values in choices]


def cell_names(cells: list[dict[str, str]]) -> list[str]:
    """Returns a directory name for each cell, such as initialization=random,seed=1.

    Names are safe for a file system and differ from each other.
    """
    leaves = {key: key.rpartition(".")[2] for key in cells[0]}
    shared = Counter(leaves.values())
    names: list[str] = []
    for cell in cells:
        parts = [
            f"{leaves[key] if shared[leaves[key]] == 1 else key}="
            + re.sub(r"[^A-Za-z0-9.+-]+", "_", value).strip("_")
            for key, value in cell.items()
        ]
        names.append(",".join(parts))
    taken = Counter(name.casefold() for name in names)
    for position, (name, cell) in enumerate(zip(names, cells, strict=True)):
        if taken[name.casefold()] > 1 or len(name) > MAX_NAME:
            digest = hashlib.sha256(repr(cell).encode()).hexdigest()[:8]
            names[position] = f"{name[: MAX_NAME - 9]}-{digest}"
    return names


def _axis(option: str, text: str) -> tuple[str, list[str]]:
    """Returns the key of key.path=value,value and its values."""
    key, equals, joined = text.partition("=")
    if not key or not equals:
        raise ConfigError(
            f"{option} {text}: write it as --vary key.path=value,value", key=option, value=text
        )
    return key, _values(option, text, joined)


def _values(option: str, text: str, joined: str) -> list[str]:
    """Returns the comma-separated values of `joined`; messages quote `option` and its `text`."""
    values, depth = [""], 0
    for character in joined:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            values.append("")
        else:
            values[-1] += character
    values = [value.strip() for value in values]
    for value in values:
        if not value:
            raise ConfigError(
                f"{option} {text}: a value is empty",
                key=option,
                value=text,
                hint="write one on each side of a comma",
            )
        if values.count(value) > 1:
            raise ConfigError(
                f"{option} {text}: {value} is given twice",
                key=option,
                value=text,
                hint="give each value once",
            )
    return values
