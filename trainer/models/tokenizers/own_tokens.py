"""Compares a tokenizer's vocabulary with the one that its model was pretrained with."""

from typing import Any

from trainer.errors import ConfigError
from trainer.models.tokenizers.tokenizer import load_tokenizer, num_rows
from trainer.recipe.model import Model
from trainer.wording import excerpt

MAX_MOVED = 0.01
"""Share of the model's own tokens that may have another id in the tokenizer."""
MAX_GROWTH = 1.1
"""Growth of a vocabulary that is accepted if the model has no tokenizer to compare with."""


def new_tokens(model: Model, tokenizer: Any, vocab_size: int) -> list[int]:
    """Returns the ids of tokens about which pretrained weights of `vocab_size` rows know nothing.

    These are ids beyond the rows, and rows that the model's own tokenizer leaves unused. The
    padding token is left out: it is never trained.
    """
    tokens = {index: token for token, index in tokenizer.get_vocab().items()}
    new = {index for index in tokens if index >= vocab_size}
    if isinstance(model.tokenizer, str) and model.initialization == "pretrained":
        try:
            own = load_tokenizer(model.model_copy(update={"tokenizer": None}))
        except ConfigError:  # the folder holds only weights
            own = tokenizer
        used = set(own.get_vocab().values())
        new |= {index for index in tokens if index not in used}
    return sorted(new - {tokenizer.pad_token_id})


def check_vocabulary(model: Model, tokenizer: Any, vocab_size: int) -> None:
    """Raises ConfigError if a model of `vocab_size` rows cannot grow to the tokenizer's vocabulary.

    A pretrained model can grow by tokens that were added to its own. It cannot take a vocabulary in
    which its own tokens have other ids, and a model from `architecture` does not grow at all.
    """
    size = num_rows(tokenizer)
    sizes = f"model.tokenizer has {size} tokens and the model {vocab_size}"
    if size <= vocab_size:
        return
    if model.architecture is not None:
        raise ConfigError(
            sizes,
            key="model.tokenizer",
            value=size,
            hint="leave out model.architecture.vocab_size, or raise it",
        )
    if model.tokenizer is None or tokenizer.pad_token_id == vocab_size == size - 1:
        return
    try:
        own = load_tokenizer(model.model_copy(update={"tokenizer": None})).get_vocab()
    except ConfigError as error:
        if size > MAX_GROWTH * vocab_size:
            raise ConfigError(
                f"{sizes}, which has no tokenizer of its own to compare with",
                key="model.tokenizer",
                value=size,
                hint="use the tokenizer that the model was trained with",
            ) from error
        return
    vocabulary = tokenizer.get_vocab()
    moved = [token for token, i in own.items() if i < vocab_size and vocabulary.get(token) != i]
    if len(moved) > MAX_MOVED * len(own):
        raise ConfigError(
            f"{sizes}, and {len(moved)} of the model's own tokens have other ids in it, such as "
            f"{excerpt(moved[0], 40)}",
            key="model.tokenizer",
            value=size,
            hint="use the model's tokenizer, or one that adds tokens to it",
        )
