"""The command line: what it prints, how it ends, and that it answers at once."""

import subprocess

import pytest
from support.command_line import invoke
from support.paths import program

from trainer.recipe.reading import dump_yaml
from trainer.recipe.shipped import shipped_recipes
from trainer.tasks.recipe import load_recipe


def test_help_and_the_list_of_recipes_import_nothing_heavy():
    done = subprocess.run(program("heavy_imports", "commands"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["click"]


def test_recipes_lists_each_with_its_purpose():
    lines = invoke("recipes").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped_recipes())
    assert all(len(line.split()) > 3 for line in lines)


def test_show_prints_a_complete_recipe_that_loads(tmp_path):
    shown = invoke("show", "demo", "--set", "optimizer.learning_rate=1e-5")
    assert shown.exit_code == 0
    file = tmp_path / "shown.yaml"
    file.write_text(shown.stdout)
    recipe = load_recipe(str(file))
    assert recipe == load_recipe("demo", ("optimizer.learning_rate=1e-5",))
    assert "patience: null" in shown.stdout  # what the recipe leaves to the default, too
    assert dump_yaml(recipe) == shown.stdout


def test_show_explains_a_key_and_the_keys_of_a_section():
    shown = invoke("show", "--explain", "optimizer.learning_rate")
    assert shown.exit_code == 0
    assert shown.stdout.startswith("optimizer.learning_rate\n")
    assert "default `5.0e-05`" in shown.stdout
    assert "optimizer.weight_decay" in invoke("show", "--explain", "optimizer").stdout
    unknown = invoke("show", "--explain", "optimizer.learning_rte")
    assert unknown.exit_code == 2
    assert "did you mean optimizer.learning_rate" in unknown.stderr
    for arguments in ([], ["demo", "--explain", "seed"]):
        assert invoke("show", *arguments).exit_code == 2


@pytest.mark.parametrize("command", ["show", "train"])
def test_an_unknown_recipe_is_one_sentence_and_code_2(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed = invoke(command, "dmeo")
    assert failed.exit_code == 2
    assert failed.stdout == ""
    assert failed.stderr.startswith("trainer: there is no recipe dmeo")
    assert failed.stderr.count("\n") == 1


def test_debug_shows_where_an_error_came_from():
    failed = invoke("show", "dmeo", "--debug")
    assert failed.exit_code == 2
    assert "Traceback" in failed.stderr
    assert "ConfigError: there is no recipe dmeo" in failed.stderr


def test_only_the_first_rank_says_the_sentence(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    failed = invoke("show", "dmeo")
    assert (failed.exit_code, failed.stderr) == (2, "")


def test_a_defect_of_ours_is_not_hidden(monkeypatch):
    def broken(*_: object) -> str:
        raise AssertionError("a defect")

    monkeypatch.setattr("trainer.recipe.reading.dump_yaml", broken)
    failed = invoke("show", "demo")
    assert failed.exit_code == 1
    assert isinstance(failed.exception, AssertionError)


def test_ctrl_c_is_code_130(monkeypatch):
    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.recipe.reading.dump_yaml", interrupted)
    failed = invoke("show", "demo")
    assert (failed.exit_code, failed.stderr) == (130, "trainer: interrupted\n")


def test_an_unknown_option_is_code_2():
    assert invoke("train", "demo", "--epochs", "3").exit_code == 2
