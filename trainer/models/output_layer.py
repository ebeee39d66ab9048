"""The output layer of a language model, which can compute a loss in place of logits.

`install_output_layer` puts it into a model once. A model's own forward has no argument by which
targets could reach its output layer, so they travel beside the call: `scoring` sets them for the
calls made inside it, in the current context only. Another thread, or a call outside of `scoring`,
gets logits.
"""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from trainer.models.linear_cross_entropy import linear_cross_entropy, predicted_tokens
from trainer.models.structure import output_layer

CHANGES_LOGITS = (
    "final_logit_softcapping",
    "lm_head_multiplier",
    "logit_scale",
    "logits_scaling",
    "logits_soft_cap",
    "output_logit_soft_cap",
)
"""Settings of model configurations that scale or cap the logits after the output layer."""
OTHER_OUTPUT = {
    "esm": "adds a bias after its output layer",
    "mobilebert": "multiplies by the weight of its output layer without calling the layer",
}
"""What other model types do that keeps the loss out of their output layer."""


@dataclass
class TokenLoss:
    """The targets of one call of a model, and what its output layer made of them."""

    wanted: Tensor
    """Which positions have a target, bool [batch, seq]."""
    targets: Tensor
    """Token to predict at each of these, int64 [n], row after row."""
    training: bool
    """Whether only the sum and its gradient are needed."""
    loss_sum: Tensor | None = None
    """Sum of the negative log-likelihoods, fp32 []; None until an output layer has run."""
    correct: Tensor | None = None
    """Number of targets that are the likeliest token, float64 []; not in training."""
    losses: Tensor | None = None
    """Negative log-likelihood of each target, fp32 [n]; not in training."""
    layer: "OutputLayer | None" = None
    """The layer that computed them."""

    def compute(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Sets and returns `loss_sum`, of the wanted ones of `hidden` [batch, seq, width]."""
        states = hidden[self.wanted]
        if self.training:
            self.loss_sum = linear_cross_entropy(states, weight, bias, self.targets)
        else:
            self.losses, predicted = predicted_tokens(states, weight, bias, self.targets)
            self.loss_sum = self.losses.sum()
            self.correct = (predicted == self.targets).sum().double()
        return self.loss_sum


_current: ContextVar[TokenLoss | None] = ContextVar("token_loss", default=None)


@contextmanager
def scoring(wanted: Tensor, targets: Tensor, *, training: bool) -> Generator[TokenLoss]:
    """Context manager: an output layer that is called inside computes the loss of `targets`.

    Shapes: `wanted` bool [batch, seq], which positions have a target; `targets` int64 [n].
    """
    token_loss = TokenLoss(wanted, targets, training)
    token = _current.set(token_loss)
    try:
        yield token_loss
    finally:
        _current.reset(token)


class OutputLayer(nn.Linear):
    """A linear layer that returns logits or, inside `scoring`, the sum of the loss, fp32 [].

    The loss is computed in the layer's own forward because an engine that shards the weight
    gathers it there.
    """

    is_last: bool | None = None
    """Whether the model returns the layer's output unchanged; None until `score_tokens` has
    compared them. A layer that is not the last always returns logits."""

    @classmethod
    def of(cls, linear: nn.Linear) -> "OutputLayer":
        """Returns a layer that holds the parameters of `linear` themselves, not copies."""
        has_bias = linear.bias is not None  # pyright: ignore[reportUnnecessaryComparison]
        layer = cls(linear.in_features, linear.out_features, bias=has_bias, device="meta")
        layer.weight, layer.bias = linear.weight, linear.bias
        return layer.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        return self.score(input, self.weight)

    def score(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """Returns what `forward` does, with `weight` [vocab, width] in place of the layer's own."""
        token_loss = _current.get()
        if token_loss is None or self.is_last is False:
            return functional.linear(hidden, weight, self.bias)
        token_loss.layer = self
        return token_loss.compute(hidden, weight, self.bias)


def install_output_layer(model: Any) -> str | None:
    """Replaces the output layer of a transformers model by an OutputLayer with its parameters.

    Names, parameters and ties stay as they are. Returns a sentence if the model has to hold all
    logits of a batch instead.
    """
    reason = why_all_logits(model)
    if reason is not None:
        return (
            f"a {model.config.model_type} {reason}: its loss needs the logits of all positions in "
            f"memory, not of labelled ones only"
        )
    layer: Any = output_layer(model)
    if isinstance(layer, OutputLayer):
        return None
    own = OutputLayer.of(layer)
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module is layer:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, own)
    return None


def why_all_logits(model: Any) -> str | None:
    """Returns, as a verb phrase, why the loss cannot be computed in the output layer of a model."""
    numbers = model.config.get_text_config()
    changed = [name for name in CHANGES_LOGITS if getattr(numbers, name, None) not in (None, 1.0)]
    if changed:
        return f"changes its logits after the output layer ({', '.join(changed)})"
    if numbers.model_type in OTHER_OUTPUT:
        return OTHER_OUTPUT[numbers.model_type]
    if hasattr(model, "final_logits_bias"):  # of BART and its kin, but for their decoders
        return "adds final_logits_bias after its output layer"
    layer = output_layer(model)
    if layer is None:
        return "has no output layer that transformers knows"
    if type(layer) not in (nn.Linear, OutputLayer):
        return f"has an output layer of its own kind ({type(layer).__name__})"
    return None
