"""The largest batch and the longest sequence that fit into a GPU, found by bisection."""

from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

RANGES = ((64, 2_048), (256, 8_192), (1_024, 2**31))
"""Lengths are tried in these steps, each up to a length."""
MOST_TOKENS = 2**17
"""Tokens of a micro-batch up to which the largest one and the longest sequence are looked for."""
Needed = Callable[[int], int]
"""Bytes that a micro-batch size or a length needs; a larger one needs no less."""


def divisors(number: int) -> list[int]:
    """Returns the divisors of a number, in order."""
    return [size for size in range(1, number + 1) if number % size == 0]


def tried_lengths(longest: int) -> list[int]:
    """Returns the lengths to try, up to `longest`."""
    tried: list[int] = []
    for step, last in RANGES:
        first = tried[-1] if tried else 0
        tried += range(first + step, min(last, longest) + 1, step)
    return tried if longest in tried else [*tried, longest]


def last_fitting(
    values: Sequence[int], needed: Needed, memory: int, known: Collection[int]
) -> int | None:
    """Returns the last of increasing values that needs at most `memory`; None if none does.

    `known` are values whose need is already known; there is at least one. From those it
    doubles or halves the value until one fits and another does not, because large values take long
    to trace, and then tries where a parabola through the nearest three reaches `memory`, and
    every third time the middle.
    """
    sizes = {index: needed(value) for index, value in enumerate(values) if value in known}
    while True:
        low = max((index for index, size in sizes.items() if size <= memory), default=-1)
        high = min((index for index, size in sizes.items() if size > memory), default=len(values))
        if high - low <= 1:
            return values[low] if low >= 0 else None
        if high == len(values):
            index = max(low + 1, bisect_right(values, 2 * values[low]) - 1)
        elif low == -1:
            index = min(high - 1, bisect_right(values, values[high] // 2))
        else:
            index = (
                _likely(values, sizes, low, high, memory) if len(sizes) % 3 else (low + high) // 2
            )
        sizes[index] = needed(values[index])


def _likely(
    values: Sequence[int], sizes: Mapping[int, int], low: int, high: int, memory: int
) -> int:
    """Returns which index between `low` and `high` is likely the last that fits."""
    nearest = sorted(sizes, key=lambda index: min(abs(index - low), abs(index - high)))[:3]
    curve = np.polynomial.Polynomial.fit(
        [values[index] for index in nearest],
        [sizes[index] for index in nearest],
        deg=len(nearest) - 1,
    )
    fitting = [index for index in range(low + 1, high) if curve(values[index]) <= memory]
    return max(fitting, default=low + 1)
