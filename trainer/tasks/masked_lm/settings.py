"""The settings of masked language modelling."""

from typing import Annotated

from pydantic import Field

from trainer.errors import ConfigError
from trainer.recipe.data import Columns
from trainer.recipe.schema import Miniature, Recipe, TaskSettings
from trainer.tasks.contradictions import refuse_fresh_head


class MaskedLMSettings(TaskSettings):
    """Masked language modelling, as BERT and RoBERTa are pretrained."""

    mask_share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the tokens to predict; of these, 80 % are masked, 10 % replaced by another token and
    10 % kept."""
    whole_words: bool = False
    """Mask all pieces of a word together."""
    next_sentence_prediction: bool = False
    """Also predict whether a segment follows the one before it or comes from another document;
    BERT only."""

    def contradictions(self, recipe: Recipe) -> list[ConfigError]:
        return refuse_fresh_head(recipe)

    def miniature(self, columns: Columns) -> Miniature:
        return Miniature(self.model_dump(mode="json"), "documents", {})
