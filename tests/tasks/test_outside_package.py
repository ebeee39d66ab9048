"""A package of others brings a task along, with all that a task owns."""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from support.command_line import run
from support.toy_task import LENGTH, Length, LengthColumns, LengthSettings, installed

from trainer.assembly.miniature import smoke
from trainer.errors import ConfigError
from trainer.recipe.reading import dump_yaml
from trainer.recipe.schema import TaskSettings
from trainer.recipe.yaml12 import read_yaml
from trainer.tasks import settings_of, task_of
from trainer.tasks.base import Task
from trainer.tasks.recipe import Recipe, parse_recipe


def recipe_of(task: dict[str, Any] | None = None, **data: Any) -> Recipe:
    values = copy.deepcopy(LENGTH.recipe())
    values["task"] |= task or {}
    values["data"] |= data
    return parse_recipe(values, "recipe")


def refusal(**sections: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        recipe_of(**sections)
    return caught.value


@pytest.mark.usefixtures("outside_package")
def test_it_is_found_by_its_name():
    recipe = recipe_of()
    assert isinstance(recipe.task, LengthSettings)
    assert task_of(recipe) is Length


def test_without_the_package_there_is_no_such_task(outside_package, monkeypatch):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(outside_package)])
    error = refusal()
    assert (error.key, error.value) == ("task.name", "length")


@pytest.mark.usefixtures("outside_package")
def test_its_name_is_suggested_too():
    assert refusal(task={"name": "lenght"}).hint == "did you mean length?"


@pytest.mark.usefixtures("outside_package")
def test_its_settings_are_validated():
    error = refusal(task={"unit": 0, "untis": 3})
    problems = {problem.key: problem for problem in error.problems}
    assert problems.keys() == {"task.unit", "task.untis"}
    assert problems["task.unit"].value == 0
    assert problems["task.untis"].hint == "did you mean task.unit?"


@pytest.mark.usefixtures("outside_package")
def test_it_can_contradict_other_sections():
    error = refusal(task={"unit": 1000})
    assert (error.key, error.value, error.hint) == ("task.unit", 1000, "use 100")


@pytest.mark.usefixtures("outside_package")
def test_it_decides_by_its_own_metric_of_which_less_is_better():
    evaluation = recipe_of().evaluation
    assert (evaluation.metric, evaluation.mode) == ("mean_error", "min")


@pytest.mark.usefixtures("outside_package")
def test_it_has_a_column_role_of_its_own():
    recipe = recipe_of(columns={"counted": "label"})
    assert isinstance(recipe.data.columns, LengthColumns)
    assert recipe.data.columns.counted == "label"
    assert recipe_of(columns={"text": "a"}).data.columns.counted == "text"  # type: ignore[attr-defined]
    assert recipe_of(columns={"text": "a"}).data.columns.text == "a"
    error = refusal(columns={"conted": "label"})
    assert (error.key, error.hint) == ("data.columns.conted", "did you mean data.columns.counted?")
    values = {**LENGTH.recipe(), "task": {"name": "masked_lm"}}
    values["data"]["columns"] = {"counted": "label"}
    with pytest.raises(ConfigError) as caught:
        parse_recipe(values, "recipe")
    assert caught.value.key == "data.columns.counted"


@pytest.mark.usefixtures("outside_package")
def test_its_complete_recipe_reads_back():
    recipe = recipe_of({"unit": 7}, columns={"counted": "label"})
    values = read_yaml(dump_yaml(recipe), "config.yaml")
    assert values["task"] == {"name": "length", "unit": 7}
    assert values["data"]["columns"]["counted"] == "label"
    assert parse_recipe(values, "config.yaml") == recipe == Recipe(**values)


@pytest.mark.usefixtures("outside_package")
def test_it_trains_and_its_warning_is_reported(tmp_path, write_recipe):
    values = copy.deepcopy(LENGTH.recipe())
    values["task"]["unit"] = 1
    values["data"]["columns"] = {"counted": "label"}
    run("train", write_recipe(values), "--run-dir", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    validation = results["best"]["metrics"]["validation"]
    assert validation["mean_error"] > 1
    warning = f"validation: mean_error {validation['mean_error']:.2f} is more than one unit"
    assert warning in results["warnings"]


@pytest.mark.usefixtures("outside_package")
def test_it_has_a_miniature():
    recipe = recipe_of()
    small = smoke(recipe)
    assert small.task == LengthSettings(name="length", unit=10)
    assert small.data.columns == LengthColumns(counted="label")
    assert small.data.source.builtin == "reviews"


@pytest.mark.usefixtures("outside_package")
def test_a_task_without_built_in_rows_has_no_miniature(monkeypatch):
    monkeypatch.setattr(LengthSettings, "miniature", TaskSettings.miniature)
    with pytest.raises(ConfigError) as caught:
        smoke(recipe_of())
    assert (caught.value.key, caught.value.value) == ("--smoke", "length")


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("length = no_such_module:Length", "No module named 'no_such_module'"),
        ("length = support.toy_task:LengthSettings", "is not a subclass of trainer.tasks."),
    ],
)
def test_a_package_that_cannot_be_used_is_named(entry, problem, tmp_path, monkeypatch):
    installed(tmp_path, entry)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=problem) as caught:
        settings_of("length")
    assert (caught.value.key, caught.value.value) == ("task.name", "length")


def test_a_name_of_ours_stays_ours(tmp_path: Path, monkeypatch):
    installed(tmp_path, "classification = support.toy_task:Length")
    monkeypatch.syspath_prepend(tmp_path)
    assert settings_of("classification") is not LengthSettings


def test_a_forgotten_method_fails_when_the_task_is_built():
    class Forgetful(Length):
        metrics = Task.metrics

    with pytest.raises(TypeError, match="metrics"):
        Forgetful(None, None)  # type: ignore[arg-type]
