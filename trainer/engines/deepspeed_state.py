"""The state inside DeepSpeed's engine: the only file that uses DeepSpeed's private names.

The tests of resuming and of the engines guard them; they may change in any release:

- of the ZeRO optimizer, `fp32_partitioned_groups_flat` (stage 3) and
  `single_partition_of_fp32_groups` (stages 1 and 2), `_hp_optimizer_states_linked`,
  `_lazy_init_hp_params_optimizer_state`, `swap_optimizer`, `loss_scaler` and `parameter_offload`;
- of its loss scaler, `dynamic`, `cur_scale`, `cur_iter`, `last_overflow_iter`, `scale_window` and
  `raise_error_at_min_scale`;
- of the parameter offload, `_remove_module_hooks`, `setup_zero_stage3_hooks`, `forward_hooks` and
  `backward_hooks`;
- of a parameter under ZeRO-3, `ds_id`, `ds_numel`, `ds_tensor`, `ds_active_sub_modules` and
  `ds_zero_param_process_group`.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional


def zero_stage(objective: nn.Module) -> int:
    """Returns the stage of ZeRO that wraps an objective, 0 without DeepSpeed."""
    stage: Any = getattr(objective, "zero_optimization_stage", None)
    return stage() if stage is not None else 0


def has_second_copy(objective: nn.Module) -> bool:
    """Returns whether ZeRO-3 keeps a second copy of the weights on each machine (hpZ)."""
    parameter: Any = next(objective.parameters())
    return getattr(parameter, "ds_zero_param_process_group", None) is not None


def num_weights(parameter: Any) -> int:
    """Returns the number of weights of a parameter, whose shape is empty under ZeRO-3."""
    return getattr(parameter, "ds_numel", parameter.numel())


# Weights and moments


def weight_getter(parameter: nn.Parameter) -> Callable[[], Tensor]:
    """Returns a collective function that gathers the fp32 weight of a parameter."""
    from deepspeed.utils import safe_get_full_fp32_param

    return _gathering(partial(safe_get_full_fp32_param, parameter))


def moment_getters(
    base: torch.optim.Optimizer, parameter: nn.Parameter
) -> dict[str, Callable[[], Tensor]]:
    """Returns, by entry, collective functions that gather the optimizer's state of a parameter.

    Call `link_moments` first. All flat partitions have the same entries, so the first one tells
    those of each parameter. The count `step` is not among them; see `step_count`.
    """
    from deepspeed.utils import safe_get_full_optimizer_state

    state = next(iter(base.state.values()), {})
    return {
        entry: _gathering(partial(safe_get_full_optimizer_state, parameter, entry))
        for entry, value in state.items()
        if entry != "step" and value is not None
    }


def step_count(base: torch.optim.Optimizer) -> float | None:
    """Returns the number of steps that the optimizer has taken, or None if it does not count."""
    state = next(iter(base.state.values()), {})
    return float(state["step"]) if "step" in state else None


def set_weight(parameter: nn.Parameter, weight: Tensor) -> None:
    """Writes this rank's share of a full weight to the fp32 master and to the model's weight."""
    _set_share(parameter, weight)
    with gathered([parameter]) if hasattr(parameter, "ds_id") else nullcontext():
        parameter.copy_(weight)


def set_moment(parameter: nn.Parameter, entry: str, value: Tensor) -> None:
    """Writes this rank's share of a full moment to the optimizer's flat partitions."""
    _set_share(parameter, value, entry)


def create_moments(
    objective: nn.Module,
    base: torch.optim.Optimizer,
    entries: Iterable[str],
    step_for: Callable[[Tensor], Any],
) -> None:
    """Creates the optimizer's state of each flat partition: zeros, and `step` from `step_for`."""
    entries = list(entries)
    for flat in _flat_partitions(objective):
        base.state[flat] = {
            entry: step_for(flat) if entry == "step" else torch.zeros_like(flat.data)
            for entry in entries
        }
    link_moments(objective)


def link_moments(objective: nn.Module) -> None:
    """Links the moments in flat partitions to parameters, which ZeRO-1 and 2 do only for the first
    group."""
    zero: Any = objective.optimizer
    if hasattr(zero, "_hp_optimizer_states_linked"):
        zero._hp_optimizer_states_linked = False
        zero._lazy_init_hp_params_optimizer_state()


