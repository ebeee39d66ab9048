"""The engine of a run: model and optimizer made in the order that each engine needs, and checked.

Nothing here changes what is learned. The order of the steps is what makes that true.
"""

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn

from trainer.distributed.collectives import any_rank
from trainer.engines.accelerator import wrap
from trainer.engines.precision import COMPUTE_DTYPES, Precision
from trainer.engines.promises import check_engine
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
    """The trainable parameters by their name in the model: the same names under every engine."""


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
    """Returns model and optimizer as the engine of the launch holds them.

    `tokens_per_step` is the mean over a step's examples, without padding. Raises LaunchError if the
    engine would train anything but what the recipe says.
    """
    objective: nn.Module = Objective(model, task)
    sharded = starts_sharded(accelerator, recipe)
    # To the device first, except for DeepSpeed, which casts to the compute type before it moves.
    if accelerator.distributed_type != DistributedType.DEEPSPEED:
        objective.to(accelerator.device)
    # Ranks that loaded only the shape get memory: an optimizer takes no meta parameters.
    if sharded:
        materialize(accelerator, objective, COMPUTE_DTYPES[precision])
    # The optimizer before sharding: its groups go by shape, and a ZeRO-3 shard has lost its own.
    base_optimizer = build_optimizer(trainable_parameters(model), recipe.optimizer)
    # Before an engine registers hooks on modules that this replaces.
    speed_up(
        model,
        base_optimizer,
        device=accelerator.device,
        is_wrapped=accelerator.distributed_type != DistributedType.NO,
        needs_only_logits=task.needs_only_logits,
        tokens_per_step=tokens_per_step,
    )
    # The main process's weights to all ranks before wrapping, which would otherwise take theirs.
    if sharded:
        shard_from_main(accelerator, objective)
    # A packed 4-bit weight is compared around the wrapping: an engine that casts it destroys it.
    canary = packed_layer(model)
    before = None if canary is None else _dense_copy(canary)
    objective, optimizer = wrap(accelerator, objective, base_optimizer)
    if canary is not None and before is not None:
        _check_canary(canary, before, objective, recipe, accelerator)
    # Only the wrapped engine can say what it made of the recipe.
    check_engine(
        accelerator,
        objective,
        optimizer,
        micro_batch_size=micro_batch_size,
        recipe=recipe,
        precision=precision,
        unwrapped=base_optimizer,
    )
    # Names from the bare model: in checkpoints they carry no prefix of an engine or the objective.
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
    """Raises LaunchError, on every rank, if one of them holds another weight than before."""
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
