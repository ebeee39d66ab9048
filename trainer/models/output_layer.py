"""An output layer for language models that can compute a loss in place of logits.

`install_output_layer` puts it into a model once. The forward of a model has no argument that would
pass targets on to its output layer, so `scoring` sets them in a context variable for the calls made
inside it. Other threads, and calls outside `scoring`, get logits.
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
"""Settings with which a model scales or caps the logits after its output layer."""
OTHER_OUTPUT = {
    "esm": "adds a bias after its output layer",
    "mobilebert": "multiplies by the weight of its output layer without calling the layer",
}
"""Other model types whose output layer cannot compute the loss, and why."""


@dataclass
class TokenLoss:
    """The targets of one call of a model, and the loss that its output layer computed for them."""

    wanted: Tensor
    """Which positions have a target, bool [batch, seq]."""
    targets: Tensor
    """Token to predict at each of these positions, int64 [n], row after row."""
    training: bool
    """Whether to compute only the sum and its gradient."""
    loss_sum: Tensor | None = None
    """Sum of the negative log-likelihoods, fp32 []; None until an output layer has run."""
    correct: Tensor | None = None
    """Number of targets that are the likeliest token, float64 []; None in training."""
    losses: Tensor | None = None
    """Negative log-likelihood of each target, fp32 [n]; None in training."""
    layer: "OutputLayer | None" = None
    """The layer that computed the loss."""

    def compute(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Sets the fields of the loss and returns `loss_sum`; `hidden` is [batch, seq, width]."""
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
    """Context manager: an OutputLayer called inside computes the loss of `targets`.

    It fills in the TokenLoss that is yielded.

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
    """Whether the model returns this layer's output unchanged; None until `score_tokens` has
    compared the two. If not, the layer always returns logits."""

    @classmethod
    def of(cls, linear: nn.Linear) -> "OutputLayer":
        """Returns a layer that shares the parameters of `linear`."""
        has_bias = linear.bias is not None  # pyright: ignore[reportUnnecessaryComparison]
        layer = cls(linear.in_features, linear.out_features, bias=has_bias, device="meta")
        layer.weight, layer.bias = linear.weight, linear.bias
        return layer.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        return self.score(input, self.weight)

    def score(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """Returns the same as `forward`, with `weight` [vocab, width] in place of its own."""
        token_loss = _current.get()
        if token_loss is None or self.is_last is False:
            return functional.linear(hidden, weight, self.bias)
        token_loss.layer = self
        return token_loss.compute(hidden, weight, self.bias)


def install_output_layer(model: Any) -> str | None:
    """Replaces the output layer of a transformers model by an OutputLayer with the same parameters.

    Names and ties of parameters do not change. If the model does not allow it, changes nothing and
    returns a clause for the report: its loss then needs all logits of a batch in memory.
    """
    reason = why_all_logits(model)
    if reason is not None:
        return (
            f"a {model.config.model_type} {reason}: its loss needs the logits of all positions in "
            f"memory, not only those of labelled positions"
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
    """Returns why the loss of a model cannot be computed in its output layer, as a verb phrase;
    None if it can."""
    config = model.config.get_text_config()
    settings = [name for name in CHANGES_LOGITS if getattr(config, name, None) not in (None, 1.0)]
    if settings:
        return f"changes its logits after the output layer ({', '.join(settings)})"
    if config.model_type in OTHER_OUTPUT:
        return OTHER_OUTPUT[config.model_type]
    if hasattr(model, "final_logits_bias"):  # of BART and similar encoder-decoders
        return "adds final_logits_bias after its output layer"
    layer = output_layer(model)
    if layer is None:
        return "has no output layer that transformers knows"
    if type(layer) not in (nn.Linear, OutputLayer):
        return f"has its own kind of output layer ({type(layer).__name__})"
    return None