def moments_are_on_nvme(objective: nn.Module) -> bool:
    """Returns whether the moments are on an NVMe disk, where they cannot be set."""
    return getattr(objective.optimizer, "swap_optimizer", False)


def _gathering(get: Callable[[], Any]) -> Callable[[], Tensor]:
    return lambda: get().detach().contiguous()


def _flat_partitions(objective: nn.Module) -> list[nn.Parameter]:
    """Returns this rank's fp32 share of each parameter group, which the base optimizer steps."""
    zero: Any = objective.optimizer
    if hasattr(zero, "fp32_partitioned_groups_flat"):
        return zero.fp32_partitioned_groups_flat
    return zero.single_partition_of_fp32_groups


def _set_share(parameter: Any, value: Tensor, entry: str | None = None) -> None:
    """Writes this rank's share of a full weight, or of the moment `entry`."""
    from deepspeed import utils

    if not hasattr(parameter, "ds_id"):
        full = value.to(parameter.device)
        if entry is None:
            utils.safe_set_full_fp32_param(parameter, full)
        else:
            utils.safe_set_full_optimizer_state(parameter, full, entry)
        return
    # DeepSpeed's setters of full values read past the end if the ranks do not divide the size.
    size = parameter.ds_tensor.ds_numel
    start = size * dist.get_rank()
    share = value.flatten()[start : start + size]
    share = functional.pad(share, (0, size - share.numel())).to(parameter.device)
    if entry is None:
        utils.safe_set_local_fp32_param(parameter, share)
    else:
        utils.safe_set_local_optimizer_state(parameter, share, entry)


# Gathered models under ZeRO-3


def gathered(parameters: Iterable[nn.Parameter]) -> AbstractContextManager[Any]:
    """Context manager: sharded parameters are whole inside. Changes that rank 0 makes are kept."""
    from deepspeed.runtime.zero import GatheredParameters

    return GatheredParameters(list(parameters), modifier_rank=0)


@contextmanager
def gathered_model(objective: nn.Module) -> Generator[None]:
    """Context manager: all weights of a model under ZeRO-3 are whole, and its hooks are removed."""
    wrapped: Any = objective
    offload = wrapped.optimizer.parameter_offload
    with gathered(objective.parameters()):
        # Otherwise the next forward would re-shard the gathered weights.
        for parameter in objective.parameters():
            parameter.ds_active_sub_modules.clear()  # type: ignore[attr-defined]
        offload._remove_module_hooks()
        offload.forward_hooks.clear()
        offload.backward_hooks.clear()
        try:
            yield
        finally:
            offload.setup_zero_stage3_hooks()


# The loss scale of fp16


def zero_scaler(objective: nn.Module) -> Any:
    """Returns DeepSpeed's dynamic loss scaler, or None if the objective has none."""
    zero: Any = getattr(objective, "optimizer", None)
    scaler = getattr(zero, "loss_scaler", None)
    return scaler if scaler is not None and scaler.dynamic else None


def allow_any_loss_scale(objective: nn.Module) -> None:
    """Keeps DeepSpeed from raising at its smallest loss scale; the loop names the step instead."""
    scaler = zero_scaler(objective)
    if scaler is not None:
        scaler.raise_error_at_min_scale = False


def zero_loss_scale(scaler: Any) -> dict[str, float]:
    """Returns the `scale` of DeepSpeed's scaler and the `steps` since it last changed.

    DeepSpeed counts steps since the last overflow. Torch starts again from 0 at each growth, and
    would never grow again from a count beyond its interval; hence the remainder.
    """
    steps = scaler.cur_iter - scaler.last_overflow_iter - 1
    return {"scale": scaler.cur_scale, "steps": steps % scaler.scale_window}


def set_zero_loss_scale(scaler: Any, saved: Mapping[str, float]) -> None:
    """Sets a saved scale, in the form that `zero_loss_scale` returns."""
    scaler.cur_scale = saved["scale"]
    scaler.last_overflow_iter, scaler.cur_iter = -1, int(saved["steps"])
