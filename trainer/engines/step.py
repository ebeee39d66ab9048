"""Differences between engines in an optimizer step: when they exchange gradients, clip and step."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from trainer.engines.deepspeed_state import zero_stage
from trainer.engines.fsdp2_state import gather
from trainer.engines.sharding import Sharding, sharding_of


def accumulating(
    accelerator: Accelerator, objective: nn.Module, *, last: bool
) -> AbstractContextManager[Any]:
    """Context manager for a micro-batch: DDP exchanges gradients only in the `last` one of a step.

    DeepSpeed also clips and steps in the backward of the last one: set the learning rate before it.
    """
    accelerator.sync_gradients = last
    # With no_sync, FSDP2 would keep whole gradients until the last micro-batch.
    if last or sharding_of(objective) is not Sharding.NOTHING:
        return nullcontext()
    return accelerator.no_sync(objective)


def steps_in_backward(objective: nn.Module) -> bool:
    """Returns whether the engine clips gradients and steps by itself, in a step's last backward."""
    return zero_stage(objective) > 0


def zero_grad_norm(objective: nn.Module) -> Tensor:
    """Returns the gradient norm before clipping in the step that DeepSpeed just took, fp32 [].

    It is not finite if DeepSpeed skipped the step because its gradient overflowed in fp16.
    """
    engine: Any = objective
    norm = engine.get_global_grad_norm() if engine.was_step_applied() else torch.inf
    return torch.as_tensor(norm, dtype=torch.float32, device=engine.device)


def global_grad_norm(parameters: Mapping[str, nn.Parameter]) -> Tensor:
    """Returns the global norm of the parameters' gradients, []."""
    gradients = [p.grad for p in parameters.values() if p.grad is not None]
    return gather(get_total_norm([g.coalesce().values() if g.is_sparse else g for g in gradients]))
