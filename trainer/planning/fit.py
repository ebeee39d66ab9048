"""The largest batch and the longest sequence that fit into a GPU, found by bisection."""

from collections.abc import Callable, Sequence
from itertools import count

STEP = 64
"""Lengths are tried in multiples of this many tokens."""
Needed = Callable[[int], int]
"""Bytes that a micro-batch size or a length needs; a larger one needs no less."""


def divisors(number: int) -> list[int]:
    """Returns the divisors of a number, in order."""
    return [size for size in range(1, number + 1) if number % size == 0]


def largest_micro_batch(needed: Needed, share: int, memory: int) -> int | None:
    """Returns the largest micro-batch that divides a process's `share` of a step and fits into
    `memory` bytes; None if not even one example does."""
    return last_fitting(divisors(share), needed, memory)


def longest_sequence(needed: Needed, longest: int, memory: int) -> int | None:
    """Returns the longest sequence up to `longest`, in multiples of 64 tokens, that fits into
    `memory` bytes; None if none does."""
    return last_fitting([*range(STEP, longest, STEP), longest], needed, memory)


def last_fitting(values: Sequence[int], needed: Needed, memory: int) -> int | None:
    """Returns the last of increasing values that needs at most `memory`; None if none does.

    It tries the last value, then the first, and then cuts between one that fits and one that does
    not: where a straight line through both reaches `memory`, and every third time in the middle.
    """
    high, high_size = len(values) - 1, needed(values[-1])
    if high_size <= memory:
        return values[-1]
    low, low_size = 0, needed(values[0])
    if low_size > memory:
        return None
    for attempt in count(1):
        if high - low <= 1:
            break
        reached = (memory - low_size) / (high_size - low_size)
        wanted = values[low] + reached * (values[high] - values[low])
        index = sum(value <= wanted for value in values) - 1
        if attempt % 3 == 0:
            index = (low + high) // 2
        index = min(max(index, low + 1), high - 1)
        size = needed(values[index])
        if size <= memory:
            low, low_size = index, size
        else:
            high, high_size = index, size
    return values[low]
