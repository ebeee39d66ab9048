"""Saves up to three quarters of an encoder's last layer if the head reads only the first token.

Attention of that layer looks at every token, but what follows it is computed for all tokens and
read for one. Without dropout the head reads the same numbers up to rounding, except that LLM.int8
on GPUs rounds by the tokens that are present.
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
"""Classes of transformers with such a head over layers that are built like BERT's."""


def compute_first_token_alone(model: Any) -> None:
    """Makes the last layer of a transformers model return its first token alone, [batch, 1, width].

    Does nothing to models other than FIRST_TOKEN_CLASSIFIERS, or with chunked feed-forward layers.
    """
    classifies = type(model).__name__ in FIRST_TOKEN_CLASSIFIERS
    if classifies and not model.config.chunk_size_feed_forward:
        after_attention: nn.Module = model.base_model.encoder.layer[-1].attention.output
        after_attention.register_forward_pre_hook(_first_token)


def _first_token(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(states[:, :1] for states in inputs)
