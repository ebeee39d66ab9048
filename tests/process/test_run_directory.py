"""The run directory: of one process, of one recipe, and what its status says."""

import errno
import fcntl
import os
import subprocess

import pytest
import yaml
from support.paths import program

from trainer.errors import RunDirectoryError
from trainer.files.durable import write_json, write_text
from trainer.process.run_directory import (
    BEFORE,
    check_recipe,
    claim,
    continued,
    free_name,
    read_recipe,
    write_recipe,
)
from trainer.recipe.keys import with_values
from trainer.recipe.reading import dump_yaml
from trainer.tasks.recipe import Recipe, parse_recipe


def test_a_process_that_trains_there_is_named_until_it_ends(tmp_path):
    directory = tmp_path / "run"
    with subprocess.Popen(
        program("claiming", directory),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            sentence = f"process {other.pid} is training in {directory}; "
            with pytest.raises(RunDirectoryError, match=sentence) as caught, claim(directory):
                pass
            assert (caught.value.key, caught.value.value) == (str(directory), str(other.pid))
            assert caught.value.hint == "wait for it, or choose another --run-dir"
        finally:
            other.kill()  # as the kernel does when memory runs out: without any clean-up
    with claim(directory):
        assert (directory / ".lock").read_text() == str(os.getpid())


def test_a_file_system_that_does_not_lock_is_named(tmp_path, monkeypatch):
    def flock(_file: object, _operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    sentence = f"the file system of {tmp_path} does not lock files"
    with pytest.raises(RunDirectoryError, match=sentence) as caught, claim(tmp_path):
        pass
    assert caught.value.key == str(tmp_path)


def test_two_runs_of_one_process_exclude_each_other(tmp_path):
    with (
        claim(tmp_path),
        pytest.raises(RunDirectoryError) as caught,
        claim(tmp_path),
    ):
        pass
    assert (caught.value.key, caught.value.value) == (str(tmp_path), str(os.getpid()))
    with claim(tmp_path), claim(tmp_path / "other"):
        pass


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RunDirectoryError, match="cannot be written") as caught,
        claim(tmp_path / "file" / "x"),
    ):
        pass
    assert caught.value.key == str(tmp_path / "file" / "x")


def test_the_recipe_of_a_run_comes_back(tmp_path, reviews_recipe):
    recipe = parse_recipe(reviews_recipe, "x")
    write_recipe(tmp_path, recipe)
    assert read_recipe(tmp_path, Recipe) == recipe
    assert check_recipe(tmp_path, recipe) == []


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(
        RunDirectoryError, match=r"holds no run: there is no config\.yaml"
    ) as caught:
        read_recipe(tmp_path, Recipe)
    assert caught.value.key == str(tmp_path)


def begun_before(directory, recipe):
    """Leaves a run directory as it was before the keys of BEFORE existed."""
    values = yaml.safe_load(dump_yaml(recipe))
    for key in BEFORE:
        *sections, leaf = key.split(".")
        section = values
        for name in sections:
            section = section[name]
        section.pop(leaf, None)
    (directory / "config.yaml").write_text(yaml.safe_dump(values))


def test_a_run_keeps_what_it_did_before_newer_keys_with_other_defaults(tmp_path, reviews_recipe):
    recipe = parse_recipe(reviews_recipe, "x")
    begun_before(tmp_path, recipe)
    assert read_recipe(tmp_path, Recipe) == with_values(recipe, BEFORE)
    assert check_recipe(tmp_path, recipe) == []
    resumed = continued(tmp_path, recipe)
    assert resumed == with_values(recipe, BEFORE)
    write_recipe(tmp_path, resumed)
    assert continued(tmp_path, recipe) == resumed  # the next time as well
    assert check_recipe(tmp_path, recipe) == []


def test_a_newer_key_that_the_recipe_gives_is_compared(tmp_path, reviews_recipe):
    begun_before(tmp_path, parse_recipe(reviews_recipe, "x"))
    reviews_recipe["task"]["pair_separator"] = "auto"
    with pytest.raises(RunDirectoryError) as caught:
        check_recipe(tmp_path, parse_recipe(reviews_recipe, "x"))
    assert (caught.value.key, caught.value.value) == ("task.pair_separator", "auto")
    reviews_recipe["task"]["pair_separator"] = None
    assert check_recipe(tmp_path, parse_recipe(reviews_recipe, "x")) == []


def test_a_run_of_today_keeps_its_defaults(tmp_path, reviews_recipe):
    recipe = parse_recipe(reviews_recipe, "x")
    write_recipe(tmp_path, recipe)
    assert continued(tmp_path, recipe) == recipe == read_recipe(tmp_path, Recipe)
    assert recipe.task.pair_separator == "auto"


@pytest.mark.parametrize(
    ("section", "key", "new", "sentence"),
    [
        ("batch", "micro_batch_size", 4, "batch.micro_batch_size was 8 and is now 4"),
        (
            "model",
            "gradient_checkpointing",
            True,
            "model.gradient_checkpointing was False and is now True",
        ),
        ("checkpoint", "every_steps", None, "checkpoint.every_steps was 5 and is now None"),
        ("tracking", "log_every_steps", 1, "tracking.log_every_steps was 5 and is now 1"),
    ],
)
def test_what_may_change_is_listed(tmp_path, reviews_recipe, section, key, new, sentence):
    write_recipe(tmp_path, parse_recipe(reviews_recipe, "x"))
    reviews_recipe[section][key] = new
    assert check_recipe(tmp_path, parse_recipe(reviews_recipe, "x")) == [sentence]


@pytest.mark.parametrize(
    ("section", "key", "new", "sentence"),
    [
        ("batch", "global_batch_size", 32, "batch.global_batch_size is 16 there and 32 here"),
        ("optimizer", "learning_rate", 0.5, "optimizer.learning_rate is 0.001 there and 0.5 here"),
        ("schedule", "epochs", 3, "schedule.epochs is 2 there and 3 here"),
        ("evaluation", "metric", "loss", "evaluation.metric is 'accuracy' there and 'loss' here"),
    ],
)
def test_any_other_change_is_refused_with_both_values(
    tmp_path, reviews_recipe, section, key, new, sentence
):
    write_recipe(tmp_path, parse_recipe(reviews_recipe, "x"))
    reviews_recipe[section][key] = new
    reviews_recipe["tracking"]["log_every_steps"] = 1  # allowed, and not what is refused
    with pytest.raises(RunDirectoryError, match=sentence) as caught:
        check_recipe(tmp_path, parse_recipe(reviews_recipe, "x"))
    assert (caught.value.key, caught.value.value) == (f"{section}.{key}", new)
    assert "tracking" not in str(caught.value)


def test_the_first_free_name(tmp_path):
    directory = tmp_path / "demo"
    assert free_name(directory) == tmp_path / "demo-2"
    for name in ("demo-2", "demo-3", "demo-5"):
        (tmp_path / name).mkdir()
    assert free_name(directory) == tmp_path / "demo-4"


def test_a_file_is_the_old_one_or_complete(tmp_path):
    file = tmp_path / "results.json"
    write_json(file, {"a": 1})
    before = file.read_text()
    with pytest.raises(TypeError):
        write_json(file, {"a": object()})
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "half of it \udc80")
    assert file.read_text() == before
