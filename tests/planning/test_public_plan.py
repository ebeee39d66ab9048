"""`trainer.plan`: the plan of a recipe in Python, which is what the command prints."""

import json

import pytest
from support.command_line import run
from support.paths import ROOT

import trainer
from trainer.errors import ConfigError


@pytest.fixture
def recipe(reviews_recipe):
    return trainer.Recipe(**reviews_recipe)


def test_it_equals_what_the_command_prints(reviews_recipe, write_recipe):
    file = write_recipe(reviews_recipe)
    changes = {"batch.micro_batch_size": 4}
    plan = trainer.plan(file, changes, gpu="t4", processes=2, nodes=2)
    assert isinstance(plan, trainer.Plan)
    assert (plan.fits, plan.micro_batch_size, plan.launch.processes) == (True, 4, 2)
    options = ("--gpu", "t4", "--processes", "2", "--nodes", "2")
    options += ("--set", "batch.micro_batch_size=4")
    printed = json.loads(run("plan", file, *options, "--json"))
    assert printed == json.loads(json.dumps(plan.as_dict()))
    assert printed["nodes"] == 2
    assert printed["bytes_sent"]["between"] > 0
    assert "micro-batches of 4 x 32 tokens; fits into t4" in plan.line
    assert str(plan).startswith("16 examples a step = 2 processes x micro-batch 4 x accumulation 2")


@pytest.mark.parametrize("memory", ["1.5GiB", 3 * 2**29])
def test_memory_is_a_size_or_bytes(memory, recipe, capfd):
    plan = trainer.plan(recipe, memory=memory)
    assert plan.gpus[0].gpu.memory == 3 * 2**29
    assert capfd.readouterr() == ("", "")


def test_a_launch_configuration_is_read(recipe):
    file = ROOT / "accelerate_configs" / "zero2.yaml"
    launch = trainer.plan(recipe, gpu="a100-80", config=str(file), processes=2).launch
    assert (launch.engine, launch.processes) == ("zero2", 2)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"gpu": "a1000"}, "--gpu"),
        ({"memory": "16"}, "--memory"),
        ({"memory": -1}, "--memory"),
        ({"processes": 0}, "processes"),
        ({"nodes": 2**40}, "nodes"),
        ({"processes": 2, "nodes": 4}, "--processes"),
        ({"config": "nowhere.yaml"}, "--config"),
    ],
)
def test_bad_input_is_one_sentence(given, key, recipe):
    with pytest.raises(ConfigError) as caught:
        trainer.plan(recipe, **given)
    assert caught.value.key == key
    assert caught.value.hint


def test_the_command_refuses_a_size_without_a_unit(reviews_recipe, write_recipe):
    run("plan", write_recipe(reviews_recipe), "--memory", "16", code=2)
