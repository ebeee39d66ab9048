"""A finished run beside its plan, in results.json and in the report."""

import json

import pytest
import torch
from support.command_line import run

import trainer
from trainer.assembly.build import build_run
from trainer.engines.accelerator import launched
from trainer.planning.gpus import GPUS
from trainer.planning.measured import (
    beside_plan,
    planned_for_dry_run,
    planned_for_run,
    planned_on,
)
from trainer.report.plan_sentence import plan_sentence
from trainer.tasks.recipe import parse_recipe
from trainer.tracking.time_to_go import Planned

PLANNED = Planned(memory_bytes=3 * 2**30, seconds_per_step=(1.0, 2.5))


@pytest.fixture
def planned(monkeypatch):
    """Sets what the plan of each run says."""

    def plan(value):
        monkeypatch.setattr("trainer.planning.measured.planned_for_run", lambda *_: value)

    return plan


@pytest.fixture
def built(reviews_recipe, tmp_path):
    """A run on this CPU, with its accelerator, and the list of what it says."""
    said = []
    recipe = parse_recipe(reviews_recipe, "test")
    with launched(recipe, tmp_path) as accelerator:
        yield build_run(recipe, accelerator, tmp_path, progress=said.append), accelerator, said


def test_a_run_is_planned_for_a_gpu(built):
    run_, accelerator, said = built
    before = torch.get_rng_state()
    planned = planned_on(run_, accelerator, GPUS["t4"])
    assert torch.equal(torch.get_rng_state(), before)
    assert said == []
    states = 16 * run_.parameter_counts.total  # weights, gradients and moments
    assert states < planned.memory_bytes < states + 50 * 2**20
    low, high = planned.seconds_per_step
    assert 0 < low < high < 1


def test_on_a_cpu_a_run_has_no_plan_and_a_dry_run_has_that_of_its_tensors(built):
    run_, accelerator, said = built
    assert planned_for_run(run_, accelerator) is None
    planned = planned_for_dry_run(run_, accelerator)
    states = 16 * run_.parameter_counts.total
    assert states < planned.memory_bytes < states + 10 * 2**20
    assert planned.seconds_per_step is None
    assert said == []


def test_a_plan_that_fails_is_left_out_with_a_note(built, monkeypatch):
    run_, accelerator, said = built

    def fail(model):
        raise ValueError(f"no shape\nof {model.initialization} weights")

    monkeypatch.setattr("trainer.planning.numbers.shape_config", fail)
    assert planned_on(run_, accelerator, GPUS["t4"]) is None
    assert planned_for_dry_run(run_, accelerator) is None
    note = "  note: this run is not planned: no shape of random weights"
    assert [update.message for update in said] == [note, note]


def test_memory_and_time_stand_beside_the_plan():
    assert beside_plan(PLANNED, memory_bytes=7, seconds=20.0, num_steps=10) == {
        "memory": {"planned": 3 * 2**30, "measured": 7},
        "seconds": {"planned": [10.0, 25.0], "measured": 20.0},
    }
    assert beside_plan(None, memory_bytes=0, seconds=20.0, num_steps=10) == {
        "memory": {"planned": None, "measured": None},
        "seconds": {"planned": None, "measured": 20.0},
    }


@pytest.mark.parametrize(
    ("planned", "sentence"),
    [
        (
            PLANNED,
            "beside the plan: peak memory 2.50 GiB (planned 3.00 GiB), training took 20 s "
            "(planned 10 s to 25 s)",
        ),
        (Planned(memory_bytes=2**30), "beside the plan: peak memory 2.50 GiB (planned 1.00 GiB)"),
        (
            Planned(seconds_per_step=(12.0, 12.0)),
            "beside the plan: training took 20 s (planned 2 min)",
        ),
        (Planned(), None),
        (None, None),
    ],
)
def test_the_sentence_says_what_was_planned(planned, sentence):
    plan = beside_plan(planned, memory_bytes=5 * 2**29, seconds=20.0, num_steps=10)
    assert plan_sentence({"plan": plan}) == sentence


def test_runs_of_older_versions_say_nothing():
    assert plan_sentence({}) is None


def test_a_run_with_a_plan_reports_both(planned, reviews_recipe, write_recipe, tmp_path):
    planned(PLANNED)
    reviews_recipe["schedule"] = {"name": "linear", "steps": 24}
    reviews_recipe["evaluation"] |= {"baseline": False, "every": 24}
    directory = tmp_path / "run"
    output = run("train", write_recipe(reviews_recipe), "--run-dir", directory)
    assert "to go (the plan said 3 s to 7.5 s)" in output
    results = json.loads((directory / "results.json").read_text())
    plan = results["plan"]
    assert plan["memory"] == {"planned": 3 * 2**30, "measured": results["peak_memory_bytes"]}
    assert plan["seconds"]["planned"] == [24.0, 60.0]
    assert plan["seconds"]["measured"] == pytest.approx(sum(results["seconds"]["per_epoch"]))
    text = (directory / "report.md").read_text()
    assert "- beside the plan: peak memory" in text
    assert "(planned 3.00 GiB)" in text
    assert "(planned 24 s to 60 s)" in (directory / "report.html").read_text()

    trainer.write_report(directory)
    assert (directory / "report.md").read_text() == text


def test_a_run_without_a_plan_has_what_was_measured(reviews_recipe, tmp_path):
    result = trainer.train(
        trainer.Recipe(**reviews_recipe), run_dir=tmp_path / "run", progress=None
    )
    plan = json.loads((tmp_path / "run" / "results.json").read_text())["plan"]
    assert plan["memory"]["planned"] is plan["seconds"]["planned"] is None
    assert plan["memory"]["measured"] > 10**7
    assert "beside the plan" not in (tmp_path / "run" / "report.md").read_text()
    assert result.state == "done"
