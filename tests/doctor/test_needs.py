"""What a recipe needs from folders and caches, and what its launch decides."""

import json
import shutil

import pytest
from support.film_rows import ROWS
from support.findings import by_code
from support.tiny_models import architectures, save_backbones

from trainer.doctor.launch import about_launch
from trainer.doctor.needs import about_needs
from trainer.doctor.preflight import about_data
from trainer.planning.gpus import GPUS
from trainer.tasks.recipe import parse_recipe


@pytest.fixture(scope="module")
def cached_model(own_caches, tmp_path_factory):
    """The cached folder of a hub model, some/doctored, as the hub's client lays it out."""
    texts = [row["text"] for row in ROWS]
    made = save_backbones(tmp_path_factory.mktemp("made"), {"bert": architectures()["bert"]}, texts)
    repository = own_caches / "huggingface" / "hub" / "models--some--doctored"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40)
    shutil.copytree(made["bert"], snapshot)
    yield snapshot
    shutil.rmtree(repository)


def needs(recipe):
    return by_code(about_needs(recipe, "mine.yaml"))


def pretrained(recipe_of, name):
    return recipe_of(model={"name_or_path": str(name)})


def test_what_lies_in_the_caches_is_fine(recipe_of, cached_model):
    findings = needs(pretrained(recipe_of, "some/doctored"))
    assert {finding.level for finding in findings.values()} == {"fine"}
    assert findings.keys() == {"data", "tokenizer", "configuration", "weights"}
    assert findings["configuration"].message == "configuration: a bert"
    assert findings["weights"].message.endswith("in 1 file")
    assert needs(pretrained(recipe_of, cached_model)).keys() == findings.keys()


def test_weights_that_are_not_cached_are_a_failure_offline_only(
    recipe_of, cached_model, monkeypatch
):
    from datasets import config
    from huggingface_hub import constants

    weights = cached_model / "model.safetensors"
    weights.rename(cached_model / "away")
    try:
        recipe = pretrained(recipe_of, "some/doctored")
        finding = needs(recipe)["missing-weights"]
        assert finding.level == "failure"
        assert finding.advice.startswith(
            "run `trainer prepare mine.yaml` on a machine that reaches"
        )
        for module in (constants, config):  # which read the environment once
            monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
        assert needs(recipe)["missing-weights"].level == "note"
        assert constants.HF_HUB_OFFLINE is False
    finally:
        (cached_model / "away").rename(weights)


def test_a_folder_without_a_shard_is_a_failure(recipe_of, cached_model, tmp_path):
    folder = tmp_path / "model-folder"
    shutil.copytree(cached_model, folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}})
    )
    finding = needs(pretrained(recipe_of, folder))["missing-weights"]
    assert (finding.level, "lacks" in finding.message) == ("failure", True)


def test_what_was_never_cached_is_named_and_the_data_wait(recipe_of, reviews_recipe):
    findings = needs(pretrained(recipe_of, "some/unknown"))
    assert {code for code in findings if findings[code].level == "failure"} == {
        "missing-tokenizer",
        "missing-configuration",
        "missing-weights",
    }
    values = {**reviews_recipe, "data": {"source": {"hub": "some/unknown-rows"}}}
    rows = needs(parse_recipe(values, "the recipe"))["missing-data"]
    assert rows.message.startswith("data: not all of some/unknown-rows is in the caches")
    (waiting,) = about_data(parse_recipe(values, "the recipe"), readable=False)
    assert waiting.code == "data-not-examined"


def test_a_model_that_its_run_has_not_written_is_a_failure(recipe_of):
    findings = needs(pretrained(recipe_of, "runs/never/model"))
    assert findings["missing-configuration"].level == "failure"
    assert findings["missing-configuration"].advice == "train it first"


def test_files_that_are_gone_are_a_failure(recipe_of, tmp_path):
    recipe = recipe_of()
    (tmp_path / "train.jsonl").unlink()
    assert needs(recipe)["missing-data"].level == "failure"


def test_launch_and_recipe_are_held_against_each_other(recipe_of, monkeypatch):
    from trainer.errors import ConfigError

    (finding,) = about_launch(recipe_of())
    assert (
        finding.message == "fp32, 16 examples a step = 1 process x micro-batch 8 x accumulation 2"
    )
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        list(about_launch(recipe_of(precision="fp16")))
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="not divisible by 3 processes"):
        list(about_launch(recipe_of()))


def test_on_a_gpu_the_micro_batch_is_the_planned_one(recipe_of, monkeypatch):
    batch = {"global_batch_size": 32, "max_seq_length": 32}
    given, automatic = recipe_of(), recipe_of(batch=batch)
    (finding,) = about_launch(automatic)
    assert finding.figures["micro_batch_size"] == 16
    monkeypatch.setattr("trainer.planning.target.local_gpu", lambda: GPUS["t4"])
    (finding,) = about_launch(automatic)
    assert finding.figures["micro_batch_size"] == 32
    assert finding.message.endswith(
        "micro-batch 32 x accumulation 1 (micro_batch_size: auto is 32, the largest that divides "
        "32 and fits with 32 tokens into t4)"
    )
    (finding,) = about_launch(given)
    assert finding.message.endswith("micro-batch 8 x accumulation 2")
    padding = by_code(about_data(automatic, readable=True))["padding"]
    assert padding.figures["micro_batch_size"] == 32
