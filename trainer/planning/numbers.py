"""The numbers of a recipe's model, with which it is planned."""

from typing import Any

from trainer.models.architecture import shape_config
from trainer.recipe.model import TrainedTokenizer
from trainer.recipe.schema import Recipe


def planned_numbers(recipe: Recipe, vocabulary: int | None) -> Any:
    """Returns the transformers configuration of a recipe's model, without reading weights.

    `vocabulary` is the size of that of a tokenizer that the run trains, which may be less than the
    recipe asks for; None if it is not known yet. Raises ConfigError as `shape_config` does.
    """
    numbers = shape_config(recipe.model)
    if vocabulary is not None and isinstance(recipe.model.tokenizer, TrainedTokenizer):
        numbers.vocab_size = vocabulary
    return numbers
