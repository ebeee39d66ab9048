"""The tasks by name."""

from trainer.config import Recipe
from trainer.errors import ConfigError
from trainer.tasks.base import Task
from trainer.tasks.causal_lm import CausalLM
from trainer.tasks.classification import Classification
from trainer.tasks.masked_lm import MaskedLM
from trainer.tasks.question_answering import QuestionAnswering

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "masked_lm": MaskedLM,
    "causal_lm": CausalLM,
    "question_answering": QuestionAnswering,
}


def task_of(recipe: Recipe) -> type[Task]:
    """Returns the task of a recipe; raises ConfigError where there is no such task."""
    if recipe.task.name not in TASKS:
        raise ConfigError(f"task.name: there is no {recipe.task.name}; use {', '.join(TASKS)}")
    return TASKS[recipe.task.name]
