"""A finished run that trains longer is the run that was longer at once, or is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from support.command_line import run
from support.launches import tensors_of

from trainer.errors import RunDirectoryError
from trainer.process.continuation import check_length
from trainer.process.run_directory import check_recipe, write_recipe
from trainer.state import TrainState
from trainer.tasks.recipe import parse_recipe


@pytest.fixture
def recipe(reviews_recipe, write_recipe) -> Path:
    reviews_recipe["data"]["source"]["num_rows"] = 80
    reviews_recipe["checkpoint"]["keep_best"] = False  # so that model/ holds the last step
    reviews_recipe["schedule"] = {"name": "constant", "epochs": 1}
    return write_recipe(reviews_recipe)


def lines_of(directory: Path) -> list[dict[str, object]]:
    """Returns the lines of metrics.jsonl without what differs between two equal runs."""
    timed = ("seconds", "tokens_per_second", "peak_memory_bytes")
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in timed} for line in lines]


def test_a_finished_run_continues_as_if_it_had_been_longer_from_the_start(recipe, tmp_path):
    short, long = tmp_path / "short", tmp_path / "long"
    run("train", recipe, "--run-dir", short)
    first = (short / "model" / "model.safetensors").read_bytes()
    assert "finished" in run("train", recipe, "--run-dir", short)
    output = run("train", recipe, "--run-dir", short, "--set", "schedule.epochs=2")
    assert "schedule.epochs was 1 and is now 2" in output
    assert "resuming from" in output
    run("train", recipe, "--run-dir", long, "--set", "schedule.epochs=2")
    name = f"checkpoints/step-{lines_of(long)[-1]['step']:08d}"
    for kind in ("model", "optimizer"):
        left, right = (tensors_of(directory / name, kind) for directory in (short, long))
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left)
    assert lines_of(short) == lines_of(long)
    model = (short / "model" / "model.safetensors").read_bytes()
    assert model == (long / "model" / "model.safetensors").read_bytes() != first
    left, right = (
        json.loads((directory / "results.json").read_text()) for directory in (short, long)
    )
    assert left["recipe"] == right["recipe"]
    assert left["best"]["step"] == right["best"]["step"]
    assert len(left["epochs"]) == 2

    refused = run("train", recipe, "--run-dir", short, code=2)
    assert "schedule.epochs=1 asks for" in refused
    assert json.loads((short / "status.json").read_text())["state"] == "done"
    assert "finished" in run("train", short / "config.yaml", "--run-dir", short)
    shutil.rmtree(short / "checkpoints")
    output = run("train", recipe, "--run-dir", short, "--set", "schedule.epochs=3", code=2)
    assert f"model.name_or_path: {short / 'model'}" in output


CONSTANT = {"name": "constant", "epochs": 2}


@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [
        ({"name": "linear", "epochs": 2}, {"name": "linear", "epochs": 4}, True),
        ({"name": "cosine", "steps": 20}, {"name": "cosine", "steps": 30}, True),
        (CONSTANT, {"name": "linear", "epochs": 4}, True),
        (CONSTANT, {**CONSTANT, "epochs": 4, "warmup_steps": 2}, True),
        (CONSTANT, {**CONSTANT, "epochs": 4}, False),
        (CONSTANT, {"name": "constant", "steps": 30}, False),
    ],
)
def test_recipes_that_differ_in_their_length(tmp_path, reviews_recipe, before, after, refused):
    reviews_recipe["schedule"] = before
    write_recipe(tmp_path, parse_recipe(reviews_recipe, "x"))
    reviews_recipe["schedule"] = after
    recipe = parse_recipe(reviews_recipe, "x")
    if not refused:
        assert check_recipe(tmp_path, recipe)
        return
    with pytest.raises(RunDirectoryError, match="another recipe") as caught:
        check_recipe(tmp_path, recipe)
    assert str(caught.value.key).startswith("schedule.")
    named = f"model.name_or_path: {tmp_path / 'model'}" in str(caught.value.hint)
    assert named == (before["name"] == after["name"] and "warmup_steps" not in after)


def longer(values, schedule, patience, steps_per_epoch=10, **state) -> None:
    """Checks whether a run with the schedule of `values`, in a given state, may get another."""
    earlier = parse_recipe(values, "x")
    recipe = type(earlier).model_validate(
        {
            **earlier.model_dump(mode="python"),
            "schedule": {"name": "constant", **schedule},
            "evaluation": {**earlier.evaluation.model_dump(), "patience": patience},
        }
    )
    num_steps = recipe.schedule.steps or (recipe.schedule.epochs or 0) * steps_per_epoch
    check_length(
        Path("run"),
        earlier,
        recipe,
        TrainState(**state),
        num_steps=num_steps,
        steps_per_epoch=steps_per_epoch,
    )


def test_steps_taken_must_be_those_of_the_longer_run(reviews_recipe):
    reviews_recipe["schedule"] = {"name": "constant", "epochs": 2}
    longer(reviews_recipe, {"epochs": 4}, None, step=20)
    longer(reviews_recipe, {"steps": 15}, None, step=13)
    with pytest.raises(RunDirectoryError, match="has taken 20 steps") as caught:
        longer(reviews_recipe, {"steps": 19}, None, step=20)
    assert (caught.value.key, caught.value.value) == ("schedule.steps", 19)
    with pytest.raises(RunDirectoryError, match="3 evaluations without a better one") as caught:
        longer(reviews_recipe, {"epochs": 4}, 3, step=15, num_evaluations_since_best=3)
    assert (caught.value.key, caught.value.value) == ("evaluation.patience", 3)
    longer(reviews_recipe, {"epochs": 4}, 4, step=15, num_evaluations_since_best=3)


@pytest.mark.parametrize(
    ("before", "after", "fits"),
    [
        ({"warmup_ratio": 0.1}, {"warmup_ratio": 0.1}, False),
        ({"warmup_ratio": 0.0}, {"warmup_ratio": 0.0}, True),
        ({"warmup_steps": 5}, {"warmup_steps": 5}, True),
        ({"warmup_steps": 25}, {"warmup_steps": 25}, False),  # of 20, and then of 40
    ],
)
def test_a_warm_up_must_not_depend_on_the_length(reviews_recipe, before, after, fits):
    reviews_recipe["schedule"] = {"name": "constant", "epochs": 2, **before}
    longer(reviews_recipe, {"epochs": 4, **after}, None, step=0)
    if fits:
        longer(reviews_recipe, {"epochs": 4, **after}, None, step=20)
        return
    with pytest.raises(RunDirectoryError, match=r"model\.name_or_path: run/model"):
        longer(reviews_recipe, {"epochs": 4, **after}, None, step=20)
