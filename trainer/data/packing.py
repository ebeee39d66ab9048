"""Packing: short examples share a sequence, so that hardly any padding is computed."""

from bisect import bisect_left, insort
from collections.abc import Sequence


def pack(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Returns groups of indices whose lengths add up to `size` at most, best fit first.

    Longest first, each goes where the least room remains (best-fit decreasing); no length is over
    `size`.
    """
    groups: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # of each group that is not full: what is left, its number
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        length = lengths[index]
        place = bisect_left(rooms, (length, -1))
        if place < len(rooms):
            room, group = rooms.pop(place)
            groups[group].append(index)
        else:
            room, group = size, len(groups)
            groups.append([index])
        if room > length:
            insort(rooms, (room - length, group))
    return groups
