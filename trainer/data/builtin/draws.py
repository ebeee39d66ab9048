"""Draws rows reproducibly: none occurs twice, and test has templates that other splits lack."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar

Rows = list[dict[str, Any]]
T = TypeVar("T")


def words_of(text: str) -> tuple[str, ...]:
    """Returns the words of a text."""
    return tuple(text.split())


def choose(rng: Random, options: Sequence[T]) -> T:
    """Returns one of the options."""
    # random() is the only method whose sequence is guaranteed across versions of Python.
    return options[int(rng.random() * len(options))]


def sample(rng: Random, options: Sequence[T], count: int) -> list[T]:
    """Returns `count` different options in random order."""
    indices: dict[int, None] = {}
    while len(indices) < count:
        indices[int(rng.random() * len(options))] = None
    return [options[index] for index in indices]


def is_held_out(*indices: int) -> bool:
    """Returns whether a template made of the parts with these indices is reserved for test.

    Of any four consecutive indices of one part, with the others fixed, exactly one is. So every
    part occurs in train, and a quarter of the combinations does not.
    """
    return sum(indices) % 4 == 3


def capitalized(sentence: str) -> str:
    """Returns the sentence with its first letter capitalized and the rest unchanged."""
    return sentence[0].upper() + sentence[1:]


def draw_splits(
    name: str, num_rows: int, seed: int, draw: Callable[[Random, bool], Rows]
) -> dict[str, Rows]:
    """Returns train (`num_rows` rows), validation and test (`max(200, num_rows // 8)` rows each).

    `draw(rng, held_out)` returns rows that have to be in the same split, written with the templates
    of test if `held_out`. Groups with a row that has occurred before are dropped.

    Raises ValueError if `num_rows` is less than 1.
    """
    if num_rows < 1:
        raise ValueError(f"num_rows={num_rows} gives no train rows; use 1 or more")
    num_held_out = max(200, num_rows // 8)
    seen: set[str] = set()
    splits: dict[str, Rows] = {}
    for split, size in (("train", num_rows), ("validation", num_held_out), ("test", num_held_out)):
        rng = Random(f"{name}/{split}/{seed}")
        rows: Rows = []
        while len(rows) < size:
            group = draw(rng, split == "test")
            keys = {repr(row) for row in group}
            if len(keys) == len(group) and seen.isdisjoint(keys):
                seen |= keys
                rows += group
        del rows[size:]
        rows.sort(key=lambda _: rng.random())  # a shuffle
        splits[split] = rows
    return splits
