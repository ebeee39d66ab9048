"""PEFT's layer for new tokens where it wraps an output layer. Imports PEFT."""

from typing import Any

from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from torch import Tensor, nn
from torch.nn import functional

from trainer.models.output_layer import OutputLayer


class OutputTokensLayer(TrainableTokensLayer):
    """Scores words by a weight that has the rows of new tokens, with the bias of the output layer.

    PEFT's own class leaves the bias out, and knows logits only.
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
    """Makes the layers for new tokens around output layers of a PEFT model OutputTokensLayers."""
    for module in model.modules():
        wraps_output = type(module) is TrainableTokensLayer and isinstance(
            module.get_base_layer(), nn.Linear
        )
        if wraps_output:  # PEFT builds the layer itself, and takes no class for it
            module.__class__ = OutputTokensLayer
