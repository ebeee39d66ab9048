"""Starts the engine of a run with its model and optimizer, and checks what it will do.

Nothing here changes what is learned, provided that the steps are taken in this order.
"""

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn

from trainer.distributed.collectives import any_rank
from trainer.engines.accelerator import wrap
from trainer.engines.launch_checks import check_engine
from trainer.engines.precision import COMPUTE_DTYPES, Precision
from trainer.engines.sharding import whole_weight
from trainer.engines.zero3_start import materialize, shard_from_main, starts_sharded
from trainer.errors import LaunchError
from trainer.models.export import dense_weight, packed_layer
from trainer.models.parameters import trainable_parameters
from trainer.models.speedups.speed_up import speed_up
from trainer.optim import build_optimizer
from trainer.recipe.schema import Recipe
from trainer.tasks.base import Objective, Task


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What the loop steps."""

    objective: nn.Module
    """The model with the task's loss, wrapped by the engine."""
    optimizer: torch.optim.Optimizer
    """The optimizer, wrapped by the engine."""
    parameters: dict[str, nn.Parameter]
    """The trainable parameters by their names in the model, the same under every engine."""


def start_engine(
    model: nn.Module,
    task: Task,
    recipe: Recipe,
    accelerator: Accelerator,
    *,
    precision: Precision,
    micro_batch_size: int,
    tokens_per_step: float,
) -> Engine:
    """Returns model and optimizer, wrapped by the engine of the launch.

    `tokens_per_step` is the mean number of tokens of an optimizer step, without padding. Raises
    LaunchError if the engine would train anything other than the recipe says.
    """
    objective: nn.Module = Objective(model, task)
    sharded = starts_sharded(accelerator, recipe)
    # To the device first, except for DeepSpeed, which casts to the compute type before it moves.
    if accelerator.distributed_type != DistributedType.DEEPSPEED:
        objective.to(accelerator.device)
    # Ranks that loaded only the shape get memory: an optimizer refuses parameters without any.
    if sharded:
        materialize(accelerator, objective, COMPUTE_DTYPES[precision])
    # The optimizer before sharding: its groups depend on shapes, which ZeRO-3 shards do not have.
    base_optimizer = build_optimizer(trainable_parameters(model), recipe.optimizer)
    # Before the engine registers hooks on modules that are replaced here.
    speed_up(
        model,
        base_optimizer,
        device=accelerator.device,
        is_wrapped=accelerator.distributed_type != DistributedType.NO,
        needs_only_logits=task.needs_only_logits,
        tokens_per_step=tokens_per_step,
    )
    # The main process's weights go to all ranks before wrapping, which takes what each rank has.
    if sharded:
        shard_from_main(accelerator, objective)
    # A packed 4-bit weight is compared before and after wrapping: a cast would destroy it.
    canary = packed_layer(model)
    before = None if canary is None else _dense_copy(canary)
    objective, optimizer = wrap(accelerator, objective, base_optimizer)
    if canary is not None and before is not None:
        _check_canary(canary, before, objective, recipe, accelerator)
    # Only the wrapped engine shows which settings it really uses.
    check_engine(
        accelerator,
        objective,
        optimizer,
        micro_batch_size=micro_batch_size,
        recipe=recipe,
        precision=precision,
        unwrapped=base_optimizer,
    )
    # Names of the unwrapped model, so that those in checkpoints do not depend on the engine.
    parameters = trainable_parameters(model)
    return Engine(objective=objective, optimizer=optimizer, parameters=parameters)


def _dense_copy(layer: nn.Module) -> Tensor:
    return dense_weight(layer).float().cpu()


def _check_canary(
    canary: nn.Module,
    before: Tensor,
    objective: nn.Module,
    recipe: Recipe,
    accelerator: Accelerator,
) -> None:
    """Raises LaunchError on every rank if any of them holds another weight than before."""
    weight = canary.get_parameter("weight")
    with whole_weight(objective, weight):
        same = torch.equal(_dense_copy(canary), before)
    if any_rank(accelerator, not same):
        raise LaunchError(
            f"the engine changed weights that are stored in {recipe.tuning.mode}",
            key="tuning.mode",
            value=recipe.tuning.mode,
            hint="launch with accelerate_configs/ddp.yaml",
        )
