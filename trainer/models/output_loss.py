"""The loss over a vocabulary, without logits of unlabelled positions, and never all logits at once.

The exceptions are models that compute more after their output layer, such as Gemma 2, Cohere and
ESM: their logits are all in memory. `install_output_layer` says so when such a model is loaded.
"""

import math
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.models.output_layer import TokenLoss, scoring, why_all_logits

IGNORED = -100
"""Label of a position that is not trained on."""


class Scored(NamedTuple):
    """The loss of a batch's labelled positions."""

    loss_sum: Tensor
    """Sum of the negative log-likelihoods, fp32 []."""
    correct: Tensor
    """Number of labels that are the likeliest token, float64 []; 0 in training."""
    output: Any
    """The model's output. Do not read its logits: they may be the loss."""
    losses: Tensor | None = None
    """Negative log-likelihood of each label, fp32 [n], row after row; None in training."""


def score_tokens(model: nn.Module, inputs: dict[str, Any], labels: Tensor) -> Scored:
    """Returns the loss of `labels` [batch, seq], the token to predict at each position.

    The model's OutputLayer computes the loss. If the model turns out to change the layer's output,
    although `install_output_layer` did not expect it, warns and computes the loss from all logits.
    """
    wanted = labels != IGNORED
    with scoring(wanted, labels[wanted], training=model.training) as token_loss:
        output = model(**inputs)
    if token_loss.layer is None:
        return _of_all_logits(model, output, token_loss)
    # Not token_loss.loss_sum: the hooks of an engine may replace the output by a tensor of their
    # own, whose backward they rely on.
    loss = output[_name_of_logits(output)]
    if token_loss.layer.is_last is None:
        token_loss.layer.is_last = _is_unchanged(loss, token_loss)
    if token_loss.layer.is_last is False:
        return _of_all_logits(model, model(**inputs), token_loss)
    if token_loss.correct is None:
        return Scored(loss, loss.new_zeros((), dtype=torch.float64), output)
    return Scored(loss, token_loss.correct, output, token_loss.losses)


def perplexity(nll: float, num_tokens: float) -> float:
    """Returns the perplexity of a sum of negative log-likelihoods, at most e^700."""
    return math.exp(min(nll / num_tokens, 700.0))


def _is_unchanged(loss: Tensor, token_loss: TokenLoss) -> bool | None:
    """Returns whether the `loss` that a model returned is what its output layer computed.

    None if a loss of 0, or one that is not finite, cannot show it. Synchronises with the device.
    """
    computed = token_loss.loss_sum
    assert computed is not None
    if loss.shape != computed.shape or loss.dtype != computed.dtype:
        return False
    if not torch.isfinite(computed) or computed == 0:
        return None
    return torch.equal(loss, computed)


def _of_all_logits(model: Any, output: Any, token_loss: TokenLoss) -> Scored:
    if why_all_logits(model) is None:
        warnings.warn(
            f"a {model.config.model_type} changes what its output layer computes: the loss needs "
            f"the logits of all positions in memory, not only those of labelled positions",
            stacklevel=2,
        )
    logits = output[_name_of_logits(output)][token_loss.wanted].float()
    losses = functional.cross_entropy(logits, token_loss.targets, reduction="none")
    correct = (logits.argmax(-1) == token_loss.targets).sum().double()
    return Scored(losses.sum(), correct, output, None if token_loss.training else losses)


def _name_of_logits(output: Any) -> str:
    return "logits" if "logits" in output else "prediction_logits"
