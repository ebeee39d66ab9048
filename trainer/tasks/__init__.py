"""The tasks by name."""

import difflib

from trainer.errors import ConfigError
from trainer.recipe.schema import Recipe
from trainer.tasks.base import Task
from trainer.tasks.causal_lm.task import CausalLM
from trainer.tasks.classification.task import Classification
from trainer.tasks.masked_lm.task import MaskedLM
from trainer.tasks.question_answering.task import QuestionAnswering

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "masked_lm": MaskedLM,
    "causal_lm": CausalLM,
    "question_answering": QuestionAnswering,
}


def task_of(recipe: Recipe) -> type[Task]:
    """Returns the task of a recipe; raises ConfigError where there is no such task."""
    name = recipe.task.name
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"use {', '.join(TASKS)}"
        raise ConfigError(f"task.name: there is no {name}; {hint}")
    return TASKS[name]
