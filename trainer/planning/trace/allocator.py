"""What PyTorch's CUDA allocator reserves for a sequence of allocations: its pools, replayed."""

import bisect

BLOCK = 512
"""Sizes are rounded up to a multiple of this (c10/cuda/CUDACachingAllocator)."""
SMALL = 2**20
"""Sizes up to this come from segments of SMALL_SEGMENT bytes."""
SMALL_SEGMENT = 2 * 2**20
LARGE_SEGMENT = 20 * 2**20
"""Segment of larger sizes below OWN_SEGMENT; the others have one each, in steps of STEP."""
OWN_SEGMENT = 10 * 2**20
STEP = 2 * 2**20


class _Block:
    """A part of a segment, between its neighbours there."""

    __slots__ = ("after", "before", "free", "segment", "size", "start")

    def __init__(
        self, size: int, segment: int, start: int, before: "_Block | None", after: "_Block | None"
    ) -> None:
        self.size, self.segment, self.start = size, segment, start
        self.before, self.after = before, after
        self.free = False


_Free = list[tuple[int, int, int, _Block]]
"""Free blocks, each after its size, segment and start, in the order of the search for the best
fit."""


class CachingAllocator:
    """Two pools of segments, out of which blocks are cut by best fit; segments are never given
    back."""

    def __init__(self) -> None:
        self.reserved = 0
        """Bytes of all segments."""
        self.allocated = 0
        """Bytes of the blocks in use, with rests that are too small to be cut off."""
        self._num_segments = 0
        self._free: tuple[_Free, _Free] = ([], [])  # of large and small sizes
        self._used: dict[int, tuple[int, _Block]] = {}

    def allocate(self, storage: int, size: int) -> None:
        size = -(-size // BLOCK) * BLOCK
        small = int(size <= SMALL)
        free = self._free[small]
        index = bisect.bisect_left(free, (size,))
        block = free.pop(index)[3] if index < len(free) else self._new_segment(size)
        rest = block.size - size
        if rest >= BLOCK if small else rest > SMALL:
            block.size = size
            cut = _Block(rest, block.segment, block.start + size, block, block.after)
            if block.after is not None:
                block.after.before = cut
            block.after = cut
            _add(free, cut)
        block.free = False
        self.allocated += block.size
        self._used[storage] = (small, block)

    def free(self, storage: int) -> None:
        small, block = self._used.pop(storage)
        self.allocated -= block.size
        free = self._free[small]
        before, after = block.before, block.after
        if after is not None and after.free:
            _remove(free, after)
            _merge(block, after)
        if before is not None and before.free:
            _remove(free, before)
            _merge(before, block)
            block = before
        _add(free, block)

    def _new_segment(self, size: int) -> _Block:
        if size <= SMALL:
            reserved = SMALL_SEGMENT
        elif size < OWN_SEGMENT:
            reserved = LARGE_SEGMENT
        else:
            reserved = -(-size // STEP) * STEP
        self.reserved += reserved
        self._num_segments += 1
        return _Block(reserved, self._num_segments, 0, None, None)


def _add(free: _Free, block: _Block) -> None:
    block.free = True
    bisect.insort(free, (block.size, block.segment, block.start, block))


def _remove(free: _Free, block: _Block) -> None:
    del free[bisect.bisect_left(free, (block.size, block.segment, block.start))]


def _merge(first: _Block, second: _Block) -> None:
    """Adds a block to the one before."""
    first.size += second.size
    first.after = second.after
    if second.after is not None:
        second.after.before = first
