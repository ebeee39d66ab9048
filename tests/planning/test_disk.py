"""The disk space of a run as planned, beside the files that a run leaves."""

import json

import pytest
from support.command_line import run

from trainer.assembly.build import build_run
from trainer.checkpoints.disk_space import CheckpointSize, bytes_in
from trainer.engines.accelerator import launched
from trainer.planning.disk import download_bytes, planned_disk
from trainer.planning.lengths import prepared_lengths
from trainer.recipe.model import Model
from trainer.tasks.recipe import parse_recipe

SIZE = CheckpointSize(weights=1000, moments=2000)


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty cache of the hub, and a function that puts a file of a model into it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def put(name, file, content="{}"):
        folder = tmp_path / f"models--{name.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / "main").write_text("c0")
        (folder / "snapshots" / "c0").mkdir(parents=True, exist_ok=True)
        (folder / "snapshots" / "c0" / file).write_text(content)

    return put


@pytest.mark.parametrize("tuning", [{"mode": "full"}, {"mode": "lora", "r": 4}])
def test_a_run_leaves_what_was_planned(tuning, reviews_recipe, write_recipe, tmp_path):
    reviews_recipe["tuning"] = tuning
    reviews_recipe["checkpoint"] |= {"every_epoch": True}
    reviews_recipe["evaluation"]["baseline"] = False
    directory = tmp_path / "run"
    file = write_recipe(reviews_recipe)
    run("train", file, "--run-dir", directory)

    recipe = parse_recipe(reviews_recipe, "test")
    lengths = prepared_lengths(recipe)
    with launched(recipe, directory) as accelerator:
        built = build_run(recipe, accelerator, directory)
    planned = planned_disk(
        recipe,
        lengths,
        built.checkpoint_size,
        num_parameters=built.parameter_counts.total,
        itemsize=4,
    )

    checkpoints = sorted((directory / "checkpoints").glob("step-*"))
    resumable = [folder for folder in checkpoints if any(folder.glob("optimizer-*"))]
    assert len(resumable) == planned.kept.resumable - 1  # one more while the next is written
    assert len(checkpoints) - len(resumable) <= planned.kept.light == 3
    headers = 30_000  # names, shapes and checksums
    for folder in resumable:
        assert 0 <= bytes_in(folder) - planned.checkpoint.total < headers
    weights = (directory / "model" / "model.safetensors").stat().st_size
    assert 0 <= weights - planned.model < headers or tuning["mode"] == "lora"
    assert abs(weights - planned.model) < 0.05 * planned.model + headers
    assert planned.prepared == lengths.prepared_bytes
    assert planned.download == 0
    assert planned.notes == ()
    assert planned.total == planned.run_directory + planned.prepared


def planned(values, **changes):
    recipe = parse_recipe(values | changes, "test")
    return planned_disk(recipe, prepared_lengths(recipe), SIZE, num_parameters=10, itemsize=2)


def test_data_that_is_not_prepared_is_estimated(reviews_recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path))
    disk = planned(reviews_recipe)
    assert disk.prepared == 8 * 32 * (160 + 200)
    assert disk.notes == ("prepared data is estimated with 8 bytes a token",)
    json.dumps(disk.as_dict())


def test_rows_that_are_not_there_have_no_size(reviews_recipe):
    disk = planned(reviews_recipe, data={"source": {"hub": "nobody/nothing"}})
    assert disk.prepared is None
    assert disk.total == disk.run_directory
    assert disk.notes == (
        "the size of the prepared data is unknown until its rows are in the cache",
        "the rows of the hub are not counted",
    )


def test_checkpoints_of_every_epoch_are_counted(reviews_recipe):
    settings = {"every_epoch": True, "keep_last": 3, "keep_best": False}
    disk = planned(reviews_recipe, checkpoint=settings)
    assert (disk.kept.resumable, disk.kept.light) == (4, 2)
    assert disk.run_directory == 4 * 3000 + 2 * 1000 + 10 * 4


def test_weights_are_downloaded_once(hub_cache):
    named = Model(name_or_path="meta-llama/Llama-3.2-1B")
    assert download_bytes(named, 100) == 200
    hub_cache("meta-llama/Llama-3.2-1B", "config.json")
    assert download_bytes(named, 100) == 200
    hub_cache("meta-llama/Llama-3.2-1B", "model.safetensors")
    assert download_bytes(named, 100) == 0


def test_the_published_type_is_that_of_the_cached_configuration(hub_cache):
    named = Model(name_or_path="some/model")
    assert download_bytes(named, 100) is None
    hub_cache("some/model", "config.json", '{"torch_dtype": "float16"}')
    assert download_bytes(named, 100) == 200
    hub_cache("some/model", "config.json", '{"dtype": "float32"}')
    assert download_bytes(named, 100) == 400
    hub_cache("some/model", "config.json", "no JSON")
    assert download_bytes(named, 100) is None


def test_random_weights_and_folders_are_not_downloaded(tmp_path):
    random = Model(name_or_path="microsoft/phi-2", initialization="random")
    assert download_bytes(random, 100) == 0
    assert download_bytes(Model(name_or_path=str(tmp_path)), 100) == 0
    assert download_bytes(Model(name_or_path="not a name of/the/hub"), 100) is None
