"""Full weights and moments by name, whatever holds them: one process, DDP, DeepSpeed ZeRO, FSDP2.

With sharding.py, launch.py and the settings beside it the only file that knows DeepSpeed and FSDP.
It reads a few of their private names, which the tests of resuming hold fast.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn import functional
from torch.nn.utils import get_total_norm

from trainer.engines.sharding import sharding, whole_weight, zero_stage
from trainer.errors import CheckpointError

Parameters = Mapping[str, nn.Parameter]


def accumulating(
    accelerator: Accelerator, objective: nn.Module, *, last: bool
) -> AbstractContextManager[Any]:
    """Returns the context of one micro-batch; DDP exchanges gradients in the `last` of a step.

    There DeepSpeed also clips and steps, inside backward: set the learning rate before it.
    """
    accelerator.sync_gradients = last
    if last or sharding(objective) != "nothing":  # FSDP2 would keep whole gradients until the last
        return nullcontext()
    return accelerator.no_sync(objective)


def zero_grad_norm(objective: nn.Module) -> Tensor:
    """Returns the global norm before clipping of the step that DeepSpeed has just taken, fp32 [].

    Not finite where it left a step out, because its gradient overflowed in fp16.
    """
    engine: Any = objective
    norm = engine.get_global_grad_norm() if engine.was_step_applied() else torch.inf
    return torch.as_tensor(norm, dtype=torch.float32, device=engine.device)


def global_grad_norm(parameters: Parameters) -> Tensor:
    """Returns the global norm of the gradients that lie on the parameters, []."""
    gradients = [p.grad for p in parameters.values() if p.grad is not None]
    norm = get_total_norm([g.coalesce().values() if g.is_sparse else g for g in gradients])
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def base_optimizer(optimizer: Any) -> torch.optim.Optimizer:
    """Returns the optimizer under the wrapping of engines."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


@dataclass(frozen=True)
class Whole:
    """A whole tensor that lies in shards: every rank has to `get` it, for all put it together."""

    name: str
    num_bytes: int
    get: Callable[[], Tensor]


def full_weights(objective: nn.Module, parameters: Parameters) -> Iterator[Whole]:
    """Yields the fp32 weights by name."""
    for name, parameter in parameters.items():
        if zero_stage(objective):
            from deepspeed.utils import safe_get_full_fp32_param

            yield _of_zero(name, parameter, partial(safe_get_full_fp32_param, parameter))
        else:
            yield _of_plain(name, parameter.detach())


def full_moments(objective: nn.Module, optimizer: Any, parameters: Parameters) -> Iterator[Whole]:
    """Yields what the optimizer keeps of each parameter, named like `layer.weight|exp_avg`.

    The entry `step` is a number, fp32 [].
    """
    base = base_optimizer(optimizer)
    if not zero_stage(objective):
        for name, parameter in parameters.items():
            for entry, value in base.state.get(parameter, {}).items():
                if value is not None:
                    yield _of_plain(f"{name}|{entry}", value)
        return
    from deepspeed.utils import safe_get_full_optimizer_state

    shared = next(iter(base.state.values()), {})  # each flat partition holds the same entries
    _link_moments(objective)
    for name, parameter in parameters.items():
        for entry, value in shared.items():
            if entry == "step":
                yield _of_plain(f"{name}|step", float(value))
            elif value is not None:
                get = partial(safe_get_full_optimizer_state, parameter, entry)
                yield _of_zero(f"{name}|{entry}", parameter, get)


@torch.no_grad()
def set_full_weights(
    objective: nn.Module, parameters: Parameters, weights: Mapping[str, Tensor]
) -> None:
    """Puts whole weights into the parameters of the same names, on every rank its share.

    One is read at a time, so that `weights` may lie in a file.
    """
    for module in objective.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # what the last evaluation left gathered would be used once more
    for name, parameter in parameters.items():
        weight = weights[name]
        if not zero_stage(objective):
            parameter.copy_(_laid_out_as(parameter, weight))
            continue
        _set_share(parameter, weight)  # the fp32 master, and here what computes
        with whole_weight(objective, parameter):
            parameter.copy_(weight)


def set_full_moments(
    objective: nn.Module, optimizer: Any, parameters: Parameters, moments: Mapping[str, Tensor]
) -> None:
    """Puts whole moments into the optimizer, on every rank its share; named as by `full_moments`.

    One is read at a time, so that `moments` may lie in a file.
    """
    base = base_optimizer(optimizer)
    entries: dict[str, list[str]] = {name: [] for name in parameters}
    for key in moments:
        name, _, entry = key.rpartition("|")
        entries[name].append(entry)
    if not zero_stage(objective):
        _set_plain_moments(base, parameters, entries, moments)
        return
    first, kept = max(entries.items(), key=lambda one: len(one[1]))  # not one that never learned
    if not kept:
        return
    if getattr(objective.optimizer, "swap_optimizer", False):
        raise CheckpointError(
            "moments cannot be put back on an NVMe disk; go on under zero3-offload.yaml, which "
            "takes the same checkpoint"
        )
    for flat in _flat_partitions(objective):
        base.state[flat] = {
            entry: _step_of(base, moments[f"{first}|step"], flat)
            if entry == "step"
            else torch.zeros_like(flat.data)
            for entry in kept
        }
    _link_moments(objective)
    for name, parameter in parameters.items():
        for entry in entries[name]:
            if entry != "step":
                _set_share(parameter, moments[f"{name}|{entry}"], entry)


