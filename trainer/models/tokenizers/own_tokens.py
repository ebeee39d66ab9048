"""Tokens of a tokenizer for which its model has learned nothing."""

from typing import Any

from trainer.errors import ConfigError
from trainer.models.tokenizers.tokenizer import load_tokenizer, num_rows
from trainer.recipe.model import Model
from trainer.wording import excerpt


def new_tokens(model: Model, tokenizer: Any, vocab_size: int) -> list[int]:
    """Returns the ids of tokens for which pretrained weights of `vocab_size` rows learned nothing.

    They lie beyond its rows, or in rows that the model's own tokenizer leaves unused. The padding
    token is not among them, because it is never learned.
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

    A model grows by tokens that are added to its own. A model from numbers does not, nor one whose
    own tokens have other ids in the tokenizer.
    """
    size = num_rows(tokenizer)
    sizes = f"model.tokenizer has {size} tokens and the model {vocab_size}"
    if size <= vocab_size:
        return
    if model.architecture is not None:
        raise ConfigError(
            sizes,
            key="model.tokenizer",
            hint="leave out model.architecture.vocab_size, or raise it",
        )
    if model.tokenizer is None or tokenizer.pad_token_id == vocab_size == size - 1:
        return
    try:
        own = load_tokenizer(model.model_copy(update={"tokenizer": None})).get_vocab()
    except ConfigError as error:
        if size > 1.1 * vocab_size:
            raise ConfigError(
                f"{sizes}, which has none of its own to compare with",
                key="model.tokenizer",
            ) from error
        return
    mine = tokenizer.get_vocab()
    moved = [token for token, i in own.items() if i < vocab_size and mine.get(token) != i]
    if len(moved) > 0.01 * len(own):
        raise ConfigError(
            f"{sizes}, and {len(moved)} of the model's own are others in it, such as "
            f"{excerpt(moved[0], 40)}",
            key="model.tokenizer",
            hint="use the model's tokenizer, or one that adds tokens to it",
        )
