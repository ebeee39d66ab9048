"""A DeepSpeed configuration that contradicts the recipe is refused."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.utils import DeepSpeedPlugin

from trainer.engines.deepspeed import fill_in_batch, fill_in_deepspeed
from trainer.errors import ConfigError, LaunchError
from trainer.tasks.recipe import parse_recipe

FILE = Path(__file__).parents[2] / "ds_configs" / "zero2.json"
CHANGES: dict[str, tuple[dict[str, Any], str, Any]] = {
    "another accumulation": (
        {"gradient_accumulation_steps": 2},
        "gradient_accumulation_steps",
        2,
    ),
    "no accumulation": ({"gradient_accumulation_steps": None}, "gradient_accumulation_steps", 1),
    "forced clipping": ({"gradient_clipping": 1.0}, "gradient_clipping", 1.0),
    "another batch": (
        {"train_micro_batch_size_per_gpu": 2},
        "train_micro_batch_size_per_gpu",
        2,
    ),
    "its own optimizer": (
        {"optimizer": {"type": "AdamW", "params": {"lr": 1e-3}}},
        "optimizer",
        {"type": "AdamW", "params": {"lr": 1e-3}},
    ),
    "another loss scale": ({"fp16": {"enabled": "auto", "loss_scale": 8}}, "loss_scale", 8),
    "another type of gradients": (
        {"data_types": {"grad_accum_dtype": "bf16"}},
        "data_types",
        {"grad_accum_dtype": "bf16"},
    ),
    "no sharding": ({"zero_optimization": {"stage": 0}}, "zero_optimization.stage", 0),
    "nvme": (
        {
            "zero_optimization": {
                "stage": 3,
                "offload_optimizer": {"device": "nvme", "nvme_path": "/nowhere"},
            }
        },
        "TRAINER_NVME_PATH",
        "",
    ),
}
"""Changes to a configuration, and the key and the value that the error names."""


@pytest.fixture
def two_ranks(tmp_path, monkeypatch):
    """What `fill_in_deepspeed` gets on two ranks, with changes to the settings of zero2.json."""
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO3_INIT", "false")
    monkeypatch.delenv("TRAINER_NVME_PATH", raising=False)

    def make(changes: dict[str, Any]) -> Any:
        settings = json.loads(FILE.read_text()) | changes
        file = tmp_path / "changed.json"
        file.write_text(json.dumps({key: v for key, v in settings.items() if v is not None}))
        plugin = DeepSpeedPlugin(hf_ds_config=str(file))
        return SimpleNamespace(
            deepspeed_plugin=plugin,
            num_processes=2,
            process_index=0,
            is_main_process=True,
            gradient_accumulation_steps=1,
        )

    return make


def fill_in(accelerator: Any, values: dict[str, Any]) -> None:
    """Fills in what a recipe decides, with micro-batches of 4."""
    recipe = parse_recipe(values, "test")
    fill_in_deepspeed(accelerator, recipe)
    fill_in_batch(accelerator, recipe, 4)


@pytest.mark.parametrize("change", CHANGES)
def test_what_would_train_something_else_is_refused(change, two_ranks, reviews_recipe):
    changes, key, value = CHANGES[change]
    reviews_recipe["batch"] |= {"global_batch_size": 32, "micro_batch_size": 4}
    reviews_recipe["optimizer"]["max_grad_norm"] = 0.5
    with pytest.raises(LaunchError) as caught:
        fill_in(two_ranks(changes), reviews_recipe)
    assert (caught.value.key, caught.value.value) == (key, value)
    assert caught.value.hint


def test_an_optimizer_that_it_cannot_save_is_refused(two_ranks, reviews_recipe):
    reviews_recipe["optimizer"]["name"] = "adamw_8bit"
    with pytest.raises(ConfigError) as caught:
        fill_in(two_ranks({}), reviews_recipe)
    assert (caught.value.key, caught.value.value) == ("optimizer.name", "adamw_8bit")
    assert caught.value.hint == "use adamw, whose moments ZeRO shards"


def test_what_the_recipe_owns_is_filled_in(two_ranks, reviews_recipe):
    reviews_recipe["batch"] |= {"global_batch_size": 32, "micro_batch_size": 4}
    reviews_recipe["optimizer"]["max_grad_norm"] = 0.5
    accelerator = two_ranks({})
    fill_in(accelerator, reviews_recipe)
    filled = accelerator.deepspeed_plugin.deepspeed_config
    assert filled["train_batch_size"] == 32
    assert filled["train_micro_batch_size_per_gpu"] == 4
    assert filled["gradient_accumulation_steps"] == accelerator.gradient_accumulation_steps == 4
    assert filled["gradient_clipping"] == 0.5
