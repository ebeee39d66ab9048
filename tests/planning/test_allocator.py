"""The model of CUDA's caching allocator: hand-computed sequences, and what always holds."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from trainer.planning.trace.allocator import CachingAllocator

KIB, MIB = 2**10, 2**20


def after(*events):
    """Returns an allocator after storages of sizes, by number, and frees, as their numbers less 1
    times -1."""
    allocator = CachingAllocator()
    for number, event in enumerate(events):
        if event < 0:
            allocator.free(-event - 1)
        else:
            allocator.allocate(number, event)
    return allocator


def freed(number):
    return -number - 1


def check(allocator, *, allocated, reserved):
    assert (allocator.allocated, allocator.reserved) == (allocated, reserved)


def test_sizes_are_rounded_up_to_512_bytes():
    check(after(1), allocated=512, reserved=2 * MIB)
    check(after(512), allocated=512, reserved=2 * MIB)
    check(after(513, 1023), allocated=2 * KIB, reserved=2 * MIB)


def test_sizes_up_to_a_mebibyte_share_segments_of_two():
    check(after(MIB, MIB), allocated=2 * MIB, reserved=2 * MIB)
    check(after(MIB, MIB, 1), allocated=2 * MIB + 512, reserved=4 * MIB)
    check(after(*[512] * 4096), allocated=2 * MIB, reserved=2 * MIB)
    check(after(MIB - 511, MIB), allocated=2 * MIB, reserved=2 * MIB)


def test_larger_ones_below_ten_mebibytes_share_segments_of_twenty():
    check(after(MIB + 1), allocated=MIB + 512, reserved=20 * MIB)
    check(after(9 * MIB, 9 * MIB), allocated=18 * MIB, reserved=20 * MIB)
    check(after(9 * MIB, 9 * MIB, 9 * MIB), allocated=27 * MIB, reserved=40 * MIB)
    check(after(10 * MIB - 1), allocated=10 * MIB, reserved=10 * MIB)  # rounded before


def test_those_of_ten_and_more_have_their_own_in_steps_of_two():
    check(after(10 * MIB), allocated=10 * MIB, reserved=10 * MIB)
    check(after(20 * MIB + 512), allocated=20 * MIB + 512, reserved=22 * MIB)
    check(after(21 * MIB), allocated=22 * MIB, reserved=22 * MIB)  # 1 MiB is not cut off
    check(after(21 * MIB + 1, 5 * MIB), allocated=27 * MIB, reserved=42 * MIB)


def test_a_large_block_is_cut_only_if_more_than_a_mebibyte_is_left():
    # Of 20 MiB, 9 and 9 leave 2; a block of 1 MiB + 512 B would leave less than 1 MiB.
    rest = MIB + 512
    check(after(9 * MIB, 9 * MIB, rest), allocated=20 * MIB, reserved=20 * MIB)
    # 9 MiB and 9 MiB less 512 B leave 2 MiB + 512 B: of that, more than 1 MiB is left.
    few = after(9 * MIB, 9 * MIB - 512, rest - 512 + 1)
    check(few, allocated=9 * MIB + 9 * MIB - 512 + 2 * MIB + 512, reserved=20 * MIB)
    cut = after(9 * MIB, 8 * MIB, rest)
    check(cut, allocated=18 * MIB + 512, reserved=20 * MIB)
    # A whole segment of 22 MiB for 21: 1 MiB is not more than 1 MiB.
    check(after(21 * MIB, freed(0), 21 * MIB), allocated=22 * MIB, reserved=22 * MIB)


def test_a_small_block_is_cut_if_512_bytes_are_left():
    check(after(MIB, MIB - 512, 512), allocated=2 * MIB, reserved=2 * MIB)


def test_small_sizes_do_not_take_from_large_segments_nor_the_other_way_round():
    check(after(9 * MIB, 512), allocated=9 * MIB + 512, reserved=22 * MIB)
    check(after(512, freed(0), 9 * MIB), allocated=9 * MIB, reserved=22 * MIB)


def test_the_smallest_block_that_is_large_enough_is_taken():
    # Free afterwards: 30 MiB and 12 MiB, of segments of their own.
    free = (30 * MIB, 12 * MIB, freed(0), freed(1))
    allocator = after(*free, 11 * MIB, 30 * MIB)
    check(allocator, allocated=42 * MIB, reserved=42 * MIB)
    check(after(*free, 13 * MIB, 12 * MIB), allocated=25 * MIB, reserved=42 * MIB)


def test_free_neighbours_become_one_block():
    thirds = (6 * MIB, 6 * MIB, 6 * MIB)
    check(after(*thirds, freed(0), freed(2), 9 * MIB), allocated=15 * MIB, reserved=40 * MIB)
    check(after(*thirds, freed(0), freed(1), 12 * MIB), allocated=18 * MIB, reserved=20 * MIB)
    check(after(*thirds, freed(1), freed(0), 12 * MIB), allocated=18 * MIB, reserved=20 * MIB)
    whole = after(*thirds, freed(0), freed(2), freed(1), 20 * MIB)
    check(whole, allocated=20 * MIB, reserved=20 * MIB)


def test_nothing_is_given_back():
    check(after(100 * MIB, freed(0)), allocated=0, reserved=100 * MIB)


SIZES = st.one_of(
    st.integers(1, 3 * MIB),
    st.integers(1, 64 * MIB),
    st.sampled_from([512, MIB, MIB + 1, 10 * MIB, 20 * MIB]),
)


@given(st.lists(st.tuples(SIZES, st.one_of(st.none(), st.integers(0, 60))), max_size=60))
def test_blocks_never_overlap_and_add_up(steps):
    allocator, live = CachingAllocator(), {}
    most = 0
    for number, (size, old) in enumerate(steps):
        allocator.allocate(number, size)
        live[number] = -(-size // 512) * 512
        if old in live:
            del live[old]
            allocator.free(old)
        wanted = sum(live.values())
        most = max(most, wanted)
        assert wanted <= allocator.allocated <= allocator.reserved
        assert allocator.allocated <= wanted + MIB * len(live)  # what is too small to be cut
        spans = sorted(
            (block.segment, block.start, block.start + block.size)
            for _, block in allocator._used.values()
        )
        assert sum(end - start for _, start, end in spans) == allocator.allocated
        for (segment, _, end), (following, start, _) in pairwise(spans):
            assert segment != following or end <= start
    assert most <= allocator.reserved
    for number in live:
        allocator.free(number)
    assert allocator.allocated == 0
    free = [block for pool in allocator._free for *_, block in pool]
    assert sum(block.size for block in free) == allocator.reserved
    assert len({block.segment for block in free}) == len(free)  # one of each segment
