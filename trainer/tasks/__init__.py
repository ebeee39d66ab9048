"""The tasks by name: the built-in ones, and those that other packages add by entry point.

A task is a folder: its settings, which import quickly, and its class, which needs torch and is
loaded when a run is built. Another package adds a task through an entry point in the group
`trainer.tasks`: the name is that of the task, the value is its class.
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
"""The entry points through which other packages add tasks."""


class BuiltinTask(NamedTuple):
    settings: type[TaskSettings]
    task: str
    """Module and name of the task's class."""


TASKS = {
    "classification": BuiltinTask(
        ClassificationSettings, "trainer.tasks.classification.task:Classification"
    ),
    "masked_lm": BuiltinTask(MaskedLMSettings, "trainer.tasks.masked_lm.task:MaskedLM"),
    "causal_lm": BuiltinTask(CausalLMSettings, "trainer.tasks.causal_lm.task:CausalLM"),
    "question_answering": BuiltinTask(
        QuestionAnsweringSettings, "trainer.tasks.question_answering.task:QuestionAnswering"
    ),
}


def settings_of(name: str) -> type[TaskSettings]:
    """Returns the settings class of a task.

    Raises ConfigError, with the nearest name, if there is no such task, and also if the task of
    another package cannot be loaded.
    """
    if name in TASKS:
        return TASKS[name].settings
    return _task_of_other_package(name).Settings


def task_of(recipe: Recipe) -> "type[Task]":
    """Returns the class of a recipe's task."""
    return task_named(recipe.task.name)


def task_named(name: str) -> "type[Task]":
    """Returns the class of a task; raises ConfigError as `settings_of` does."""
    if name in TASKS:
        return EntryPoint(name, TASKS[name].task, GROUP).load()
    return _task_of_other_package(name)


def _task_of_other_package(name: str) -> "type[Task]":
    """Returns the task class that an entry point of another package names."""
    entries = entry_points(group=GROUP)
    if name not in entries.names:
        names = [*TASKS, *sorted(entries.names)]
        near = difflib.get_close_matches(name[:100], names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"use {listed(names)}"
        raise _refusal(name, f"there is no {excerpt(name)}", hint)
    by_class = {entry.value: entry for entry in entries.select(name=name)}
    if len(by_class) > 1:
        raise _refusal(
            name,
            f"several packages define the task {name}: {listed(by_class)}",
            "uninstall all but one",
        )
    (entry,) = by_class.values()
    try:
        task = entry.load()
    except Exception as error:  # importing another package can raise anything
        reason = excerpt(f"{type(error).__name__}: {error}", 200)
        raise _refusal(name, f"{entry.value} cannot be loaded: {reason}") from error
    from trainer.tasks.base import Task

    if not (isinstance(task, type) and issubclass(task, Task)):
        raise _refusal(name, f"{entry.value} is not a subclass of trainer.tasks.base.Task")
    return task


def _refusal(name: str, problem: str, hint: str | None = None) -> ConfigError:
    return ConfigError(f"task.name: {problem}", key="task.name", value=name, hint=hint)
