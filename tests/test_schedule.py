"""The learning rate as a function of the step."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trainer.recipe.training import Schedule
from trainer.schedule import learning_rate, total_steps, warmup_steps

PEAK = 2e-4


def rates(num_steps: int, **settings) -> list[float]:
    schedule = Schedule(steps=num_steps, **settings)
    return [
        learning_rate(step, peak=PEAK, schedule=schedule, num_steps=num_steps)
        for step in range(num_steps + 1)
    ]


def test_the_length_is_given_in_steps_or_in_epochs():
    assert total_steps(Schedule(steps=7), 100) == 7
    assert total_steps(Schedule(epochs=3), 100) == 300


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 0),
        ({"warmup_ratio": 0.1}, 10),
        ({"warmup_ratio": 0.061}, 7),
        ({"warmup_steps": 5}, 5),
        ({"warmup_steps": 0}, 0),
        ({"warmup_steps": 500}, 100),
    ],
)
def test_warmup_is_a_ratio_or_a_number_of_steps(settings, expected):
    assert warmup_steps(Schedule(steps=100, **settings), 100) == expected


@pytest.mark.parametrize("name", ["linear", "cosine", "constant"])
def test_warmup_rises_in_equal_parts_and_then_reaches_the_peak(name):
    rising = rates(20, name=name, warmup_steps=4)[:5]
    assert rising == pytest.approx([PEAK * part / 5 for part in (1, 2, 3, 4, 5)])


@pytest.mark.parametrize(
    ("name", "middle", "end"), [("linear", 0.5, 0), ("cosine", 0.5, 0), ("constant", 1, 1)]
)
@pytest.mark.parametrize("warmup", [0, 4])
def test_values_at_the_start_the_middle_and_the_end(name, middle, end, warmup):
    found = rates(20 + warmup, name=name, warmup_steps=warmup)
    assert found[warmup] == pytest.approx(PEAK)
    assert found[warmup + 10] == pytest.approx(PEAK * middle)
    assert found[-1] == pytest.approx(PEAK * end, abs=1e-18)


def test_cosine_falls_slowly_first():
    cosine, linear = rates(20, name="cosine"), rates(20, name="linear")
    assert cosine[5] == pytest.approx(PEAK * 0.8535533905932737)
    assert linear[5] == pytest.approx(PEAK * 0.75)


@given(st.sampled_from(["linear", "cosine", "constant"]), st.integers(1, 300), st.integers(0, 300))
def test_no_rate_is_zero_and_rates_fall_after_warmup(name, num_steps, warmup):
    assume(warmup <= num_steps)
    found = rates(num_steps, name=name, warmup_steps=warmup)[:-1]
    assert all(0 < rate <= PEAK for rate in found)
    assert found[:warmup] == sorted(found[:warmup])
    assert found[warmup:] == sorted(found[warmup:], reverse=True)
