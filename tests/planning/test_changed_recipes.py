"""Settings that a plan proposes: what each holds, and that none contradicts the recipe."""

import pytest

from trainer.planning.plan import plan
from trainer.tasks.recipe import parse_recipe

MODES = ("full", "qlora")


def changes_of(values, **options):
    planned = plan(parse_recipe(values, "test"), gpu="t4", **options)
    return planned, {change.setting: change for change in planned.changes}


@pytest.mark.parametrize("mode", MODES)
def test_every_change_is_a_recipe_that_holds_what_is_said(mode, reviews_recipe):
    reviews_recipe["tuning"] = {"mode": mode}
    reviews_recipe["batch"] |= {"global_batch_size": 16, "micro_batch_size": 16}
    planned, changes = changes_of(reviews_recipe)
    assert planned.as_dict()["changes"] == [change.as_dict() for change in changes.values()]
    assert "batch.micro_batch_size=8" in changes
    reviews_recipe["batch"]["micro_batch_size"] = 8
    smaller = plan(parse_recipe(reviews_recipe, "test"), gpu="t4")
    change = changes["batch.micro_batch_size=8"]
    assert change.allocated == smaller.memory.peak.allocated
    assert change.process == smaller.gpus[0].process
    assert change.fits is smaller.fits
    assert all(change.cost for change in changes.values())


def test_checkpointing_computes_more_and_holds_less(reviews_recipe):
    reviews_recipe["batch"] |= {"global_batch_size": 64, "micro_batch_size": 64}
    reviews_recipe["model"]["architecture"] |= {"num_hidden_layers": 6}
    planned, changes = changes_of(reviews_recipe)
    change = changes["model.gradient_checkpointing=true"]
    assert change.allocated < planned.memory.peak.allocated
    assert change.cost.startswith("+")


def test_8_bit_moments_are_not_sharded(reviews_recipe):
    reviews_recipe["optimizer"]["name"] = "adamw_8bit"
    _, changes = changes_of(reviews_recipe)
    assert not any("zero3" in setting for setting in changes)
    reviews_recipe["optimizer"]["name"] = "adamw"
    reviews_recipe["batch"] |= {"global_batch_size": 16, "micro_batch_size": 4}
    _, changes = changes_of(reviews_recipe)
    assert any("zero3" in setting for setting in changes)


def test_what_a_model_cannot_do_is_not_proposed(reviews_recipe):
    """transformers has no checkpointing for ALBERT."""
    reviews_recipe["model"]["architecture"]["model_type"] = "albert"
    _, changes = changes_of(reviews_recipe)
    assert changes
    assert not any("gradient_checkpointing" in setting for setting in changes)
