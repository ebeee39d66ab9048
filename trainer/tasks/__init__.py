"""The tasks by name: those here, and those of other packages with an entry point.

A task is a folder: its settings, which are light, and its class, which needs torch and is loaded
when a run is built. Another package brings a task along by an entry point of the group
`trainer.tasks`, whose name is that of the task and whose value is its class.
"""

import difflib
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, NamedTuple

from trainer.errors import ConfigError
from trainer.recipe.schema import Recipe, TaskSettings
from trainer.tasks.causal_lm.settings import CausalLMSettings
from trainer.tasks.classification.settings import ClassificationSettings
from trainer.tasks.masked_lm.settings import MaskedLMSettings
from trainer.tasks.question_answering.settings import QuestionAnsweringSettings
from trainer.wording import excerpt, listed

if TYPE_CHECKING:
    from trainer.tasks.base import Task

GROUP = "trainer.tasks"
"""Entry points of other packages' tasks."""


class Known(NamedTuple):
    settings: type[TaskSettings]
    task: str
    """Module and name of the class of the task."""


TASKS = {
    "classification": Known(
        ClassificationSettings, "trainer.tasks.classification.task:Classification"
    ),
    "masked_lm": Known(MaskedLMSettings, "trainer.tasks.masked_lm.task:MaskedLM"),
    "causal_lm": Known(CausalLMSettings, "trainer.tasks.causal_lm.task:CausalLM"),
    "question_answering": Known(
        QuestionAnsweringSettings, "trainer.tasks.question_answering.task:QuestionAnswering"
    ),
}


def settings_of(name: str) -> type[TaskSettings]:
    """Returns the class of the settings of a task.

    Raises ConfigError, with the nearest name, if there is no such task, and for a task of another
    package that cannot be used.
    """
    if name in TASKS:
        return TASKS[name].settings
    return _from_elsewhere(name).Settings


def task_of(recipe: Recipe) -> "type[Task]":
    """Returns the task of a recipe."""
    name = recipe.task.name
    if name in TASKS:
        return EntryPoint(name, TASKS[name].task, GROUP).load()
    return _from_elsewhere(name)


def _from_elsewhere(name: str) -> "type[Task]":
    """Returns the task of another package, found by its entry point."""
    others = entry_points(group=GROUP)
    if name not in others.names:
        names = [*TASKS, *sorted(others.names)]
        near = difflib.get_close_matches(name[:100], names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"use {listed(names)}"
        raise _refusal(name, f"there is no {excerpt(name)}", hint)
    places = {entry.value: entry for entry in others.select(name=name)}
    if len(places) > 1:
        raise _refusal(
            name,
            f"{name} is the task of several packages: {listed(places)}",
            "uninstall all but one",
        )
    (entry,) = places.values()
    try:
        task = entry.load()
    except Exception as error:  # whatever the import of another package raises
        reason = excerpt(f"{type(error).__name__}: {error}", 200)
        raise _refusal(name, f"{entry.value} cannot be loaded: {reason}") from error
    from trainer.tasks.base import Task

    if not (isinstance(task, type) and issubclass(task, Task)):
        raise _refusal(name, f"{entry.value} is not a subclass of trainer.tasks.base.Task")
    return task


def _refusal(name: str, problem: str, hint: str | None = None) -> ConfigError:
    return ConfigError(f"task.name: {problem}", key="task.name", value=name, hint=hint)
