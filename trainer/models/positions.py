"""The longest sequence that a model takes; families count their positions differently."""

from typing import Any

from trainer.errors import ConfigError

NUMBERED_AFTER_PADDING = (
    *("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "roberta-prelayernorm", "xmod"),
    *("data2vec-text", "ibert", "longformer", "luke", "markuplm", "lilt", "esm"),
)
"""Model types whose first position is pad_token_id + 1: RoBERTa's 514 positions are 512 tokens."""
RELATIVE = ("funnel", "xlnet")
"""Model types without absolute positions, whatever their configuration says."""


def num_positions(model_config: Any) -> int | None:
    """Returns the length of a model's longest sequence in tokens, or None if it has no limit.

    With rotary embeddings, it is the length of the sequences that the model was trained on. Models
    without a limit use relative positions (T5, XLNet, DeBERTa-v3, ALiBi) or have a recurrent state
    (Mamba).
    """
    text = model_config.get_text_config()
    kind = text.model_type
    absolute = getattr(text, "position_biased_input", True)  # of DeBERTa
    if kind in RELATIVE or not absolute or (kind == "falcon" and text.alibi):
        return None
    positions = getattr(text, "max_position_embeddings", None)
    if kind == "led":
        positions = min(text.max_encoder_position_embeddings, text.max_decoder_position_embeddings)
    if kind == "mpt":  # ALiBi, with biases for a fixed number of positions
        positions = text.max_seq_len
    if not isinstance(positions, int) or positions < 1:
        return None
    if kind == "mpnet":
        return positions - 2  # the first position is 2, whatever the padding token
    rotary = getattr(text, "position_embedding_type", None) == "rotary"  # of ESM
    if kind in NUMBERED_AFTER_PADDING and not rotary:
        return positions - (text.pad_token_id or 0) - 1
    return positions


def check_length(model_config: Any, max_seq_length: int) -> None:
    """Raises ConfigError if sequences of `max_seq_length` tokens exceed the model's positions."""
    positions = num_positions(model_config)
    if positions is not None and max_seq_length > positions:
        raise ConfigError(
            f"batch.max_seq_length: {max_seq_length} is more than the {positions} positions of the "
            f"model",
            key="batch.max_seq_length",
            value=max_seq_length,
            hint=f"use {positions} or less",
        )
