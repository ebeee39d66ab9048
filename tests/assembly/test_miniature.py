"""Every shipped recipe in miniature, through the whole path of the real command."""

import json

import pytest
from support.command_line import run

from trainer.assembly.miniature import smoke
from trainer.recipe.keys import given_keys
from trainer.recipe.shipped import shipped_recipes
from trainer.tasks.recipe import load_recipe

RECIPES = sorted(shipped_recipes())
ONE_OF_EACH_TASK = list({load_recipe(name).task.name: name for name in RECIPES}.values())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ONE_OF_EACH_TASK else pytest.mark.distributed)
        for name in RECIPES
    ],
)
def test_every_recipe_runs_in_miniature(name, tmp_path):
    recipe = load_recipe(name)
    # Loading the export in a fresh process takes seconds; tests/exports does it for each task.
    verified = name not in ONE_OF_EACH_TASK
    setting = f"checkpoint.verify_export={json.dumps(verified)}"
    run("train", name, "--smoke", "--set", setting, "--run-dir", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["export"]["verified"] == verified
    assert results["final"]["step"] == 4
    assert set(results["baseline"]) == {"validation", "test"}
    assert results["recipe"]["tuning"] == recipe.tuning.model_dump(mode="json")
    assert results["recipe"]["optimizer"] == recipe.optimizer.model_dump(mode="json")
    assert results["recipe"]["model"]["initialization"] == recipe.model.initialization
    assert (tmp_path / "run" / "model" / "config.json").is_file()
    assert ("zero_shot" in results) == (getattr(recipe.task, "zero_shot", None) is not None)


@pytest.mark.parametrize("name", RECIPES)
def test_the_miniature_is_of_the_same_family_and_tiny(name):
    from trainer.models.architecture import shape_config

    recipe = load_recipe(name)
    small = smoke(recipe)
    shape = shape_config(small.model)
    assert shape.model_type == shape_config(recipe.model).model_type
    assert shape.num_hidden_layers == 2
    assert small.data.source.builtin is not None


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_shown_and_counted(name):
    assert run("show", name)
    counts = json.loads(run("params", name, "--json"))
    assert counts["total"] >= counts["trainable"] > 0


def test_the_name_of_a_run_keeps_the_dots_of_its_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = ("--set", "checkpoint.verify_export=false")
    run("train", "llama-3.2-1b-sst2-head", "--smoke", *settings)
    assert (tmp_path / "runs" / "llama-3.2-1b-sst2-head-smoke" / "results.json").is_file()


def test_defaults_stay_defaults():
    """A run resumes with the defaults that it began with; keys that are given must be equal."""
    given = given_keys(smoke(load_recipe("demo")))
    assert "model.architecture" in given
    assert not given & {"model.head_labels", "model.pad_token", "data.special_tokens"}
