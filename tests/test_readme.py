"""What the README shows can be run as it stands."""

import re
from pathlib import Path

import pytest
import yaml

from trainer.recipe.reading import load_recipe

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
SHELL = "\n".join(block for kind, block in BLOCKS if kind == "sh")


@pytest.mark.parametrize("block", [block for kind, block in BLOCKS if kind == "yaml"])
def test_recipes_are_valid(block, tmp_path):
    (tmp_path / "mine.yaml").write_text(block)
    assert load_recipe(str(tmp_path / "mine.yaml")).model.name_or_path


def test_named_recipes_and_configurations_exist():
    recipes = re.findall(r"trainer (?:train|show) ([\w.-]+)", SHELL)
    assert "demo" in recipes
    for recipe in set(recipes) - {"mine.yaml"}:
        load_recipe(recipe)
    files = re.findall(r"--config_file (\S+)", SHELL)
    assert files
    for file in files:
        assert yaml.safe_load((ROOT / file).read_text())["num_processes"] >= 1


def test_every_configuration_opens_with_its_command():
    for file in (ROOT / "accelerate_configs").glob("*.yaml"):
        assert f"--config_file accelerate_configs/{file.name}" in file.read_text()


def test_nothing_is_left_to_fill_in():
    assert not re.findall(r"@[A-Z]+@", TEXT)
