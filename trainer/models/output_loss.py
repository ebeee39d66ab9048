"""The loss over a vocabulary: of the wanted positions only, and never all logits at once.

The exception are models that compute on after their output layer: those that cap or scale logits,
such as Gemma 2, Cohere and Granite, or add a bias there, such as ESM and MobileBERT. They hold all.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.models.linear_cross_entropy import linear_cross_entropy, predicted_tokens

IGNORED = -100
"""Label of a position that is not learned."""
CHANGES_LOGITS = (
    "final_logit_softcapping",
    "lm_head_multiplier",
    "logit_scale",
    "logits_scaling",
    "logits_soft_cap",
    "output_logit_soft_cap",
)
"""Numbers of configurations whose models compute on after the output layer."""


class Scored(NamedTuple):
    """What a model makes of the labelled positions of a batch."""

    loss_sum: Tensor
    """Negative log-likelihoods, added up; fp32."""
    correct: Tensor
    """Number of labels that are the likeliest token, float64; 0 in training."""
    output: Any
    """The model's output, without logits over the vocabulary."""
    losses: Tensor | None = None
    """The negative log-likelihood of each label, fp32 [n], row after row; not in training."""


def score_tokens(model: nn.Module, inputs: dict[str, Any], labels: Tensor) -> Scored:
    """Returns the loss of `labels` [batch, seq], the token to predict at each position.

    The output layer computes the loss in place of logits, inside its own forward: an engine that
    shards its weight gathers it there.
    """
    whole: Any = model
    layer, numbers = whole.get_output_embeddings(), whole.config.get_text_config()
    if any(getattr(numbers, name, None) not in (None, 1.0) for name in CHANGES_LOGITS):
        return _plain(whole, inputs, labels)
    wanted = labels != IGNORED
    targets = labels[wanted]
    found: list[Tensor] = []

    def loss_of(hidden: Tensor) -> Tensor:
        picked, weight = hidden[wanted], layer.weight
        # PEFT's layer for new tokens has its weight alone.
        whole_layer = layer.original_module if hasattr(layer, "token_adapter") else layer
        if model.training:
            found.append(linear_cross_entropy(picked, weight, whole_layer.bias, targets))
        else:
            nll, predicted = predicted_tokens(picked, weight, whole_layer.bias, targets)
            found[:] = [nll.sum(), (predicted == targets).sum().double(), nll]
        return found[0]

    layer.forward = loss_of  # hides the method of its class
    try:
        output = whole(**inputs)
    finally:
        del layer.forward
    # Told by its memory: a hook of an engine gives out another tensor, and needs it in backward.
    values = [value for value in output.values() if isinstance(value, Tensor)]
    memory = found[0].data_ptr() if found else None
    loss = next((value for value in values if value.data_ptr() == memory), None)
    if loss is None:
        return _plain(whole, inputs, labels)  # such as a bias that is added after the layer
    if model.training:
        return Scored(loss, loss.new_zeros((), dtype=torch.float64), output)
    return Scored(loss, found[1], output, found[2])


def perplexity(nll: float, num_tokens: float) -> float:
    """Returns the perplexity of a sum of negative log-likelihoods; e^700 is the most there is."""
    return math.exp(min(nll / num_tokens, 700.0))


def _plain(model: Any, inputs: dict[str, Any], labels: Tensor) -> Scored:
    output = model(**inputs)
    name = "logits" if "logits" in output else "prediction_logits"
    logits = output[name][labels != IGNORED].float()
    targets = labels[labels != IGNORED]
    losses = functional.cross_entropy(logits, targets, reduction="none")
    correct = (logits.argmax(-1) == targets).sum().double()
    return Scored(losses.sum(), correct, output, None if model.training else losses)
