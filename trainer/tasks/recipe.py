"""`trainer.Recipe`: the recipe whose section `task` is validated by the settings of its task.

It is defined here because the package trainer.recipe does not know the tasks.
"""

from typing import Any

from trainer.recipe import reference, schema
from trainer.recipe.reading import recipe_values, validated
from trainer.recipe.schema import TaskSettings
from trainer.tasks import TASKS, settings_of


class Recipe(schema.Recipe):
    """Everything that decides what is learned, with one keyword argument per section.

    Sections are mappings, as in YAML, or objects of their classes. Relative paths become absolute
    and defaults are filled in, so that a recipe built in Python equals the one read from a file.
    Raises ConfigError with every problem, a sentence each.
    """

    @classmethod
    def settings_of(cls, task: str) -> type[TaskSettings]:
        return settings_of(task)


def load_recipe(name_or_path: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """Returns the recipe of a shipped name or a YAML file, with `key.path=value` overrides.

    Raises ConfigError with every problem.
    """
    return parse_recipe(recipe_values(name_or_path, overrides), name_or_path)


def parse_recipe(values: dict[str, Any], origin: str) -> Recipe:
    """Returns the recipe of a mapping; raises ConfigError, which starts with `origin`, with every
    problem."""
    return validated(Recipe, values, origin)


def explain_key(key: str) -> str:
    """Returns what a dotted key takes, its default and its documentation; for a section, its keys.

    Raises ConfigError, with the nearest key, for an unknown one.
    """
    return reference.explain(key, Recipe, {name: task.settings for name, task in TASKS.items()})


def key_reference() -> str:
    """Returns the Markdown page of every key, with the settings of the built-in tasks."""
    return reference.reference(Recipe, {name: task.settings for name, task in TASKS.items()})
