"""How the generators draw their rows: by `random()` alone, no row twice, a quarter held out."""

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
    # random() is the one method whose sequence Python promises to keep over its versions.
    return options[int(rng.random() * len(options))]


def sample(rng: Random, options: Sequence[T], count: int) -> list[T]:
    """Returns that many of the options, each at most once, in random order."""
    places: dict[int, None] = {}
    while len(places) < count:
        places[int(rng.random() * len(options))] = None
    return [options[place] for place in places]


def is_held_out(*places: int) -> bool:
    """Returns whether a template joined from the parts at these places is kept for test.

    Of any four neighbours in one part, with the others fixed, one is: so each part is met in train
    and a quarter of the combinations is not.
    """
    return sum(places) % 4 == 3


def capitalized(sentence: str) -> str:
    """Returns the sentence with a capital first letter and the rest as it is."""
    return sentence[0].upper() + sentence[1:]


def draw_splits(
    name: str, num_rows: int, seed: int, draw: Callable[[Random, bool], Rows]
) -> dict[str, Rows]:
    """Returns train (`num_rows` rows), validation and test (`max(200, num_rows // 8)` rows each).

    `draw(rng, held_out)` gives a group of rows that belong in one split, written with the
    templates of test or with those of the others; a group with a row that was there before is
    drawn again. Raises ValueError if `num_rows` is less than 1.
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
