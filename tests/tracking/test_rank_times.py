"""Which rank is said to be slow, and what is measured."""

import time

import numpy as np
import pytest
from accelerate import Accelerator

from trainer.tracking.rank_times import RankSummary, RankTimes, slow_rank


def summary(*seconds: float) -> RankSummary:
    return RankSummary(tokens=[100 + rank for rank in range(len(seconds))], seconds=list(seconds))


def test_the_record_has_the_extremes_and_the_median():
    assert summary(2.0, 5.0, 1.0).record() == {
        "tokens": [100, 102],
        "seconds": [1.0, 2.0, 5.0],
        "slowest": 1,
    }


def test_the_median_of_an_even_number_is_that_of_a_rank():
    """Of two ranks the slower one is compared with the other."""
    assert summary(2.0, 1.0).record()["seconds"] == [1.0, 1.0, 2.0]
    assert summary(2.0, 1.0).ratio == 2.0
    assert summary(4.0, 3.0, 2.0, 1.0).ratio == 2.0


@pytest.mark.parametrize(
    ("lines", "slow"),
    [
        ([], None),
        ([(1.0, 9.0)], None),
        ([(1.0, 1.6), (1.0, 1.6)], 1),
        ([(1.0, 1.5), (1.0, 1.5)], None),  # not more than 1.5 times
        ([(1.0, 9.0), (1.0, 1.0), (1.0, 9.0)], None),  # hiccups
        ([(1.0, 9.0), (9.0, 1.0)], None),  # each once
        ([(1.0, 1.0), (9.0, 1.0), (9.0, 1.0)], 0),
        ([(1.0, 1.0, 1.0, 3.0), (1.0, 1.0, 1.0, 3.0)], 3),
        ([(0.0, 0.0), (0.0, 0.0)], None),
    ],
)
def test_a_rank_is_slow_that_was_it_in_two_lines(lines, slow):
    assert slow_rank([summary(*seconds) for seconds in lines]) == slow


def test_the_sentence_names_rank_host_factor_and_tokens():
    sentence = summary(1.0, 1.0, 2.1).sentence("node7")
    assert sentence.startswith(
        "rank 2 (node7) computes 2.1 times as long as the median rank, "
        "on 102 tokens; ranks have 100 to 102. "
    )


def test_of_one_process_nothing_is_compared():
    times = RankTimes(Accelerator(cpu=True))
    times.count(np.array([3, 4]))
    with times.forward():
        time.sleep(0.01)
    assert times.summary() is None
