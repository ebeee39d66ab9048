"""What ranks decide together: sums, agreement, and work that the main process does alone."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch import distributed as dist

from trainer.errors import TrainerError

Result = TypeVar("Result")


def sum_over_ranks(accelerator: Accelerator, tensor: Tensor, group: Any = None) -> Tensor:
    """Returns the sum of a tensor over the ranks of a process group, on each of them.

    Without a group, over all ranks.
    """
    if accelerator.num_processes == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total, group=group)
    return total


def any_rank(accelerator: Accelerator, condition: bool) -> bool:
    """Returns on every rank whether the condition holds on at least one."""
    return any_rank_of_each(accelerator, condition)[0]


def any_rank_of_each(accelerator: Accelerator, *conditions: bool) -> list[bool]:
    """Returns on every rank, for each condition, whether it holds on at least one."""
    if accelerator.num_processes == 1:
        return list(conditions)
    flags = torch.tensor([float(condition) for condition in conditions], device=accelerator.device)
    return [count > 0 for count in sum_over_ranks(accelerator, flags).tolist()]


def on_main(accelerator: Accelerator, work: Callable[[], Result]) -> Result:
    """Returns what `work` returns on the main process.

    What it raises there is raised on every rank, so that none waits for the main process: a
    TrainerError as it is, any other error as a TrainerError on the other ranks.
    """
    outcome: list[Any] = [None]  # the Result, or the TrainerError in its place
    if accelerator.is_main_process:
        try:
            outcome[0] = work()
        except TrainerError as error:
            outcome[0] = error
        except Exception as error:
            if accelerator.num_processes > 1:
                broadcast_object_list([TrainerError(f"the main process failed: {error!r}")])
            raise
    if accelerator.num_processes > 1:
        broadcast_object_list(outcome)
    result = outcome.pop()
    if isinstance(result, TrainerError):
        raise result
    return result


def gather_on_main(accelerator: Accelerator, value: Result) -> list[Result]:
    """Returns the `value` of each rank, in their order, on the main process; elsewhere an empty
    list."""
    if accelerator.num_processes == 1:
        return [value]
    gathered: list[Any] = [None] * accelerator.num_processes
    is_main = accelerator.is_main_process
    dist.gather_object(value, gathered if is_main else None, dst=0)
    return gathered if is_main else []
