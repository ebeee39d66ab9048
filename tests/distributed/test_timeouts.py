"""How long ranks wait for each other, by phase."""

from datetime import timedelta

import pytest
import torch
from torch import distributed as dist

from trainer.distributed.timeouts import (
    PREPARATION,
    TRAINING,
    step_time,
    training_time,
    wait_at_most,
)
from trainer.errors import LaunchError
from trainer.wording import format_duration


@pytest.fixture
def groups():
    """The default group of a world of one, and a second one as engines create them."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield [dist.group.WORLD, dist.new_group([0])]
    dist.destroy_process_group()


def waits(groups) -> set[timedelta]:
    return {group._get_backend(torch.device("cpu")).options._timeout for group in groups}


def test_every_group_has_a_shorter_timeout_in_training_than_before_and_after(groups, monkeypatch):
    wait_at_most(PREPARATION)
    assert waits(groups) == {timedelta(hours=4)}
    with training_time():
        assert waits(groups) == {TRAINING}
    assert waits(groups) == {PREPARATION}
    monkeypatch.setenv("TRAINER_STEP_TIMEOUT_SECONDS", "90")
    with training_time():
        assert waits(groups) == {timedelta(seconds=90)}


@pytest.mark.parametrize("value", ["half an hour", "-1", "0", "nan", "inf", ""])
def test_a_value_that_is_not_a_positive_number_is_refused(value, monkeypatch):
    monkeypatch.setenv("TRAINER_STEP_TIMEOUT_SECONDS", value)
    with pytest.raises(LaunchError, match="is not a number of seconds above 0") as caught:
        step_time()
    assert (caught.value.key, caught.value.value) == ("TRAINER_STEP_TIMEOUT_SECONDS", value)
    assert caught.value.hint == "unset it for 30 minutes"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3600, "1 hour"),
        (14400, "4 hours"),
        (60, "1 minute"),
        (600, "10 minutes"),
        (90, "90 seconds"),
        (1, "1 second"),
        (0.5, "0.5 seconds"),
    ],
)
def test_durations_are_worded_in_the_largest_whole_unit(seconds, text):
    assert format_duration(timedelta(seconds=seconds)) == text
