"""The section `model` of a recipe."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from trainer.recipe.places import folder_or_name
from trainer.recipe.section import Section


class TrainedTokenizer(Section):
    train: Literal["wordpiece", "bpe"]
    """Kind of tokenizer to train on the train split."""
    vocab_size: Annotated[int, Field(ge=64, le=1_000_000)] = 8000
    """Number of tokens, special ones included."""


def _tokenizer_kind(value: Any) -> str:
    return "trained" if isinstance(value, dict | TrainedTokenizer) else "path"


class Model(Section):
    name_or_path: str | None = None
    """Name of a hub model, a folder, or the model/ folder of an earlier run."""
    revision: str | None = None
    """Commit, tag or branch of a hub model."""
    architecture: dict[str, Any] | None = None
    """Values of a transformers configuration, including model_type, in place of name_or_path."""
    initialization: Literal["pretrained", "random"] = "pretrained"
    """Whether to load the weights of name_or_path; `random` takes only the shape from it and draws
    all weights."""
    tokenizer: (
        Annotated[
            Annotated[str, Tag("path")] | Annotated[TrainedTokenizer, Tag("trained")],
            Discriminator(_tokenizer_kind),
        ]
        | None
    ) = None
    """A hub name, a folder, or {train, vocab_size} for a tokenizer that is trained on the train
    split; null is the model's own."""
    fresh_head: bool = False
    """Draw a new head for classification or question answering even if the model has one, which may
    have another number of labels. The backbone is kept."""
    head_labels: Literal["name", "position"] = "name"
    """How the rows of a pretrained classification head are matched with the task's labels: by the
    names in the model's id2label, or by position."""
    pad_token: Literal["existing", "added"] = "existing"
    """What pads if the tokenizer has no padding token, or pads with its end token: `existing` uses
    a token that the model already has, `added` adds a token and its row to the model."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass, which saves memory and takes about a third more
    time."""

    @field_validator("name_or_path", "tokenizer")
    @classmethod
    def _folders_are_absolute(cls, value: Any, info: ValidationInfo) -> Any:
        key = f"model.{info.field_name}"
        return folder_or_name(key, value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.name_or_path is None) == (self.architecture is None):
            raise ValueError("give exactly one of name_or_path and architecture")
        if self.architecture is not None:
            if self.initialization != "random":
                raise ValueError("an architecture has no weights; set initialization: random")
            if "model_type" not in self.architecture:
                raise ValueError("architecture needs a model_type, such as bert or llama")
            if self.tokenizer is None:
                raise ValueError("an architecture has no tokenizer; set tokenizer")
        return self
