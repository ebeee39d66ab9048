"""Whether the tensors of a checkpoint are those that a model and its optimizer need."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.checkpoints.shards import SavedTensors
from trainer.engines.portable_state import Parameters, base_optimizer
from trainer.engines.sharding import whole_weight
from trainer.errors import CheckpointError

Kind = tuple[tuple[int, ...], str]
"""Shape and type of a tensor, such as F32."""
TYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}
BLOCK = 256
"""Weights for which an 8-bit optimizer keeps one scale, and values of its tables."""
SMALL = 4096
"""Weights below which it keeps moments in 32 bits."""


def check_weights(checkpoint: Path, saved: SavedTensors, parameters: Parameters) -> None:
    """Raises CheckpointError unless names, shapes and types are those of the parameters."""
    kinds = saved.kinds()
    if other := sorted(kinds.keys() ^ parameters.keys()):
        raise CheckpointError(
            f"{checkpoint} is of another model, or of an earlier version that trained other parts "
            f"of it: {other[0]} is only in one of them; start again in another --run-dir"
        )
    for name, parameter in parameters.items():
        shape, kind = kinds[name]
        if shape != _shape(parameter):
            raise _misfit(checkpoint, name, f"shape {list(shape)}", f"{list(_shape(parameter))}")
        if kind not in ("F32", TYPES.get(parameter.dtype)):
            raise _misfit(checkpoint, name, f"type {kind}", "F32")


def check_moments(
    checkpoint: Path,
    saved: SavedTensors,
    weights: SavedTensors,
    objective: nn.Module,
    optimizer: Any,
    parameters: Parameters,
    *,
    step: int,
) -> None:
    """Raises CheckpointError unless names, shapes and types are those that the optimizer keeps.

    Only a parameter that has never learned has none: its weight is still that of the model, which
    must not have been replaced yet.
    """
    found: dict[str, dict[str, Kind]] = {name: {} for name in parameters}
    for key, kind in saved.kinds().items():
        name, _, entry = key.rpartition("|")
        if name not in found:
            raise CheckpointError(f"{checkpoint} has moments of {name}, which the model has not")
        found[name][entry] = kind
    base = base_optimizer(optimizer)
    for name, parameter in parameters.items():
        expected = _kept_by(base, _shape(parameter))
        if not found[name]:
            if expected and not _is_untouched(objective, parameter, weights[name]):
                raise CheckpointError(
                    f"{checkpoint} has no moments of {name}, which has learned; go on from another "
                    f"checkpoint, or choose another --run-dir"
                )
            continue
        if other := sorted(found[name].keys() ^ expected.keys()):
            raise CheckpointError(
                f"{checkpoint} is of another optimizer: {name}|{other[0]} is only in one of them"
            )
        for entry, (shape, kind) in found[name].items():
            if (shape, kind) != expected[entry]:
                wanted = f"{list(expected[entry][0])} of {expected[entry][1]}"
                raise _misfit(checkpoint, f"{name}|{entry}", f"{list(shape)} of {kind}", wanted)
        if "step" in expected and not 0 < float(saved[f"{name}|step"]) <= step:
            raise CheckpointError(f"{checkpoint}: {name}|step is no number of steps up to {step}")


def _kept_by(base: torch.optim.Optimizer, shape: tuple[int, ...]) -> Mapping[str, Kind]:
    """Returns shape and type of what an optimizer keeps of a parameter, by entry."""
    name = type(base).__name__
    if name == "SGD":
        return {"momentum_buffer": (shape, "F32")} if base.defaults["momentum"] else {}
    count: dict[str, Kind] = {"step": ((), "F32")}
    if not name.endswith("8bit"):
        return {**count, "exp_avg": (shape, "F32"), "exp_avg_sq": (shape, "F32")}
    numel = int(torch.Size(shape).numel())
    if numel < SMALL:
        return {**count, "state1": (shape, "F32"), "state2": (shape, "F32")}
    scales = ((-(-numel // BLOCK),), "F32")
    return {
        **count,
        **{f"state{one}": (shape, "U8") for one in (1, 2)},
        **{f"qmap{one}": ((BLOCK,), "F32") for one in (1, 2)},
        **{f"absmax{one}": (scales[0], scales[1]) for one in (1, 2)},
    }


def _is_untouched(objective: nn.Module, parameter: Any, saved: Tensor) -> bool:
    with whole_weight(objective, parameter):
        held = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
        return torch.equal(held.detach().cpu(), saved.to(held.dtype))


def _shape(parameter: Any) -> tuple[int, ...]:
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def _misfit(checkpoint: Path, name: str, found: str, wanted: str) -> CheckpointError:
    return CheckpointError(
        f"{checkpoint} does not fit: {name} has {found} there, and needs {wanted}; go on from "
        f"another checkpoint, or choose another --run-dir"
    )
