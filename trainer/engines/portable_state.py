"""Full weights and moments by name, whichever engine holds them: plain, DDP, ZeRO or FSDP2."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trainer.engines import deepspeed_state, fsdp2_state
from trainer.engines.deepspeed_state import zero_stage
from trainer.errors import CheckpointError

Parameters = Mapping[str, nn.Parameter]


def base_optimizer(optimizer: Any) -> torch.optim.Optimizer:
    """Returns the optimizer inside the wrappers of engines."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


@dataclass(frozen=True)
class GatherableTensor:
    """A tensor that may be sharded. `gather` is collective, so every rank must call it."""

    name: str
    num_bytes: int
    """Size of the whole tensor."""
    gather: Callable[[], Tensor]


def full_weights(objective: nn.Module, parameters: Parameters) -> Iterator[GatherableTensor]:
    """Yields the fp32 weights by name."""
    for name, parameter in parameters.items():
        if zero_stage(objective):
            yield _in_zero(name, parameter, deepspeed_state.weight_getter(parameter))
        else:
            yield _in_place(name, parameter.detach())


def full_moments(
    objective: nn.Module, optimizer: Any, parameters: Parameters
) -> Iterator[GatherableTensor]:
    """Yields the optimizer's state of each parameter, named like `layer.weight|exp_avg`.

    The entry `step` is a number, fp32 [].
    """
    base = base_optimizer(optimizer)
    if not zero_stage(objective):
        for name, parameter in parameters.items():
            for entry, value in base.state.get(parameter, {}).items():
                if value is not None:
                    yield _in_place(f"{name}|{entry}", value)
        return
    deepspeed_state.link_moments(objective)
    step = deepspeed_state.step_count(base)
    for name, parameter in parameters.items():
        if step is not None:
            yield _in_place(f"{name}|step", step)
        getters = deepspeed_state.moment_getters(base, parameter)
        for entry, get in getters.items():
            yield _in_zero(f"{name}|{entry}", parameter, get)


@torch.no_grad()
def set_full_weights(
    objective: nn.Module, parameters: Parameters, weights: Mapping[str, Tensor]
) -> None:
    """Sets the parameters from full weights of the same names; each rank keeps its share.

    Weights are read one at a time, so `weights` may be backed by a file.
    """
    fsdp2_state.reshard(objective)
    for name, parameter in parameters.items():
        if zero_stage(objective):
            deepspeed_state.set_weight(parameter, weights[name])
        else:
            parameter.copy_(fsdp2_state.shard_like(parameter, weights[name]))


def set_full_moments(
    objective: nn.Module, optimizer: Any, parameters: Parameters, moments: Mapping[str, Tensor]
) -> None:
    """Sets the optimizer's state from full moments, named as by `full_moments`; each rank keeps its
    share.

    Moments are read one at a time, so `moments` may be backed by a file. Raises CheckpointError if
    the optimizer keeps its moments on an NVMe disk.
    """
    base = base_optimizer(optimizer)
    entries: dict[str, list[str]] = {name: [] for name in parameters}
    for key in moments:
        name, _, entry = key.rpartition("|")
        entries[name].append(entry)
    if not zero_stage(objective):
        _set_plain_moments(base, parameters, entries, moments)
        return
    # A parameter that was never updated has no entries; all others have the same.
    fullest = max(entries, key=lambda name: len(entries[name]))
    if not entries[fullest]:
        return
    if deepspeed_state.moments_are_on_nvme(objective):
        raise CheckpointError(
            "moments on an NVMe disk cannot be restored",
            key="offload_optimizer.device",
            value="nvme",
            hint="resume under zero3-offload.yaml, which reads the same checkpoint",
        )
    deepspeed_state.create_moments(
        objective,
        base,
        entries[fullest],
        lambda flat: _as_step(base, moments[f"{fullest}|step"], flat),
    )
    for name, parameter in parameters.items():
        for entry in entries[name]:
            if entry != "step":
                deepspeed_state.set_moment(parameter, entry, moments[f"{name}|{entry}"])


def _in_place(name: str, value: Any) -> GatherableTensor:
    """Returns a tensor that this rank holds whole, or that FSDP2 shards."""
    tensor = value if isinstance(value, Tensor) else torch.tensor(float(value))
    gather = partial(_gather_contiguous, tensor)
    return GatherableTensor(name, tensor.numel() * tensor.element_size(), gather)


def _gather_contiguous(tensor: Tensor) -> Tensor:
    return fsdp2_state.gather(tensor).contiguous()


def _in_zero(name: str, parameter: nn.Parameter, gather: Callable[[], Tensor]) -> GatherableTensor:
    """Returns a tensor that DeepSpeed holds in fp32."""
    return GatherableTensor(name, 4 * deepspeed_state.num_weights(parameter), gather)


def _as_step(base: torch.optim.Optimizer, count: Tensor, like: Tensor) -> Any:
    """Returns a count of steps as the optimizer keeps it: torch's as a tensor, others as an int."""
    if type(base).__module__.startswith("torch.optim"):
        return count.to(like.device, copy=True)
    return int(count)


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
                    _as_step(base, value, parameter)
                    if entry == "step"
                    else fsdp2_state.shard_like(parameter, value).to(parameter.device)
                )
    base.load_state_dict({"state": state, "param_groups": fresh["param_groups"]})
    if getattr(base, "is_paged", False):
        _page_moments(base)


def _page_moments(base: Any) -> None:
    """Moves loaded moments into the buffers of a paged optimizer of bitsandbytes."""
    for parameter, state in base.state.items():
        for entry in ("state1", "state2"):
            buffer = base.get_state_buffer(parameter, dtype=state[entry].dtype)
            state[entry] = buffer.copy_(state[entry])
