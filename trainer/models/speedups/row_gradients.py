"""Sparse gradients of embeddings, with one row per token of a step, for one process on a CPU.

Nearly all rows of a vocabulary's gradient are 0 in a step. To zero, measure and clip them takes a
twentieth of a small model's step.
"""

from typing import Any

import torch
from torch import Tensor, nn


def use_row_gradients(
    model: nn.Module, optimizer: torch.optim.Optimizer, *, tokens_per_step: float
) -> None:
    """Makes gradients of embeddings sparse until the optimizer's step, which gets dense ones.

    Applies to embeddings whose weight no other module has, with at least four times as many rows as
    a step has tokens on average. The values equal those of dense gradients up to the order of
    summation. A dense gradient, as large as the weight, stays in memory between steps.
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
    """Writes the rows of a sparse gradient into a dense one for the optimizer, then clears them.

    A model that also uses the weight outside the embedding has a dense gradient, which stays.
    """

    def __init__(self, weight: Tensor, optimizer: torch.optim.Optimizer) -> None:
        self.weight = weight
        self.dense = torch.zeros_like(weight)
        self.rows = torch.empty(0, dtype=torch.int64)
        weight.register_post_accumulate_grad_hook(_sum_by_row)
        optimizer.register_step_pre_hook(self.spread)
        optimizer.register_step_post_hook(self.clear)

    def spread(self, *_: Any) -> None:
        if self.weight.grad is not None and self.weight.grad.is_sparse:
            gradient = self.weight.grad.coalesce()  # clipping loses the mark that it is coalesced
            self.rows = gradient.indices()[0]
            self.weight.grad = self.dense.index_copy_(0, self.rows, gradient.values())

    def clear(self, *_: Any) -> None:
        if self.weight.grad is self.dense:
            self.dense.index_fill_(0, self.rows, 0)
            self.weight.grad = None


def _sum_by_row(weight: Tensor) -> None:
    """Merges rows of the same token, so that the gradient does not grow over micro-batches."""
    if weight.grad is not None and weight.grad.is_sparse:
        weight.grad = weight.grad.coalesce()
