"""What PyTorch's CUDA allocator reserves for a sequence of allocations: its pools, replayed."""

import bisect
from dataclasses import dataclass, field

BLOCK = 512
"""Sizes are rounded up to a multiple of this (c10/cuda/CUDACachingAllocator)."""
SMALL = 2**20
"""Sizes up to this come from segments of SMALL_SEGMENT bytes."""
SMALL_SEGMENT = 2 * 2**20
LARGE_SEGMENT = 20 * 2**20
"""Segment of larger sizes below OWN_SEGMENT; the others have one each, in steps of STEP."""
OWN_SEGMENT = 10 * 2**20
STEP = 2 * 2**20


@dataclass(order=True)
class _Block:
    """A part of a segment; they are ordered as the allocator looks for the best fit."""

    size: int
    segment: int
    start: int
    before: "_Block | None" = field(default=None, compare=False, repr=False)
    after: "_Block | None" = field(default=None, compare=False, repr=False)
    free: bool = field(default=False, compare=False)


class CachingAllocator:
    """Two pools of segments, out of which blocks are cut by best fit; segments are never given
    back."""

    def __init__(self) -> None:
        self.reserved = 0
        """Bytes of all segments."""
        self.allocated = 0
        """Bytes of the blocks in use, with rests that are too small to be cut off."""
        self._num_segments = 0
        self._free: tuple[list[_Block], list[_Block]] = ([], [])  # of large and small sizes
        self._used: dict[int, tuple[int, _Block]] = {}

    def allocate(self, storage: int, size: int) -> None:
        size = -(-size // BLOCK) * BLOCK
        small = int(size <= SMALL)
        free = self._free[small]
        index = bisect.bisect_left(free, _Block(size, -1, -1))
        block = free.pop(index) if index < len(free) else self._new_segment(size)
        rest = block.size - size
        if rest >= BLOCK if small else rest > SMALL:
            block.size = size
            cut = _Block(rest, block.segment, block.start + size, block, block.after, free=True)
            if block.after is not None:
                block.after.before = cut
            block.after = cut
            bisect.insort(free, cut)
        block.free = False
        self.allocated += block.size
        self._used[storage] = (small, block)

    def free(self, storage: int) -> None:
        small, block = self._used.pop(storage)
        self.allocated -= block.size
        free = self._free[small]
        for neighbour in (block.before, block.after):
            if neighbour is not None and neighbour.free:
                del free[bisect.bisect_left(free, neighbour)]
                block = _merged(*sorted((block, neighbour), key=lambda part: part.start))
        block.free = True
        bisect.insort(free, block)

    def _new_segment(self, size: int) -> _Block:
        if size <= SMALL:
            reserved = SMALL_SEGMENT
        elif size < OWN_SEGMENT:
            reserved = LARGE_SEGMENT
        else:
            reserved = -(-size // STEP) * STEP
        self.reserved += reserved
        self._num_segments += 1
        return _Block(reserved, self._num_segments, 0)


def _merged(first: _Block, second: _Block) -> _Block:
    first.size += second.size
    first.after = second.after
    if second.after is not None:
        second.after.before = first
    return first
