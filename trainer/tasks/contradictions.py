"""Contradictions between a task and other sections of its recipe that several tasks share."""

from trainer.errors import ConfigError
from trainer.recipe.schema import Recipe


def refuse_joined_rows(recipe: Recipe) -> list[ConfigError]:
    """Returns the problem if data.documents joins rows and the task reads each row by itself."""
    documents = recipe.data.documents
    if documents == "rows":
        return []
    return [
        ConfigError(
            f"data.documents: {documents} joins lines to running text, and {recipe.task.name} "
            f"reads each row by itself",
            key="data.documents",
            value=documents,
            hint="set it to rows",
        )
    ]


def refuse_fresh_head(recipe: Recipe) -> list[ConfigError]:
    """Returns the problem if model.fresh_head asks for a new head: a language model has none."""
    if not recipe.model.fresh_head:
        return []
    return [
        ConfigError(
            f"model.fresh_head: the head of {recipe.task.name} is the model's output vocabulary, "
            f"which is always kept",
            key="model.fresh_head",
            value=True,
            hint="leave it out",
        )
    ]
