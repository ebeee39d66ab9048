"""Settings that a plan proposes, under the launch that it is for."""

import pytest

from trainer.models.architecture import shape_config
from trainer.planning.changes import changes
from trainer.planning.gpus import GPUS
from trainer.planning.launches import PlannedLaunch
from trainer.planning.lengths import prepared_lengths
from trainer.planning.memories import Memories
from trainer.tasks.recipe import parse_recipe

ZERO3 = "--config accelerate_configs/zero3.yaml"


def proposed(values, launch):
    recipe = parse_recipe(values, "test")
    lengths, numbers = prepared_lengths(recipe), shape_config(recipe.model)
    memories = Memories(recipe, numbers, launch, "bf16", lengths)
    return {change.setting: change for change in changes(memories, GPUS["h100"], 2)}


@pytest.mark.parametrize(
    ("launch", "setting"),
    [
        (PlannedLaunch(), f"{ZERO3} --processes 4"),
        (PlannedLaunch(engine="ddp", processes=2), f"{ZERO3} --processes 2"),
        (
            PlannedLaunch(engine="ddp", processes=8, nodes=2),
            f"{ZERO3} --processes 8 --nodes 2",
        ),
    ],
)
def test_sharding_keeps_the_gpus_of_the_launch(launch, setting, reviews_recipe):
    found = proposed(reviews_recipe, launch)
    (sharded,) = [name for name in found if name.startswith(ZERO3)]
    assert sharded == setting
    assert found[sharded].fits


def test_what_shards_already_is_not_sharded_again(reviews_recipe):
    found = proposed(reviews_recipe, PlannedLaunch(engine="zero2", processes=2))
    assert not [name for name in found if name.startswith(ZERO3)]
