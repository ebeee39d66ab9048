"""Packing: every example once, none over the size, and hardly any room left."""

import random
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.packing import pack


@st.composite
def examples(draw: st.DrawFn) -> tuple[list[int], int]:
    """Lengths, and a size that none of them is over."""
    size = draw(st.integers(1, 60))
    return draw(st.lists(st.integers(1, size), max_size=80)), size


@given(examples())
def test_every_example_comes_once_and_no_group_is_over_the_size(given):
    lengths, size = given
    groups = pack(lengths, size)
    assert sorted(chain.from_iterable(groups)) == list(range(len(lengths)))
    assert all(group and sum(lengths[i] for i in group) <= size for group in groups)


@given(examples())
def test_no_two_groups_would_fit_into_one(given):
    lengths, size = given
    filled = sorted(sum(lengths[i] for i in group) for group in pack(lengths, size))
    assert len(filled) < 2 or filled[0] + filled[1] > size


@given(examples())
def test_the_groups_are_the_same_each_time_and_do_not_depend_on_the_order_of_like_lengths(given):
    lengths, size = given
    groups = pack(lengths, size)
    assert pack(lengths, size) == groups
    by_length = [sorted(lengths[i] for i in group) for group in groups]
    ordered = sorted(lengths)
    again = [sorted(ordered[i] for i in group) for group in pack(ordered, size)]
    assert sorted(by_length) == sorted(again)


def test_the_longest_goes_first_and_each_where_it_fits_best():
    assert pack([3, 5, 8, 2, 7], 10) == [[2, 3], [4, 0], [1]]
    assert pack([10, 10], 10) == [[0], [1]]
    assert pack([], 10) == []


@pytest.mark.parametrize("size", [64, 512, 4096])
@pytest.mark.parametrize("kind", ["uniform", "short", "long tail"])
def test_random_lengths_leave_hardly_any_room(size, kind):
    draw = random.Random(1)
    lengths = {
        "uniform": [draw.randint(1, size) for _ in range(1000)],
        "short": [draw.randint(1, size // 4) for _ in range(1000)],
        "long tail": [min(size, 1 + int(draw.lognormvariate(3, 1))) for _ in range(1000)],
    }[kind]
    groups = pack(lengths, size)
    if sum(lengths) < 20 * size:  # a few groups: only the last of them may have room
        assert len(groups) == -(-sum(lengths) // size)
    else:
        assert sum(lengths) / (len(groups) * size) >= 0.95
