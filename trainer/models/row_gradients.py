"""Gradients of embeddings as the rows that a step's tokens chose, for one process on a CPU.

Nearly all rows of a vocabulary are 0 in a step's gradient; to zero, measure and clip them is
otherwise a twentieth of a small model's step.
"""

from typing import Any

import torch
from torch import Tensor, nn


def use_row_gradients(
    model: nn.Module, optimizer: torch.optim.Optimizer, *, tokens_per_step: float
) -> None:
    """Lets gradients of embeddings be sparse until the optimizer's step, which sees them dense.

    Only where `tokens_per_step`, on average, are at most a quarter of the rows, and no other module
    uses the weight. The values are those of dense gradients up to the order of their sums.
    """
    uses = [weight for module in model.modules() for weight in module.parameters(recurse=False)]
    for module in model.modules():
        if (
            type(module) is nn.Embedding
            and module.weight.requires_grad
            and sum(use is module.weight for use in uses) == 1
            and 4 * tokens_per_step <= module.num_embeddings
        ):
            module.sparse = True
            _DenseForStep(module.weight, optimizer)


class _DenseForStep:
    """Spreads the rows of a sparse gradient over zeros for the optimizer, and clears them again."""

    def __init__(self, weight: Tensor, optimizer: torch.optim.Optimizer) -> None:
        self.weight = weight
        self.gradient = torch.zeros_like(weight)
        weight.register_post_accumulate_grad_hook(_sum_by_row)
        optimizer.register_step_pre_hook(self.spread)
        optimizer.register_step_post_hook(self.clear)

    def spread(self, *_: Any) -> None:
        if self.weight.grad is not None:
            rows = self.weight.grad.coalesce()
            self.chosen = rows.indices()[0]
            self.weight.grad = self.gradient.index_copy_(0, self.chosen, rows.values())

    def clear(self, *_: Any) -> None:
        if self.weight.grad is not None:
            self.gradient.index_fill_(0, self.chosen, 0)
            self.weight.grad = None


def _sum_by_row(weight: Tensor) -> None:
    assert weight.grad is not None
    weight.grad = weight.grad.coalesce()