def _laid_out_as(parameter: Tensor, whole: Tensor) -> Tensor:
    """Returns of a whole tensor what this rank holds of it, sharded like a parameter of FSDP2."""
    if not isinstance(parameter, DTensor):
        return whole
    mesh, placements = parameter.device_mesh, parameter.placements
    return distribute_tensor(whole.to(parameter.device), mesh, placements, src_data_rank=None)


def _of_plain(name: str, value: Any) -> Whole:
    """Returns what this rank holds whole, or FSDP2 in shards."""
    tensor = value if isinstance(value, Tensor) else torch.tensor(float(value))

    def get() -> Tensor:
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        return whole.contiguous()

    return Whole(name, tensor.numel() * tensor.element_size(), get)


def _of_zero(name: str, parameter: Any, get: Callable[[], Any]) -> Whole:
    """Returns what DeepSpeed holds of a parameter in fp32."""
    num_bytes = 4 * getattr(parameter, "ds_numel", parameter.numel())
    return Whole(name, num_bytes, lambda: get().detach().contiguous())


def _step_of(base: torch.optim.Optimizer, value: Tensor, beside: Tensor) -> Any:
    """Returns the count of steps as the optimizer keeps it: torch's as a tensor, others as int."""
    if type(base).__module__.startswith("torch.optim"):
        return value.to(beside.device, copy=True)
    return int(value)


def _set_share(parameter: Any, value: Tensor, entry: str | None = None) -> None:
    """Puts this rank's share of a whole weight, or of an entry of its moments, in its place."""
    from deepspeed import utils

    if not hasattr(parameter, "ds_id"):
        whole = value.to(parameter.device)
        if entry is None:
            utils.safe_set_full_fp32_param(parameter, whole)
        else:
            utils.safe_set_full_optimizer_state(parameter, whole, entry)
        return
    # DeepSpeed's own setter of whole values reads past their end where ranks do not divide them.
    size = parameter.ds_tensor.ds_numel
    start = size * dist.get_rank()
    mine = value.flatten()[start : start + size]
    share = functional.pad(mine, (0, size - mine.numel())).to(parameter.device)
    if entry is None:
        utils.safe_set_local_fp32_param(parameter, share)
    else:
        utils.safe_set_local_optimizer_state(parameter, share, entry)


def _set_plain_moments(
    base: torch.optim.Optimizer,
    parameters: Parameters,
    entries: Mapping[str, list[str]],
    moments: Mapping[str, Tensor],
) -> None:
    names = {id(parameter): name for name, parameter in parameters.items()}
    fresh = base.state_dict()
    state: dict[int, dict[str, Any]] = {}
    for group, numbered in zip(base.param_groups, fresh["param_groups"], strict=True):
        for parameter, index in zip(group["params"], numbered["params"], strict=True):
            name = names[id(parameter)]
            for entry in entries[name]:
                value = moments[f"{name}|{entry}"]
                state.setdefault(index, {})[entry] = (
                    _step_of(base, value, parameter)
                    if entry == "step"
                    else _laid_out_as(parameter, value).to(parameter.device)
                )
    base.load_state_dict({"state": state, "param_groups": fresh["param_groups"]})
    if getattr(base, "is_paged", False):
        _page_moments(base)


def _page_moments(base: Any) -> None:
    """Puts loaded moments where a paged optimizer of bitsandbytes makes its own."""
    for parameter, kept in base.state.items():
        for entry in ("state1", "state2"):
            place = base.get_state_buffer(parameter, dtype=kept[entry].dtype)
            kept[entry] = place.copy_(kept[entry])


def _flat_partitions(objective: nn.Module) -> list[nn.Parameter]:
    """Returns this rank's fp32 share of each parameter group, which the base optimizer steps."""
    zero: Any = objective.optimizer
    if hasattr(zero, "fp32_partitioned_groups_flat"):
        return zero.fp32_partitioned_groups_flat
    return zero.single_partition_of_fp32_groups


def _link_moments(objective: nn.Module) -> None:
    """Makes the moments in flat partitions known by parameter; ZeRO-1 and 2 forget all but one."""
    zero: Any = objective.optimizer
    if hasattr(zero, "_hp_optimizer_states_linked"):
        zero._hp_optimizer_states_linked = False
        zero._lazy_init_hp_params_optimizer_state()
