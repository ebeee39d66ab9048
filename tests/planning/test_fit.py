"""The last value that fits, found in few tries."""

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from trainer.planning.fit import divisors, last_fitting, tried_lengths


@given(
    st.lists(st.integers(1, 2_000), min_size=1, max_size=60, unique=True).map(sorted),
    st.data(),
)
def test_it_is_that_of_brute_force(values, data):
    steps = st.integers(0, 10**6)
    sizes = [*accumulate(data.draw(st.lists(steps, min_size=len(values), max_size=len(values))))]
    needed = dict(zip(values, sizes, strict=True))
    memory = data.draw(st.one_of(st.sampled_from(sizes), st.integers(0, sizes[-1] + 10)))
    known = data.draw(st.sets(st.sampled_from(values), min_size=1))
    asked = []

    def ask(value):
        asked.append(value)
        return needed[value]

    found = last_fitting(values, ask, memory, known)
    assert found == max((value for value in values if needed[value] <= memory), default=None)
    assert len(asked) == len(set(asked))


@given(st.integers(1, 2**17), st.integers(0, 10**10), st.integers(0, 10**6), st.integers(0, 100))
def test_of_a_parabola_it_takes_few_tries(longest, constant, slope, bend):
    lengths = tried_lengths(longest)
    asked = []

    def ask(length):
        asked.append(length)
        return constant + slope * length + bend * length * length

    for memory in (constant, ask(lengths[len(lengths) // 3]), ask(lengths[-1])):
        asked.clear()
        last_fitting(lengths, ask, memory, {lengths[0]})
        assert len(asked) <= 16


@given(st.integers(1, 3_000))
def test_divisors(number):
    assert divisors(number) == [size for size in range(1, number + 1) if number % size == 0]


@given(st.integers(1, 300_000))
def test_lengths_increase_up_to_the_longest(longest):
    lengths = tried_lengths(longest)
    assert lengths == sorted(set(lengths))
    assert lengths[-1] == longest
    assert len(lengths) < 400


def test_the_whole_share_may_fit_where_less_does_not():
    """It needs no room for gradients of an earlier micro-batch."""
    needs = {1: 9, 2: 10, 4: 11, 8: 8}
    assert last_fitting([1, 2, 4, 8], needs.__getitem__, 8, {4, 8}) == 8
    assert last_fitting([1, 2, 4, 8], needs.__getitem__, 10, {4, 8}) == 8
