"""A version of PEFT's layer for new tokens that can wrap an output layer. Imports PEFT."""

from typing import Any

from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from torch import Tensor, nn
from torch.nn import functional

from trainer.models.output_layer import OutputLayer


class OutputTokensLayer(TrainableTokensLayer):
    """Computes logits, or the loss, with a weight that includes the trained rows of new tokens.

    PEFT's own class drops the bias of the output layer, and computes only logits.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer: Any = self.get_base_layer()
        if self.disable_adapters or self.merged or not self.active_adapters:
            return super().forward(x, *args, **kwargs)
        weight = self.get_merged_weights(self.active_adapters)
        if isinstance(layer, OutputLayer):
            return layer.score(x, weight)
        return functional.linear(x, weight, layer.bias)


def score_by_new_rows(model: nn.Module) -> None:
    """Turns PEFT's layers for new tokens around output layers into OutputTokensLayers."""
    for module in model.modules():
        wraps_output = type(module) is TrainableTokensLayer and isinstance(
            module.get_base_layer(), nn.Linear
        )
        if wraps_output:  # PEFT builds the layer and offers no choice of its class
            module.__class__ = OutputTokensLayer
