"""The last layer of an encoder under a head that reads the first token alone.

Attention of that layer looks at every token; what comes after it would be computed for all of them
and read for one. Left out are up to three quarters of a layer. The head reads the same numbers, up
to rounding, where dropout is off; LLM.int8 on GPUs rounds by the tokens that are there.
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
"""Classes of transformers with such a head over layers that are laid out like BERT's."""


def compute_first_token_alone(model: Any) -> None:
    """Lets the last layer of a transformers model return its first token alone, [rows, 1, width].

    Others than FIRST_TOKEN_CLASSIFIERS, and layers that cut sequences up, stay as they are.
    """
    classifies = type(model).__name__ in FIRST_TOKEN_CLASSIFIERS
    if classifies and not model.config.chunk_size_feed_forward:
        after_attention: nn.Module = model.base_model.encoder.layer[-1].attention.output
        after_attention.register_forward_pre_hook(_first_token)


def _first_token(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(states[:, :1] for states in inputs)
