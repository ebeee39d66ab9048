"""Packing: short examples share a sequence, so that little padding is computed."""

from bisect import bisect_left, insort
from collections.abc import Sequence


def pack(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Returns groups of indices whose lengths sum to at most `size`, by best-fit decreasing.

    Examples are placed from longest to shortest, each in the group with the least room for it. No
    length may exceed `size`.
    """
    groups: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (room left, index) of each group that is not full
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
