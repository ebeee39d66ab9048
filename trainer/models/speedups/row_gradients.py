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
    has the weight. The values are those of dense gradients up to the order of their sums. What the
    optimizer sees, as large as the weight, is kept from step to step.
    """
    owned = [weight for module in model.modules() for weight in module.parameters(recurse=False)]
    for module in model.modules():
        if (
            type(module) is nn.Embedding
            and module.weight.requires_grad
            and sum(weight is module.weight for weight in owned) == 1
            and 4 * tokens_per_step <= module.num_embeddings
        ):
            module.sparse = True
            _DenseForStep(module.weight, optimizer)


class _DenseForStep:
    """Spreads the rows of a sparse gradient over zeros for the optimizer, and clears them again.

    A model that also reads the weight by itself makes the gradient dense; it is left as it is.
    """

    def __init__(self, weight: Tensor, optimizer: torch.optim.Optimizer) -> None:
        self.weight = weight
        self.dense = torch.zeros_like(weight)
        self.chosen = torch.empty(0, dtype=torch.int64)
        weight.register_post_accumulate_grad_hook(_sum_by_row)
        optimizer.register_step_pre_hook(self.spread)
        optimizer.register_step_post_hook(self.clear)

    def spread(self, *_: Any) -> None:
        if self.weight.grad is not None and self.weight.grad.is_sparse:
            gradient = self.weight.grad.coalesce()  # clipping has unset that it is
            self.chosen = gradient.indices()[0]
            self.weight.grad = self.dense.index_copy_(0, self.chosen, gradient.values())

    def clear(self, *_: Any) -> None:
        if self.weight.grad is self.dense:
            self.dense.index_fill_(0, self.chosen, 0)
            self.weight.grad = None


def _sum_by_row(weight: Tensor) -> None:
    """Keeps the gradient of many micro-batches as small as its rows."""
    if weight.grad is not None and weight.grad.is_sparse:
        weight.grad = weight.grad.coalesce()
