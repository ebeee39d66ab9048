"""What other sections of a recipe must not say, for more than one task."""

from trainer.errors import ConfigError
from trainer.recipe.schema import Recipe


def joins_rows(recipe: Recipe) -> list[ConfigError]:
    """Returns that data.documents joins rows, which a task that reads each by itself rules out."""
    documents = recipe.data.documents
    if documents == "rows":
        return []
    return [
        ConfigError(
            f"data.documents: {documents} joins lines to running text, and {recipe.task.name} "
            f"reads each row by itself here",
            key="data.documents",
            value=documents,
            hint="set it to rows",
        )
    ]


def has_no_head(recipe: Recipe) -> list[ConfigError]:
    """Returns that model.fresh_head draws a head, which a language model does not have."""
    if not recipe.model.fresh_head:
        return []
    return [
        ConfigError(
            f"model.fresh_head: the head of {recipe.task.name} is the vocabulary of the model, "
            f"which is kept",
            key="model.fresh_head",
            value=True,
            hint="leave it out",
        )
    ]
