"""Saves up to three quarters of an encoder's last layer if the head reads only the first token.

The attention of that layer needs all tokens, but what follows it is needed for the first only.
Without dropout the head reads the same numbers up to rounding, except under LLM.int8 on GPUs, whose
rounding depends on the tokens that are present.
"""

from typing import Any

from torch import Tensor, nn

FIRST_TOKEN_CLASSIFIERS = (
    "BertForSequenceClassification",
    "CamembertForSequenceClassification",
    "ElectraForSequenceClassification",
    "RobertaForSequenceClassification",
    "XLMRobertaForSequenceClassification",
)
"""Transformers classes with such a head over layers like BERT's."""


def compute_first_token_alone(model: Any) -> None:
    """Makes the last layer of a transformers model return only its first token, [batch, 1, width].

    Changes only FIRST_TOKEN_CLASSIFIERS, and not if their feed-forward layers are chunked.
    """
    classifies = type(model).__name__ in FIRST_TOKEN_CLASSIFIERS
    if classifies and not model.config.chunk_size_feed_forward:
        after_attention: nn.Module = model.base_model.encoder.layer[-1].attention.output
        after_attention.register_forward_pre_hook(_first_token)


def _first_token(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(states[:, :1] for states in inputs)
