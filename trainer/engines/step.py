"""What engines do differently within an optimizer step: when they exchange, clip and step."""

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
    """Context manager of one micro-batch: DDP exchanges gradients in the `last` one of a step only.

    DeepSpeed also clips and steps in the last one's backward: set the learning rate before it.
    """
    accelerator.sync_gradients = last
    # FSDP2 would keep whole gradients until the last one.
    if last or sharding_of(objective) is not Sharding.NOTHING:
        return nullcontext()
    return accelerator.no_sync(objective)


def steps_in_backward(objective: nn.Module) -> bool:
    """Returns whether the engine clips gradients and steps by itself, in the last backward."""
    return zero_stage(objective) > 0


def zero_grad_norm(objective: nn.Module) -> Tensor:
    """Returns the global norm before clipping of the step that DeepSpeed just took, fp32 [].

    It is not finite if DeepSpeed skipped the step because its gradient overflowed in fp16.
    """
    engine: Any = objective
    norm = engine.get_global_grad_norm() if engine.was_step_applied() else torch.inf
    return torch.as_tensor(norm, dtype=torch.float32, device=engine.device)


def global_grad_norm(parameters: Mapping[str, nn.Parameter]) -> Tensor:
    """Returns the global norm of the gradients that lie on the parameters, []."""
    gradients = [p.grad for p in parameters.values() if p.grad is not None]
    return gather(get_total_norm([g.coalesce().values() if g.is_sparse else g for g in gradients]))
