"""The reference of keys is generated from the schema, complete and current."""

from pathlib import Path

import pytest

import trainer
from trainer.errors import ConfigError
from trainer.recipe.keys import flatten, known_keys
from trainer.recipe.shipped import shipped_recipes
from trainer.tasks import TASKS
from trainer.tasks.recipe import Recipe, explain_key, key_reference, load_recipe

WRITE = (
    """python -c "from trainer.tasks.recipe import key_reference as text; print(text(), end='')" """
)
KEYS = [
    *known_keys(Recipe),
    *(k for one in TASKS.values() for k in known_keys(one.settings, "task.")),
]


def test_the_page_is_current():
    file = Path(trainer.__file__).parent / "recipe" / "README.md"
    assert file.read_text("utf-8") == key_reference(), f"{WRITE} > trainer/recipe/README.md"


@pytest.mark.parametrize("key", list(dict.fromkeys(KEYS)))
def test_every_key_has_a_meaning_and_a_place_on_the_page(key):
    title, takes, *meaning = explain_key(key).splitlines()
    assert title.split(" (task ")[0] == key
    assert takes.strip()
    assert meaning[0].strip() not in ("", "Keys:")
    assert f"| `{key}` |" in key_reference()


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_key_of_a_complete_recipe_can_be_explained(name):
    free = ("model.architecture.", "data.source.files.", "data.exclude.")
    for key in flatten(load_recipe(name).model_dump(mode="json")):
        if not key.startswith(free):
            assert explain_key(key)


def test_an_entry_has_type_default_bounds_and_text():
    assert explain_key("optimizer.momentum") == (
        "optimizer.momentum\n  number (>= 0, < 1); default `0.0`\n  Momentum of sgd."
    )
    stride = explain_key("task.stride")
    assert stride.startswith(
        "task.stride (task question_answering)\n  `auto` or whole number (> 0)"
    )
    assert "  null, or a list of at least 2 texts; default `null`" in explain_key("task.labels")
    columns = "a mapping of text to text or a list of texts"
    assert f"  null, or {columns}; default" in explain_key("data.source.files")
    pair = explain_key("data.columns.text_pair")
    assert "  text, null, or a list of at least 1 text; default `null`" in pair
    assert "  list of 2 numbers (>= 0, < 1); default" in explain_key("optimizer.betas")
    assert "  list of values, each `tensorboard`, " in explain_key("tracking.trackers")
    assert "checkpoint.async: true or false; default `false`" in explain_key("checkpoint")


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(ConfigError) as caught:
        explain_key("optimizer.learnig_rate")
    assert (caught.value.key, caught.value.value) == ("--explain", "optimizer.learnig_rate")
    assert caught.value.hint == "did you mean optimizer.learning_rate?"
