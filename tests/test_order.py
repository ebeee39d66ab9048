"""The order of examples: once an epoch, the same on any number of ranks, resumed by arithmetic."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.order import DataOrder


def make(
    num_examples: int, size: int = 4, *, seed: int = 1, bucketing: bool = True, max_length: int = 50
) -> DataOrder:
    lengths = np.random.default_rng(num_examples).integers(1, max_length, num_examples)
    return DataOrder(seed=seed, lengths=lengths, global_batch_size=size, length_bucketing=bucketing)


def epoch_of(order: DataOrder, epoch: int = 0) -> list[np.ndarray]:
    first = epoch * order.steps_per_epoch
    return [order.examples(step) for step in range(first, first + order.steps_per_epoch)]


counts = st.integers(1, 400)
sizes = st.integers(1, 20)


@given(counts, sizes, st.booleans(), st.integers(0, 3))
def test_every_example_comes_once_in_each_epoch(num, size, bucketing, epoch):
    steps = epoch_of(make(num, size, bucketing=bucketing), epoch)
    assert sorted(np.concatenate(steps)) == list(range(num))
    assert [len(ids) for ids in steps[:-1]] == [size] * (len(steps) - 1)
    assert 1 <= len(steps[-1]) <= size


@given(counts, sizes, st.integers(1, 5), st.integers(1, 7), st.data())
def test_ranks_divide_a_step_whatever_their_number(num, size, world_size, micro, data):
    order = make(num, size)
    step = data.draw(st.integers(0, 2 * order.steps_per_epoch))
    ranks = [
        order.micro_batches(step, rank=rank, world_size=world_size, micro_batch_size=micro)
        for rank in range(world_size)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    assert all(len(ids) <= micro for batches in ranks for ids in batches)
    together = np.concatenate([ids for batches in ranks for ids in batches])
    assert sorted(together) == sorted(order.examples(step))


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 6))
def test_a_full_step_has_accumulation_micro_batches_on_each_rank(micro, world_size, accumulation):
    size = micro * world_size * accumulation
    order = make(3 * size, size)
    for rank in range(world_size):
        batches = order.micro_batches(0, rank=rank, world_size=world_size, micro_batch_size=micro)
        assert [len(ids) for ids in batches] == [micro] * accumulation


def test_a_short_last_step_leaves_some_ranks_an_empty_micro_batch():
    order = make(9, 8)
    last = [order.micro_batches(1, rank=r, world_size=4, micro_batch_size=2) for r in range(4)]
    assert sorted(len(ids) for (ids,) in last) == [0, 0, 0, 1]


@given(counts, sizes, st.integers(0, 50))
def test_a_resumed_run_takes_the_same_steps(num, size, step):
    played = make(num, size)
    before = [played.examples(earlier) for earlier in range(step + 1)]
    assert np.array_equal(make(num, size).examples(step), before[-1])


def test_epochs_differ_in_batches_and_in_their_order():
    order = make(40, 4)
    first, second = epoch_of(order, 0), epoch_of(order, 1)
    assert not all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    assert {frozenset(ids) for ids in first} != {frozenset(ids) for ids in second}
    assert [order.epoch_of(step) for step in (0, 9, 10, 19, 20)] == [0, 0, 1, 1, 2]


def test_seeds_differ():
    assert not np.array_equal(make(40, seed=1).examples(0), make(40, seed=2).examples(0))


def padded(order: DataOrder, lengths: np.ndarray) -> int:
    return sum(len(ids) * int(lengths[ids].max()) for ids in epoch_of(order))


def test_bucketing_saves_most_of_the_padding():
    lengths = np.random.default_rng(0).integers(1, 200, 1000)
    bucketed, plain = (
        DataOrder(seed=1, lengths=lengths, global_batch_size=10, length_bucketing=choice)
        for choice in (True, False)
    )
    padding = padded(bucketed, lengths) - lengths.sum()
    assert padding < 0.1 * (padded(plain, lengths) - lengths.sum())


def test_buckets_are_shuffled_so_that_lengths_do_not_rise_over_an_epoch():
    order = make(400, 4, max_length=1000)
    longest = [int(order._lengths[ids].max()) for ids in epoch_of(order)]
    rises = sum(one < other for one, other in pairwise(longest))
    assert 0.3 < rises / len(longest) < 0.7


def test_lengths_are_sorted_within_pools_smaller_than_an_epoch():
    lengths = np.arange(400)
    order = DataOrder(seed=1, lengths=lengths, global_batch_size=2, length_bucketing=True)
    # If the whole epoch were sorted, each batch would hold two neighbours.
    assert any(ids[1] - ids[0] > 1 for ids in epoch_of(order))


@pytest.mark.parametrize("num", [40, 43])
def test_without_bucketing_lengths_do_not_decide_the_batches(num):
    orders = [make(num, bucketing=False, max_length=length) for length in (2, 50)]
    for one, other in zip(*map(epoch_of, orders), strict=True):
        assert set(one) == set(other)


def test_examples_of_a_step_are_sorted_by_length():
    order = make(40, 8, bucketing=False)
    for ids in epoch_of(order):
        assert np.all(np.diff(order._lengths[ids]) >= 0)


def test_ranks_get_about_equally_many_tokens():
    lengths = np.arange(1, 65)
    order = DataOrder(seed=1, lengths=lengths, global_batch_size=64, length_bucketing=True)
    tokens = [
        sum(
            int(lengths[ids].sum())
            for ids in order.micro_batches(0, rank=rank, world_size=4, micro_batch_size=4)
        )
        for rank in range(4)
    ]
    assert max(tokens) - min(tokens) < 0.02 * max(tokens)


@pytest.mark.parametrize(
    "change",
    [{"seed": 2}, {"lengths": [3, 1, 2]}, {"global_batch_size": 3}, {"length_bucketing": False}],
    ids=lambda change: next(iter(change)),
)
def test_the_digest_tells_orders_apart(change):
    settings = {
        "seed": 1,
        "lengths": [1, 2, 3],
        "global_batch_size": 2,
        "length_bucketing": True,
    }
    digest = DataOrder(**settings).digest()
    assert digest == DataOrder(**settings).digest()
    assert digest != DataOrder(**(settings | change)).digest()
