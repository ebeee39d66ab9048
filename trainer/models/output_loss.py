"""The loss over a vocabulary: of the labelled positions only, and never all logits at once.

The exceptions are models whose output layer is not the last thing they compute, such as Gemma 2,
Cohere and ESM: `install_output_layer` says so when they are loaded, and all their logits are held.
"""

import math
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.models.output_layer import TokenLoss, scoring, why_all_logits

IGNORED = -100
"""Label of a position that is not learned."""


class Scored(NamedTuple):
    """What a model makes of the labelled positions of a batch."""

    loss_sum: Tensor
    """Sum of the negative log-likelihoods, fp32 []."""
    correct: Tensor
    """Number of labels that are the likeliest token, float64 []; 0 in training."""
    output: Any
    """The model's output; what it calls logits is not to be read."""
    losses: Tensor | None = None
    """Negative log-likelihood of each label, fp32 [n], row after row; not in training."""


def score_tokens(model: nn.Module, inputs: dict[str, Any], labels: Tensor) -> Scored:
    """Returns the loss of `labels` [batch, seq], the token to predict at each position.

    The loss is computed by the model's OutputLayer. Warns if the model turns out to need all logits
    although `install_output_layer` did not say so.
    """
    wanted = labels != IGNORED
    with scoring(wanted, labels[wanted], training=model.training) as found:
        output = model(**inputs)
    if found.layer is None:
        return _of_all_logits(model, output, found)
    # Not found.loss_sum: hooks of an engine may have put a tensor of theirs in its place, which
    # they need in backward.
    loss = output[_name_of_logits(output)]
    if found.layer.is_last is None:
        found.layer.is_last = _is_unchanged(loss, found)
    if found.layer.is_last is False:
        return _of_all_logits(model, model(**inputs), found)
    if found.correct is None:
        return Scored(loss, loss.new_zeros((), dtype=torch.float64), output)
    return Scored(loss, found.correct, output, found.losses)


def perplexity(nll: float, num_tokens: float) -> float:
    """Returns the perplexity of a sum of negative log-likelihoods, at most e^700."""
    return math.exp(min(nll / num_tokens, 700.0))


def _is_unchanged(loss: Tensor, found: TokenLoss) -> bool | None:
    """Returns whether a model returns the loss of its output layer as it is.

    None if a loss of 0, or one that is not finite, does not tell. Waits for the device, once.
    """
    own = found.loss_sum
    assert own is not None
    if loss.shape != own.shape or loss.dtype != own.dtype:
        return False
    if not torch.isfinite(own) or own == 0:
        return None
    return torch.equal(loss, own)


def _of_all_logits(model: Any, output: Any, found: TokenLoss) -> Scored:
    if why_all_logits(model) is None:
        warnings.warn(
            f"a {model.config.model_type} does not return what its output layer computes: the loss "
            f"needs the logits of all positions in memory, not of labelled ones only",
            stacklevel=2,
        )
    logits = output[_name_of_logits(output)][found.wanted].float()
    losses = functional.cross_entropy(logits, found.targets, reduction="none")
    correct = (logits.argmax(-1) == found.targets).sum().double()
    return Scored(losses.sum(), correct, output, None if found.training else losses)


def _name_of_logits(output: Any) -> str:
    return "logits" if "logits" in output else "prediction_logits"
