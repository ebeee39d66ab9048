"""How long a run still trains: said once, after twenty steps, without pauses."""

import re
import time

import pytest
from support.command_line import run

from trainer.tracking.time_to_go import Planned, TimeToGo


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets: seconds in a list of one."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_twenty_steps_after_the_first_are_measured_and_said_once(clock):
    to_go = TimeToGo(1000)
    said = []
    for step in range(1, 60):
        clock[0] += 9.0 if step == 1 else 0.2
        said.append(to_go.after(step))
    assert [sentence for sentence in said if sentence] == ["20 steps took 4 s: about 3.3 min to go"]
    assert said[20] is not None


def test_a_resumed_session_measures_its_own_steps(clock):
    to_go = TimeToGo(1000)
    said = {}
    for step in range(501, 560):
        said[step] = to_go.after(step)
        clock[0] += 1
    assert said.pop(521) == "20 steps took 20 s: about 8 min to go"
    assert not any(said.values())


def test_pauses_do_not_count(clock):
    to_go = TimeToGo(101)
    for step in range(1, 22):
        sentence = to_go.after(step)
        clock[0] += 1
        if step in (1, 7):
            clock[0] += 300
            to_go.pause(300)
    assert sentence == "20 steps took 20 s: about 80 s to go"


@pytest.mark.parametrize(
    ("planned", "end"),
    [
        (Planned(seconds_per_step=(0.9, 2.0)), " (the plan said 12 min to 27 min)"),
        (Planned(seconds_per_step=(1.0, 1.0)), " (the plan said 13 min)"),
        (Planned(memory_bytes=5), ""),
        (None, ""),
    ],
)
def test_the_plan_stands_beside_it(planned, end, clock):
    to_go = TimeToGo(821)
    to_go.planned = planned
    for step in range(1, 22):
        sentence = to_go.after(step)
        clock[0] += 1
    assert sentence == f"20 steps took 20 s: about 13 min to go{end}"


def test_a_run_that_is_about_to_end_says_nothing(clock):
    to_go = TimeToGo(21)
    assert [to_go.after(step) for step in range(1, 22)] == [None] * 21


def test_a_real_run_says_it_without_the_time_of_evaluations(
    reviews_recipe, write_recipe, tmp_path, monkeypatch
):
    """The evaluation after step 20 is slow; if it counted, twenty steps would take over 1.5 s."""
    from trainer import loop

    really = loop.evaluate_and_note_best

    def slowly(*arguments):
        time.sleep(1.5)
        return really(*arguments)

    monkeypatch.setattr(loop, "evaluate_and_note_best", slowly)
    reviews_recipe["schedule"] = {"name": "linear", "steps": 22}
    reviews_recipe["evaluation"] |= {"every": 20}
    output = run("train", write_recipe(reviews_recipe), "--run-dir", tmp_path / "run")
    (seconds,) = re.findall(r"^20 steps took ([\d.]+) s: about .* to go$", output, re.MULTILINE)
    assert float(seconds) < 1.5
