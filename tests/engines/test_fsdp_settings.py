"""FSDP launches that would train something other than the recipe are refused."""

import os
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from trainer.engines.accelerator import build_accelerator
from trainer.engines.fsdp2 import check_mesh, fill_in_fsdp, layer_classes
from trainer.errors import ConfigError, LaunchError
from trainer.tasks.recipe import parse_recipe


def test_what_accelerate_ignores_on_cpus_is_refused(reviews_recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    with pytest.raises(LaunchError, match="Accelerate ignores it elsewhere; use") as error:
        build_accelerator(parse_recipe(reviews_recipe, "test"), tmp_path)
    assert error.value.key == "ACCELERATE_USE_FSDP"


@pytest.mark.parametrize(
    ("sizes", "mesh", "hint"),
    [
        ({"DP_REPLICATE": 2, "DP_SHARD": 8}, "DP_REPLICATE", "dp_shard_size"),
        ({"DP_SHARD": 2, "TP": 2}, "TP", "use 1"),
        ({"CP": 4}, "CP", "use 1"),
        ({"DP_REPLICATE": 4}, "DP_REPLICATE", "ddp.yaml"),
    ],
)
def test_a_mesh_that_is_not_the_launch_is_refused(sizes, mesh, hint, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    for name, size in sizes.items():
        monkeypatch.setenv(f"PARALLELISM_CONFIG_{name}_SIZE", str(size))
    with pytest.raises(LaunchError) as error:
        check_mesh()
    assert (error.value.key, error.value.value) == (f"PARALLELISM_CONFIG_{mesh}_SIZE", sizes[mesh])
    assert hint in (error.value.hint or "")


@pytest.mark.parametrize(
    ("settings", "overrides", "key", "hint"),
    [
        ({"FSDP_VERSION": "1"}, {}, "FSDP_VERSION", "fsdp_version: 2"),
        ({"FSDP_OFFLOAD_PARAMS": "yes"}, {}, "FSDP_OFFLOAD_PARAMS", "zero3-offload.yaml"),
        (
            {"FSDP_ACTIVATION_CHECKPOINTING": "true"},
            {},
            "FSDP_ACTIVATION_CHECKPOINTING",
            "set model.gradient_checkpointing",
        ),
        ({}, {"tuning": {"mode": "qlora"}}, "tuning.mode", "zero2.yaml or ddp.yaml"),
        ({}, {"optimizer": {"name": "adamw_8bit"}}, "optimizer.name", "zero2.yaml or ddp.yaml"),
    ],
)
def test_what_the_recipe_does_not_say_is_refused(
    settings, overrides, key, hint, reviews_recipe, monkeypatch
):
    for name, value in {"FSDP_VERSION": "2", **settings}.items():
        monkeypatch.setenv(name, value)
    kind = ConfigError if "." in key else LaunchError
    with pytest.raises(kind) as error:
        fill_in_fsdp(sharding_over_gpus(), parse_recipe(reviews_recipe | overrides, "test"), "fp32")
    assert error.value.key == key
    assert hint in (error.value.hint or "")


def test_fp16_and_a_head_that_stays_without_weights_are_kept_away(reviews_recipe, monkeypatch):
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    recipe = parse_recipe(reviews_recipe, "test")
    with pytest.raises(ConfigError) as error:
        fill_in_fsdp(sharding_over_gpus(), recipe, "fp16")
    assert (error.value.key, error.value.value) == ("precision", "fp16")
    fill_in_fsdp(sharding_over_gpus(), recipe, "bf16")
    assert os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"


def sharding_over_gpus() -> Any:
    """What `fill_in_fsdp` reads of an Accelerator on GPUs, with Accelerate's own settings."""
    state = SimpleNamespace(fsdp_plugin=FullyShardedDataParallelPlugin())
    return SimpleNamespace(distributed_type=DistributedType.FSDP, state=state)


def test_layers_without_tied_weights_are_gathered_one_at_a_time():
    config = BertConfig(vocab_size=50, hidden_size=8, num_attention_heads=2, num_hidden_layers=2)
    tied, untied, unnamed = nn.Module(), nn.Module(), nn.Module()
    tied.model = BertForMaskedLM(config)
    untied.model = BertForSequenceClassification(config)
    distil = DistilBertConfig(vocab_size=50, dim=8, n_heads=2, n_layers=2, hidden_dim=16)
    unnamed.model = DistilBertForSequenceClassification(distil)  # which names no layers
    assert layer_classes(unnamed) == ["TransformerBlock"]
    assert layer_classes(tied) == ["BertLayer"]
    assert set(layer_classes(untied)) == {"BertEmbeddings", "BertLayer"}
