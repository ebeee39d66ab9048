"""Every launch configuration can be read, and does not repeat what a recipe decides."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DeepSpeedPlugin

from trainer.engines.accelerator import build_accelerator
from trainer.errors import LaunchError
from trainer.tasks.recipe import parse_recipe

ROOT = Path(__file__).parents[2]
LAUNCHES = sorted((ROOT / "accelerate_configs").glob("*.yaml"))
ENGINES = sorted((ROOT / "ds_configs").glob("*.json"))
OWNED = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
)


@pytest.mark.parametrize("file", LAUNCHES, ids=lambda file: file.stem)
def test_a_launch_says_where_and_opens_with_its_command(file):
    settings = load_config_from_file(str(file))
    text = file.read_text("utf-8")
    assert text.startswith("# ")
    assert f"--config_file accelerate_configs/{file.name}" in text
    assert "Costs: " in text or file.stem == "gpu-1"
    several = "multinode" in file.stem or "hybrid" in file.stem
    assert settings.num_machines == (2 if several else 1)
    if settings.deepspeed_config:
        named = ROOT / settings.deepspeed_config["deepspeed_config_file"]
        assert named in ENGINES
        assert file.stem.removeprefix("cpu-2-").removesuffix("-multinode") == named.stem
        assert "mixed_precision" not in yaml.safe_load(text)
        assert settings.deepspeed_config["deepspeed_multinode_launcher"] == "standard"


@pytest.mark.parametrize("file", ENGINES, ids=lambda file: file.stem)
def test_an_engine_leaves_to_the_recipe_what_it_owns(file, monkeypatch):
    settings = json.loads(file.read_text())
    assert [settings[key] for key in OWNED] == ["auto"] * len(OWNED)
    assert settings["bf16"] == settings["fp16"] == {"enabled": "auto"}
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO3_INIT", "false")
    resolved = DeepSpeedPlugin(hf_ds_config=str(file))
    stage, _, offload = file.stem.removeprefix("zero").partition("-")
    assert resolved.zero_stage == int(stage)
    sharding = settings["zero_optimization"]
    devices = {"offload": "cpu", "nvme": "nvme"}
    for key, stages in (("offload_optimizer", "23"), ("offload_param", "3")):
        expected = devices.get(offload) if stage in stages else None
        assert sharding.get(key, {}).get("device") == expected


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "cannot be read from"), ("{stage: 2", "is not JSON")],
)
def test_a_configuration_that_cannot_be_read_is_named(
    content, problem, reviews_recipe, tmp_path, monkeypatch
):
    file = tmp_path / "zero2.json"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
    with pytest.raises(LaunchError, match=problem) as error:
        build_accelerator(parse_recipe(reviews_recipe, "test"), tmp_path)
    variable = ("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
    assert (error.value.key, error.value.value) == variable


@pytest.mark.skipif(torch.cuda.is_available(), reason="on GPUs nothing is compiled")
def test_a_missing_compiler_is_named(reviews_recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(ROOT / "ds_configs" / "zero2.json"))
    monkeypatch.setenv("CXX", "/nowhere/c++")
    with pytest.raises(LaunchError) as error:
        build_accelerator(parse_recipe(reviews_recipe, "test"), tmp_path)
    assert (error.value.key, error.value.value) == ("CXX", "/nowhere/c++")
