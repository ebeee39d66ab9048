"""Faster dropout for CPUs. To draw its masks, torch's takes a tenth of a small model's step."""

import torch
from torch import Tensor, nn

LEVELS = 2**16


class FastDropout(nn.Dropout):
    """Dropout whose mask draws 16 random bits per value instead of a float.

    The probability is rounded to a multiple of 1/65536. Kept values are scaled by the inverse of
    the rounded one, so that the expected output equals the input, as in torch's dropout.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Returns `input`, with values dropped in training."""
        dropped = round(self.p * LEVELS)
        if not self.training or dropped == 0 or dropped == LEVELS:
            return super().forward(input)
        words = torch.empty((input.numel() + 3) // 4, dtype=torch.int64)
        bits = words.random_(-(2**63), None).view(torch.int16)[: input.numel()]  # type: ignore[arg-type]
        mask = (bits >= dropped - LEVELS // 2).view(input.shape).to(input.dtype)
        return input * mask.mul_(LEVELS / (LEVELS - dropped))


def speed_up_dropout(model: nn.Module) -> None:
    """Replaces torch's dropout modules in a model on a CPU; names and weights do not change."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, FastDropout(child.p))
